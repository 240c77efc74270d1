#!/usr/bin/env python3
"""Prepares what Sphinx reads: the pages, and a page of reference for each folder of headers.

python3 docs/manual.py    (docs/build.sh runs it between doxygen and sphinx-build)

It needs build-docs/xml of doxygen and writes build-docs/pages:

- Every Markdown page of the manual, and the files that pages link to, in the folders of the
  checkout. The contents list follows the headings and links of docs/README.md.
- reference/FOLDER.md, with a section for each header that holds the group of that header (see
  docs/doxygen_filter.py) and its concepts.

It also adds to the XML: below each symbol stands its header, and the pages that name it.
"""
import collections
import copy
import os
import pathlib
import re
import shutil
import sys
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import doxygen_filter  # noqa: E402

XML = ROOT / "build-docs/xml"
PAGES = ROOT / "build-docs/pages"
FRONT = "docs/README.md"
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s]+)\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCE = re.compile(r"^ *```.*?^ *```$|<!--.*?-->", re.S | re.M)
HEADING = re.compile(r"^#+ (.*)$", re.M)
SYMBOL = re.compile(r"([A-Za-z_][\w:]*)(<.*>)?(\(\))?$", re.S)
MOST_PAGES = 6  # named below a symbol


def pages():
    """The Markdown pages of the manual, as paths from the root of the checkout."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for folder in ("docs", "examples"):
        found += sorted((ROOT / folder).rglob("*.md"))
    return [p.relative_to(ROOT) for p in found]


def headers():
    """The headers of each folder, as they are included."""
    found = collections.defaultdict(list)
    for path in sorted((ROOT / "include/pare").rglob("*.[hc][pu][ph]")):
        name = path.relative_to(ROOT / "include")
        found[name.parts[1] if len(name.parts) > 2 else "pare"].append(str(name))
    return found


def page_of(header):
    parts = header.split("/")
    return "reference/" + (parts[1] if len(parts) > 2 else "pare")


def prose(text):
    """The text with fenced blocks and comments emptied; every line stays where it is."""
    return FENCE.sub(lambda m: "\n" * m[0].count("\n"), text)


def in_prose(change, text):
    """The text with everything but fenced blocks and comments changed by a function."""
    at, parts = 0, []
    for fence in FENCE.finditer(text):
        parts += [change(text[at:fence.start()]), fence[0]]
        at = fence.end()
    return "".join(parts) + change(text[at:])


def slug(heading):
    """The anchor that Sphinx gives to a heading."""
    return re.sub(r"[^a-z0-9]+", "-", heading.replace("`", "").lower()).strip("-")


class Symbols:
    """Where the reference describes a name."""

    def __init__(self):
        self.places = {}  # qualified name: (page, anchor, header)
        self.suffixes = collections.defaultdict(set)

    def add(self, name, page, anchor, header):
        name = re.sub(r"<.*", "", name).strip()
        if name in self.places:
            return  # an overload or a specialisation
        self.places[name] = (page, anchor, header)
        parts = name.split("::")
        for first in range(len(parts)):
            self.suffixes["::".join(parts[first:])].add(name)

    def find(self, text):
        """The qualified name that a code span means, or None."""
        if text.endswith((".hpp", ".cuh")):
            names = {n for n in self.suffixes.get(text, ())}
        else:
            found = SYMBOL.match(text)
            if not found or (re.fullmatch(r"[a-z]+", found[1]) and not found[3]):
                return None  # a plain word is more often an option or a value
            names = self.suffixes.get(found[1], set())
            names = {n for n in names if "::" not in n or found[1] != n.split("::")[-1] or
                     not self.is_member(n)}
        return next(iter(names)) if len(names) == 1 else None

    def is_member(self, name):
        return name.rpartition("::")[0] in self.places


def read_symbols():
    symbols = Symbols()
    for folder, names in headers().items():
        for header in names:
            page = page_of(header)
            symbols.places[header] = (page, slug(header), header)
            for suffix in (header, header.removeprefix("pare/"), header.split("/")[-1]):
                symbols.suffixes[suffix].add(header)
            group = XML / (group_file(header) + ".xml")
            if group.is_file():
                compound = ET.parse(group).getroot()[0]
                for inner in compound.findall("innerclass"):
                    symbols.add(inner.text, page, inner.get("refid"), header)
                    for member in ET.parse(XML / (inner.get("refid") + ".xml")).iter("memberdef"):
                        if member.get("prot") == "public":
                            name = inner.text + "::" + member.findtext("name")
                            symbols.add(name, page, member.get("id"), header)
                for member in compound.iter("memberdef"):
                    symbols.add(qualified(member), page, member.get("id"), header)
            for *_, name, _ in concepts_of(header):
                symbols.add(name, page, concept_anchor(name), header)
    return symbols


def require_all(symbols):
    """Ends the run where a public symbol is on no page of the reference."""
    lost = set()
    for xml in XML.glob("namespace*.xml"):
        compound = ET.parse(xml).getroot()[0]
        space = compound.findtext("compoundname")
        names = [inner.text for inner in compound.findall("innerclass")]
        names += [space + "::" + (m.findtext("name") or "") for m in compound.iter("member")]
        names += [space + "::" + m.findtext("name") for m in compound.iter("memberdef")]
        lost.update(name for name in names
                    if re.sub(r"<.*", "", name).strip() not in symbols.places)
    if lost:
        sys.exit("no header's group has these, whose comments are not /// at the left margin: " +
                 ", ".join(sorted(lost)))


def group_file(header):
    """How Doxygen names the file of a group."""
    return "group__" + doxygen_filter.group_of(header).replace("_", "__")


def concepts_of(header):
    text = (ROOT / "include" / header).read_text(encoding="utf-8")
    return [c for c in doxygen_filter.concepts(text) if "detail" not in c[4]]


def concept_anchor(name):
    return "concept-" + slug(name.replace("::", "-"))


def qualified(member):
    name = member.findtext("qualifiedname")
    if name:
        return name
    found = re.findall(r"pare::[\w:]+", member.findtext("definition") or "")
    return found[-1] if found else member.findtext("name")


def mentions(symbols):
    """For each symbol, the sections of pages that name it: [(title, url)], one for each page."""
    found = collections.defaultdict(list)
    for page in pages():
        if page.name == "CHANGELOG.md":
            continue
        text = prose((ROOT / page).read_text(encoding="utf-8"))
        title = HEADING.search(text)[1].replace("`", "")
        url = "../" + str(page.with_suffix(".html"))
        seen, slugs, anchor = set(), collections.Counter(), ""
        for line in text.split("\n"):
            heading = HEADING.match(line)
            if heading:
                here = slug(heading[1])
                slugs[here] += 1
                anchor = f"#{here}" if slugs[here] == 1 and here[:1].isalpha() else ""
                continue
            for span in SPAN.findall(line):
                name = symbols.find(span)
                if name and name not in seen:
                    seen.add(name)
                    found[name].append((title, url + anchor))
    return found


def annotate(symbols, named):
    """Adds header and pages below the description of every class, function, type and value."""
    for xml in sorted(XML.glob("*.xml")):
        if not xml.name.startswith(("group__header__", "class", "struct", "union")):
            continue
        tree = ET.parse(xml)
        compound = tree.getroot()[0]
        entities = [(qualified(m), m) for m in compound.iter("memberdef")]
        if compound.get("kind") != "group":
            entities = [(compound.findtext("compoundname"), compound)]
        for name, entity in entities:
            place = symbols.places.get(re.sub(r"<.*", "", name).strip())
            if not place:
                continue
            para = ET.SubElement(entity.find("detaileddescription"), "para")
            code = ET.SubElement(para, "computeroutput")
            code.text = f'#include "{place[2]}"'
            links = named.get(re.sub(r"<.*", "", name).strip(), [])[:MOST_PAGES]
            for i, (title, url) in enumerate(links):
                (code if i == 0 else link).tail = ". See " if i == 0 else ", "
                link = ET.SubElement(para, "ulink", url=url)
                link.text = title
        for name in compound.iter("parametername"):
            if len(name) == 0:
                name.text = (name.text or "").rstrip(";:,")
        for items in compound.iter("parameterlist"):  # Breathe wants one name for each text
            for item in list(items):
                names = item.find("parameternamelist")
                for extra in list(names)[1:]:
                    names.remove(extra)
                    single = copy.deepcopy(item)
                    single.find("parameternamelist")[:] = [extra]
                    items.insert(list(items).index(item) + 1, single)
        tree.write(xml, encoding="utf-8")


def rooms():
    """What each folder holds, from the table in docs/design.md."""
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.M))


def first_comment(header):
    lines = (ROOT / "include" / header).read_text(encoding="utf-8").split("\n")
    comment = []
    for line in lines:
        if not line.startswith("// "):
            break
        comment.append(line[3:])
    return " ".join(comment)


def pages_about(symbols, named, folder):
    """The pages that name most of a folder's symbols, as links."""
    count = collections.Counter()
    for name, sections in named.items():
        if symbols.places[name][0] == f"reference/{folder}":
            count.update((title, url.partition("#")[0]) for title, url in sections)
    links = [f"[{title}]({url.replace('.html', '.md')})"
             for (title, url), _ in count.most_common(MOST_PAGES)]
    return ["", "Pages: " + ", ".join(links) + "."] if links else []


