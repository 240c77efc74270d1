#!/usr/bin/env python3
"""Quotes tested source files in Markdown pages.

python3 docs/quote.py [--check]

The fenced block behind "<!-- quote: PATH:NAME -->" is replaced with what stands between the two
lines "// [NAME]" (or "# [NAME]") of the file PATH, which is counted from the root of the checkout.
With --check nothing is written; a page that differs from its sources is an error.
"""
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUOTE = re.compile(r"^(<!-- quote: (\S+?):([^>]+?) -->\n```\w*\n)(.*?)(```)", re.S | re.M)
MARK = re.compile(r"^<!-- quote: ", re.M)


def pages():
    found = [*ROOT.glob("*.md")]
    for folder in ("docs", "examples"):
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


def quoted(page, path, name):
    source = ROOT / path
    if not source.is_file():
        sys.exit(f"{page}: quotes {path}, which is not there")
    lines = source.read_text().split("\n")
    marks = [i for i, line in enumerate(lines) if line.strip() in (f"// [{name}]", f"# [{name}]")]
    if len(marks) != 2:
        sys.exit(f"{page}: {path} has {len(marks)} lines [{name}]; expected two around a quote")
    return textwrap.dedent("\n".join(lines[marks[0] + 1:marks[1]])).strip("\n") + "\n"


def main():
    check = "--check" in sys.argv[1:]
    stale = quotes = 0
    for page in pages():
        text = page.read_text()
        name = page.relative_to(ROOT)
        fresh, count = QUOTE.subn(lambda m: m[1] + quoted(name, m[2], m[3]) + m[5], text)
        if count != len(MARK.findall(text)):
            sys.exit(f"{name}: a quote has no fenced block behind it")
        quotes += count
        if fresh == text:
            continue
        stale += 1
        print(f"{name}: " + ("differs from what it quotes" if check else "quoted anew"))
        if not check:
            page.write_text(fresh)
    print(f"{quotes} quotes in {len(pages())} pages")
    if check and stale:
        sys.exit("run python3 docs/quote.py")
    if quotes == 0:
        sys.exit("no page quotes anything")


if __name__ == "__main__":
    main()
