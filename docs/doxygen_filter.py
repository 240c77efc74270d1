#!/usr/bin/env python3
"""Prints a header or a page as Doxygen should read it; docs/Doxyfile names this as its filter.

The shape at the end of a member's line, "// (out, in)", is its documentation. Doxygen gives a
comment to one name only: what belongs to several members on one line is repeated for each.
Constraints of templates are left out, because Doxygen 1.9.1 cannot read them.
Pictures of pages keep their folders, where Doxygen would copy two of one name onto each other.
"""
import re
import sys

# Members of a class; what functions declare lies deeper, or has no comment.
MEMBERS = re.compile(r"( *)((?:(?:inline|static|constexpr|const) )*[A-Za-z_][^(){};=]*?) "
                     r"(\w+(?: = [^,;()]+)?(?:, \w+(?: = [^,;()]+)?)+);"
                     r"(?: *(?://(?= \()|///<) *(.*))?$")
PICTURE = re.compile(r"!\[([^]]*)\]\(([^)]*\.svg)\)")
SHAPE = re.compile(r"^( +[^/]*;) *// (\(.*)$")
CONSTRAINT = re.compile(r"(?<=>)\n *requires(?= *\(| requires)")  # behind "template <...>"
PART = re.compile(r"\s*(?:(?:&&|\|\|)\s*)?(?:requires\s*)?(?=[({])")


def closing(text, at):
    """Position behind the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] in "({") - (text[i] in ")}")
        if depth == 0:
            return i + 1
    return len(text)


def unconstrained(text):
    """The text without requires clauses; every line stays where it is."""
    at = 0
    while found := CONSTRAINT.search(text, at):
        end = found.end()
        while more := PART.match(text, end):
            end = closing(text, more.end())
        text = text[:found.start()] + "\n" * text.count("\n", found.start(), end) + text[end:]
        at = found.start() + 1
    return text


def filtered(lines):
    before = []  # the /// lines directly above
    for line in lines:
        found = MEMBERS.match(line)
        text = found and (found[4] or " ".join(b.strip()[3:].strip() for b in before))
        if text:
            names = found[3].split(", ")
            yield found[1] + " ".join(f"/** {text} */ {found[2]} {name};" for name in names)
        else:
            yield SHAPE.sub(r"\1  ///< \2", line)
        before = before + [line] if line.strip().startswith("///") else []


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as source:
        text = source.read()
    sys.stdout.reconfigure(encoding="utf-8")
    if sys.argv[1].endswith(".md"):
        text = PICTURE.sub(r'\\htmlonly <img src="\2" alt="\1"/> \\endhtmlonly', text)
        # Doxygen 1.9.1 takes "::name" behind a template for a link, also in code: a word joiner.
        print(re.sub(r"(`[^`\n]*>:)(:[^`\n]*`)", "\\1\u2060\\2", text))
    else:
        print("\n".join(filtered(unconstrained(text).split("\n"))))
