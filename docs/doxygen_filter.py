#!/usr/bin/env python3
"""Prints a header or a page as Doxygen should read it; docs/Doxyfile names this as its filter.

The shape at the end of a member's line, "// (out, in)", is its documentation. Doxygen gives a
comment to one name only: what belongs to several members on one line is repeated for each.
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
    if sys.argv[1].endswith(".md"):
        print(PICTURE.sub(r'\\htmlonly <img src="\2" alt="\1"/> \\endhtmlonly', text))
    else:
        print("\n".join(filtered(text.split("\n"))))
