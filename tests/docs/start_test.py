#!/usr/bin/env python3
"""Does what docs/start.md says about the library, as pasted, in a new folder.

python3 start_test.py [--cmake]

Saves the program and builds and runs it with the first commands that follow it; with --cmake saves
CMakeLists.txt too and runs the commands after that instead. The program must print its table.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    page = (ROOT / "docs/start.md").read_text(encoding="utf-8")
    part = page.split("## Five minutes with the library")[1]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", part, re.S | re.M)
    assert [kind for kind, _ in blocks[:4]] == ["cpp", "sh", "cmake", "sh"], blocks
    with_cmake = "--cmake" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        new = pathlib.Path(folder)
        (new / "pare").symlink_to(ROOT)
        (new / "main.cpp").write_text(blocks[0][1], encoding="utf-8")
        if with_cmake:
            (new / "CMakeLists.txt").write_text(blocks[2][1], encoding="utf-8")
        commands = blocks[3 if with_cmake else 1][1]
        run = subprocess.run(["sh", "-e", "-c", commands], cwd=new, text=True, capture_output=True)
    print(run.stdout[-2000:])
    if run.returncode != 0 or "mean bits          3.5000" not in run.stdout:
        sys.exit(f"{commands}\nended with {run.returncode}\n{run.stderr[-4000:]}")
    if run.stderr:
        sys.exit(f"{commands}\nsaid: {run.stderr[-4000:]}")


if __name__ == "__main__":
    main()
