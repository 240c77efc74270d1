#!/usr/bin/env python3
"""Holds the output that a README shows against what the program prints.

python3 output_test.py README.md [--inexact WORD]... -- PROGRAM [ARGUMENT]...

The fenced block behind "<!-- output -->" must be what PROGRAM writes to standard output, line by
line. On lines that hold a WORD, numbers are not compared: they are times, or their digits depend
on the processor. Spaces at the end of a line are not compared either. {TMP} in an argument is a
folder that is made for the run. With PARE_UPDATE_DOCS=1 the block is written anew. Where PROGRAM
ends with 77 (skipped), so does this.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"(<!-- output -->\n```\w*\n)(.*?)(```)", re.S)
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def comparable(line, inexact):
    if any(word in line for word in inexact):
        line = " ".join(NUMBER.sub("#", line).split())
    return line.rstrip()


def main():
    split = sys.argv.index("--")
    page, options, command = pathlib.Path(sys.argv[1]), sys.argv[2:split], sys.argv[split + 1:]
    inexact = [b for a, b in zip(options, options[1:]) if a == "--inexact"]
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run([a.replace("{TMP}", folder) for a in command], capture_output=True,
                             text=True)
    if run.returncode == 77:  # the program says what it lacks
        print(run.stdout, end="")
        sys.exit(77)
    if run.returncode != 0:
        sys.exit(f"{command[0]} ended with {run.returncode}: {run.stderr}")
    text = page.read_text()
    found = BLOCK.search(text)
    if not found:
        sys.exit(f"{page}: no fenced block behind <!-- output -->")
    if os.environ.get("PARE_UPDATE_DOCS") == "1":
        output = "\n".join(line.rstrip() for line in run.stdout.split("\n"))
        page.write_text(text[:found.start(2)] + output + text[found.end(2):])
        return
    shown, printed = found[2].split("\n"), run.stdout.split("\n")
    for number in range(max(len(shown), len(printed))):
        a = shown[number] if number < len(shown) else "(nothing)"
        b = printed[number] if number < len(printed) else "(nothing)"
        if comparable(a, inexact) != comparable(b, inexact):
            sys.exit(f"{page}: line {number + 1} of the output shown is\n  {a}\n"
                     f"the program prints\n  {b}\nPARE_UPDATE_DOCS=1 ctest writes it anew")


if __name__ == "__main__":
    main()
