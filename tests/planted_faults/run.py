#!/usr/bin/env python3
"""Plants faults in the headers, one at a time, and lists those that no test catches.

    tests/planted_faults/run.py [--build FOLDER] [--jobs N] [NAME ...]
    tests/planted_faults/run.py --check

faults.json says for every fault which lines of which stage, policy, signal or reader it changes and
which tests must then fail. The tree is copied into FOLDER, by default build-faults, and built there
as tests/run.sh builds it; the sources stay as they are. Exit status 1 when a fault survives or
cannot be planted. --check only looks whether every fault can still be planted, in no time.
"""
import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def headers(root):
    return sorted(p for p in (root / "include").rglob("*") if p.suffix in (".hpp", ".cuh"))


def planted(fault, root):
    """The header that holds the fault's lines, and its text with the fault in it."""
    places = []
    for path in headers(root):
        text = path.read_text()
        if text.count(fault["find"]) > 0:
            places += [(path, text)] * text.count(fault["find"])
    if len(places) != 1:
        raise SystemExit(f"{fault['name']}: expected its lines once in include/, found them "
                         f"{len(places)} times: {fault['find']!r}")
    path, text = places[0]
    return path, text, text.replace(fault["find"], fault["plant"])


def run(command, **options):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, check=False, **options)


def copy_tree(build):
    """The tracked and the new files as they are, where they can be changed."""
    copy = build / "source"
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], text=True,
                           stdout=subprocess.PIPE, check=True).stdout.splitlines()
    for name in names:
        source, target = ROOT / name, copy / name
        if not source.is_file():
            continue
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue  # keeps its time, so that nothing is built again
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return copy


class Build:
    def __init__(self, folder, jobs):
        self.source = copy_tree(folder)
        self.folder = folder / "build"
        self.jobs = str(jobs)
        launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        configured = run(["cmake", "-S", self.source, "-B", self.folder, "-G", "Ninja", *launcher,
                          "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
                          "-DPARE_QUICK_TESTS=ON", "-DPARE_BENCHMARKS=OFF", "-DPARE_CUDA=OFF",
                          "-DPARE_THRUST=OFF", "-DPARE_XTENSOR=OFF",
                          f"-DPARE_SHARED_DIR={ROOT.parent / 'shared'}"])
        if configured.returncode != 0:
            raise SystemExit(configured.stdout)

    def build(self, targets):
        return run(["cmake", "--build", self.folder, "-j", self.jobs, "--target", *targets])

    def test(self, tests):
        names = "|".join(re.escape(t) for t in tests)
        return run(["ctest", "--test-dir", self.folder, "-j", self.jobs, "--no-tests=error",
                    "--output-on-failure", "-R", f"^({names})$"])


def first_failure(output):
    """What a log says first of a failed check."""
    for line in output.splitlines():
        found = re.search(r"error: in \"([^\"]+)\": (.*)", line)
        if found:
            return f"{found[1]}: {found[2]}"[:100]
    return "a test failed"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build-faults")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()

    faults = json.loads((HERE / "faults.json").read_text())
    if arguments.names:
        unknown = set(arguments.names) - {f["name"] for f in faults}
        if unknown:
            raise SystemExit(f"no fault has the name {', '.join(sorted(unknown))}")
        faults = [f for f in faults if f["name"] in arguments.names]
    for fault in faults:
        planted(fault, ROOT)
    if arguments.check:
        print(f"{len(faults)} faults can be planted")
        return 0

    build = Build(arguments.build.resolve(), arguments.jobs)
    tests = sorted({t for f in faults for t in f["tests"]})
    targets = sorted({t for f in faults for t in f["targets"]})
    for what, done in (("build", build.build(targets)), ("tests", build.test(tests))):
        if done.returncode != 0:
            raise SystemExit(f"without a fault the {what} must pass:\n{done.stdout[-4000:]}")

    survived = []
    for fault in faults:
        path, text, changed = planted(fault, build.source)
        path.write_text(changed)
        try:
            built = build.build(fault["targets"])
            if built.returncode != 0:
                raise SystemExit(f"{fault['name']}: does not compile:\n{built.stdout[-4000:]}")
            tested = build.test(fault["tests"])
        finally:
            path.write_text(text)
        caught = tested.returncode != 0
        said = first_failure(tested.stdout) if caught else "SURVIVED: " + fault["is"]
        print(f"{'caught  ' if caught else 'SURVIVED'}  {fault['name']:<28} {said}", flush=True)
        if not caught:
            survived.append(fault["name"])
    print(f"{len(faults) - len(survived)} of {len(faults)} faults caught"
          + (f"; survived: {', '.join(survived)}" if survived else ""))
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