def overview(symbols, headers):
    """The symbols of each header, as links."""
    lines = ["", "| header | symbols |", "|---|---|"]
    for header in headers:
        names = [(name.removeprefix("pare::"), anchor)
                 for name, (_, anchor, where) in symbols.places.items()
                 if where == header != name and not symbols.is_member(name)]
        links = ", ".join(f'<a href="#{anchor}">{name}</a>' for name, anchor in names)
        lines.append(f'| <a href="#{slug(header)}">{header}</a> | {links} |')
    return lines if any("</a> | <a" in line for line in lines) else []


def write_reference(symbols, named):
    holds = rooms()
    (PAGES / "reference").mkdir(parents=True)
    written = []
    for folder, names in headers().items():
        if folder != "pare" and folder not in holds:
            sys.exit(f"docs/design.md: no row for the folder {folder} of include/pare")
        lines = [f"# {folder}" if folder != "pare" else "# pare.hpp", "",
                 "The header that includes the core of the library." if folder == "pare" else
                 f"Holds {holds[folder]}. [Design](../docs/design.md) has the table of all folders.",
                 *pages_about(symbols, named, folder), *overview(symbols, names)]
        for header in names:
            lines += ["", f"## `{header}`", "", first_comment(header), ""]
            group = ET.parse(XML / (group_file(header) + ".xml")).getroot()[0]
            classes = [inner.text for inner in group.findall("innerclass")]
            if classes or group.find(".//memberdef") is not None:
                # Members of a specialisation are those of its template; Sphinx confuses the two.
                special = classes and all("<" in name for name in classes)
                lines += ["```{doxygengroup} " + doxygen_filter.group_of(header),
                          ":content-only:", *([] if special else [":members:"]), "```"]
            elif not concepts_of(header):
                lines.append("Other headers include it; it has no symbol for users.")
            for _, _, comment, template, name, definition in concepts_of(header):
                links = named.get(name, [])[:MOST_PAGES]
                links = [f"[{title}]({url.replace('.html', '.md')})" for title, url in links]
                see = ". See " + ", ".join(links) if links else ""
                lines += ["", f"({concept_anchor(name)})=",
                          f"````{{cpp:concept}} {template} {name}", comment, "",
                          "```cpp", definition, "```", "",
                          f'`#include "{header}"`{see}', "````"]
        (PAGES / f"reference/{folder}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(folder)
    return written


def copied(page, link):
    """A link as it is in the manual; what is no page is copied beside it."""
    picture, text, target = link.groups()
    path, mark, anchor = target.partition("#")
    if re.match(r"[a-z]+:", target) or not path:
        return link[0]
    file = pathlib.Path(os.path.normpath(page.parent / path))
    if (ROOT / file).is_dir():
        file /= "README.md"
        path = path.rstrip("/") + "/README.md"
    if not (ROOT / file).is_file():
        sys.exit(f"{page}: links to {target}, which is not there")
    if file.suffix == ".md":
        return f"[{text}]({path}{mark}{anchor})"
    (PAGES / file.parent).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / file, PAGES / file)
    return link[0] if picture else "{download}`" + text.replace("`", "") + f" <{path}>`"


