#!/usr/bin/env python3
"""Prints a header as Doxygen should read it; docs/Doxyfile names this as its filter.

- Every public entity joins the group of its header, which docs/manual.py shows as one section.
- The shape at the end of a member's line, "// (out, in)", is its documentation. Doxygen gives a
  comment to one name only: what belongs to several members on one line is repeated for each.
- Constraints and concepts are left out, because Doxygen 1.9.1 cannot read them. docs/manual.py
  reads the concepts with `concepts` below.
- A specialisation that only a constraint tells from its template passes for the template.
- Private members are not documented.
- The inline namespace of the target processor is left out: users write pare::X.

Every line stays where it is, so that Doxygen's messages name the right one.
"""
import re
import sys

# Members of a class; what functions declare lies deeper, or has no comment.
MEMBERS = re.compile(r"( *)((?:(?:inline|static|constexpr|const) )*[A-Za-z_][^(){};=]*?) "
                     r"(\w+(?: = [^,;()]+)?(?:, \w+(?: = [^,;()]+)?)+);"
                     r"(?: *(?://(?= \()|///<) *(.*))?$")
SHAPE = re.compile(r"^( +[^/]*;) *// (\(.*)$")
CONSTRAINT = re.compile(r"(?<=>)\n *requires(?= *\(| requires)")  # follows "template <...>"
PART = re.compile(r"\s*(?:(?:&&|\|\|)\s*)?(?:requires\s*)?(?=[({])")
CONCEPT = re.compile(r"((?:^///.*\n)*)^(template <[^\n]*>)\nconcept (\w+) =", re.M)
# At the left margin, so not of a member; a declaration whose definition follows joins no group.
LAST_OF_COMMENT = re.compile(r"^(///(?!<).*)$(?!\n///)"
                             r"(?!\n(?:template <.*>\n)?(?:struct|class) \w+;)", re.M)
COMMENT_AFTER = re.compile(r"^([^\s/].*?) *///< *(.*)$", re.M)  # there as well
NAMESPACE = re.compile(r"^(?:namespace ([\w:]*) ?\{(.*\})?|\}  // namespace.*)$", re.M)
HEADER = re.compile(r"include/(pare/.*\.(?:hpp|cuh))$")


def group_of(header):
    """The Doxygen group of a header such as pare/core/matrix.hpp."""
    return "header_" + re.sub(r"\W", "_", header.removeprefix("pare/").rpartition(".")[0])


def closing(text, at):
    """The position after the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] in "({") - (text[i] in ")}")
        if depth == 0:
            return i + 1
    return len(text)


def without(text, start, end):
    """The text without what lies between two positions, with as many lines."""
    return text[:start] + "\n" * text.count("\n", start, end) + text[end:]


def unconstrained(text):
    """The text without requires clauses."""
    at = 0
    while found := CONSTRAINT.search(text, at):
        end = found.end()
        while more := PART.match(text, end):
            end = closing(text, more.end())
        text = without(text, found.start(), end)
        at = found.start() + 1
    return text


def unspecialised(text):
    """The text with specialisations that only a constraint tells from their template as that."""
    return re.sub(r"^(template <class (\w+)>\s+(?:struct|class) \w+)<\2>", r"\1", text, flags=re.M)


def untargeted(text):
    """The text without the inline namespace of the target."""
    return text.replace("::inline PARE_TARGET", "")


def namespace_at(text, at):
    """The namespace that a position of an untargeted text lies in."""
    inside = []
    for found in NAMESPACE.finditer(text, 0, at):
        if found[0].startswith("}"):
            inside.pop()
        elif not found[2]:  # not closed on the same line
            inside.append(found[1])
    return "::".join(inside)


def concepts(text):
    """(start, end, comment, template, qualified name, definition) of each concept in a text."""
    text = untargeted(text)
    for found in CONCEPT.finditer(text):
        end = found.end()
        while text[end] != ";":
            end = closing(text, end) if text[end] in "({" else end + 1
        comment = "\n".join(line[4:] for line in found[1].splitlines())
        yield (found.start(), end + 1, comment, found[2],
               namespace_at(text, found.start()) + "::" + found[3], text[found.end():end].strip())


def without_concepts(text):
    for start, end, *_ in reversed(list(concepts(text))):
        text = without(text, start, end)
    return text


def without_private_comments(text):
    """The text with comments of private members for readers of the code alone."""
    lines, private = [], False
    for line in text.split("\n"):
        if re.match(r" *private:$", line):
            private = True
        elif re.match(r" *(public|protected):$|};", line):
            private = False
        lines.append(line.replace("///", "//") if private else line)
    return "\n".join(lines)


def with_member_comments(text):
    before, lines = [], []  # the /// lines directly above
    for line in text.split("\n"):
        found = MEMBERS.match(line)
        shape = found and (found[4] or " ".join(b.strip()[3:].strip() for b in before))
        if shape:
            names = found[3].split(", ")
            lines.append(found[1] + " ".join(f"/** {shape} */ {found[2]} {n};" for n in names))
        else:
            lines.append(SHAPE.sub(r"\1  ///< \2", line))
        before = before + [line] if line.strip().startswith("///") else []
    return "\n".join(lines)


def filtered(path):
    with open(path, encoding="utf-8") as source:
        text = untargeted(source.read())
    header = HEADER.search(path)
    if not header:
        return text
    for change in (without_concepts, without_private_comments, unconstrained, unspecialised):
        text = change(text)
    group = group_of(header[1])
    text = LAST_OF_COMMENT.sub(rf"\1 @ingroup {group}", text)
    text = COMMENT_AFTER.sub(rf"/** \2 @ingroup {group} */ \1", text)
    text = with_member_comments(text)
    return f"/** @defgroup {group} {header[1]} */ {text}"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(filtered(sys.argv[1]))
