#!/usr/bin/env python3
"""Holds the names in the pages against what there is.

python3 names_test.py [PROGRAM]...

In code spans of the pages: every path must be in the checkout, every identifier of ours in a source
file; and every option, in code blocks too, must be in the help of one of the programs (not checked
without programs). What belongs to others is listed below.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ("include", "examples", "tests", "benchmarks", "cmake", "docs", ".ci")
SUFFIXES = {".hpp", ".cuh", ".cpp", ".cu", ".py", ".sh", ".cmake", ".txt", ".in", ".json", ""}
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCE = re.compile(r"^ *```.*?^ *```$", re.S | re.M)
PATH = re.compile(r"(?:[\w.-]+/)+[\w.-]+\.(?:hpp|cuh|cpp|cu|py|sh|md|json|cmake|txt)")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:_\w+|[a-z][A-Z]\w*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")

# Names of other programs and libraries, and of files that a user has.
OTHERS = set("""
--build --install --prefix --component --cflags --expt-relaxed-constexpr --check --target
--no-install-recommends CamelCase snake_case save_pretrained
tests/backends/NAME.hpp examples/backends/NAME.cpp out/report.json
""".split())


def pages():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"),
                 *(ROOT / "examples").rglob("*.md")]:
        name = str(page.relative_to(ROOT))
        if name not in ("CHANGELOG.md", "docs/misuse.md"):  # names of the past, and wrong ones
            yield name, page.read_text(encoding="utf-8")


def source_words():
    words = set()
    for folder in SOURCES:
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix in SUFFIXES and "data" not in file.parts and \
                    file != pathlib.Path(__file__).resolve():
                words.update(re.findall(r"\w+", file.read_text(encoding="utf-8", errors="replace")))
    for name in ("CMakeLists.txt", "CMakePresets.json"):
        words.update(re.findall(r"\w+", (ROOT / name).read_text(encoding="utf-8")))
    return words


def options_of(program):
    def text(*arguments):
        return subprocess.run([program, *arguments, "--help"], capture_output=True,
                              text=True).stdout
    found = text()
    for command in re.findall(r"^  ([a-z]+) ", found, re.M):
        found += text(command)
    return set(OPTION.findall(found))


def main():
    programs = sys.argv[1:]
    options = set().union(*(options_of(p) for p in programs))
    words = source_words()
    checked, wrong = 0, []
    for name, text in pages():
        spans = SPAN.findall(FENCE.sub("", text))
        for span in spans:
            for path in PATH.findall(span):
                checked += 1
                places = (ROOT, ROOT / "include", ROOT / "include/pare",
                          ROOT / "include/pare/backend", (ROOT / name).parent)
                if path not in OTHERS and not any((p / path).is_file() for p in places):
                    wrong.append(f"{name}: there is no file {path}")
            for word in IDENTIFIER.findall(PATH.sub("", span)):
                checked += 1
                if word not in words and word not in OTHERS:
                    wrong.append(f"{name}: no source has the name {word}")
        for option in OPTION.findall(text) if programs else ():
            checked += 1
            if option not in options and option not in OTHERS:
                wrong.append(f"{name}: no program has the option {option}")
    print("\n".join(wrong), f"{checked} names checked", sep="\n")
    if wrong or checked < 300:
        sys.exit(1)


if __name__ == "__main__":
    main()