def contents(folders):
    """The contents list: a part for each heading of the front page, with the pages it links to."""
    text = prose((ROOT / FRONT).read_text(encoding="utf-8"))
    lines, seen = [], set()
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        lines += ["", "```{toctree}", ":hidden:", ":caption: " + part.split("\n")[0], ""]
        for _, _, target in LINK.findall(part):
            page = os.path.normpath(f"docs/{target.partition('#')[0]}")
            if page.endswith(".md") and page not in seen:
                seen.add(page)
                lines.append("/" + page.removesuffix(".md"))
        lines.append("```")
    lines += ["<a href=\"../genindex.html\">Every symbol, from A to Z</a>.",
              "", "```{toctree}", ":hidden:", ":caption: Reference", "",
              *(f"/reference/{folder}" for folder in folders), "```", ""]
    return "\n".join(lines)


def main():
    shutil.rmtree(PAGES, ignore_errors=True)
    symbols = read_symbols()
    require_all(symbols)
    named = mentions(symbols)
    annotate(symbols, named)
    folders = write_reference(symbols, named)
    for page in pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        text = in_prose(lambda part: LINK.sub(lambda m: copied(page, m), part), text)
        text = re.sub(r"^( *)```math$", r"\1```{math}", text, flags=re.M)
        if str(page) == FRONT:
            text += contents(folders)
        (PAGES / page).parent.mkdir(parents=True, exist_ok=True)
        (PAGES / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
