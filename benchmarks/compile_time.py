#!/usr/bin/env python3
"""What including a header of pare costs: seconds of the compiler and size when preprocessed.

    compile_time.py measure   measures, writes docs/compile-time.json and docs/compile-time.md
    compile_time.py commands WHEN [COMMIT [COMMAND]...]
                              runs the commands that users run on clean clones with an empty compiler
                              cache, writes what they took into both files; WHEN is before or after
    compile_time.py render    writes the page from its JSON
    compile_time.py check     holds the umbrella's size against its budget, the page against its
                              JSON, and prints what compiling takes here and now

The compiler is $CXX, or g++; headers that it cannot compile here are left out and named.
"""
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs/compile-time.json"
PAGE = ROOT / "docs/compile-time.md"
HEADERS = ["pare/core/backend.hpp", "pare/calibration/calibration.hpp",
           "pare/allocation/allocator.hpp", "pare/solver/sparsegpt.hpp", "pare/pare.hpp",
           "pare/backend/reference.hpp", "pare/backend/eigen.hpp", "pare/backend/xtensor.hpp",
           "pare/backend/thrust.hpp", "pare/backend/thrust_tbb.hpp", "pare/report/json.hpp",
           "pare/storage/checkpoint.hpp", "pare/tokenizer/tokenizer.hpp", "pare/model/decoder.hpp",
           "pare/pipeline/compress.hpp"]
PROGRAMS = [("core.cpp", "-O0"), ("core.cpp", "-O3"), ("eigen.cpp", "-O0"), ("eigen.cpp", "-O3"),
            ("eigen.cpp", "-O0 -DPARE_EXTERN_KERNELS"), ("eigen.cpp", "-O3 -DPARE_EXTERN_KERNELS")]
COMMANDS = ["bash tests/run.sh", "bash examples/demo.sh"]
# Of pare.hpp, preprocessed. The library's own part is the same everywhere; the rest is the standard
# library's, with room for larger ones than GCC 12's.
BUDGET = {"header": "pare/pare.hpp", "own_lines": 6700, "lines": 100000, "kilobytes": 3700}


def compiler():
    return os.environ.get("CXX", "g++")


def flags():
    eigen = subprocess.run(["pkg-config", "--cflags", "eigen3"], capture_output=True, text=True)
    return ["-std=c++20", "-fopenmp", f"-I{ROOT}/include"] + eigen.stdout.split()


def run(arguments):
    """Standard output of a compiler's run, or None where it fails, and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([compiler()] + flags() + arguments, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (done.stdout if done.returncode == 0 else None), seconds


def size(file):
    """Lines that are not empty: of pare and in all; kilobytes of all."""
    text, _ = run(["-E", str(file)])
    if text is None:
        return None
    own = lines = characters = 0
    of_pare = False
    for line in text.splitlines():
        if line.startswith("# "):
            of_pare = "/include/pare/" in line
        elif line.strip():
            lines += 1
            characters += len(line) + 1
            own += of_pare
    return {"own_lines": own, "lines": lines, "kilobytes": round(characters / 1000)}


def header_cost(header, repeats):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "one.cpp"
        file.write_text(f'#include "{header}"\n')
        cost = size(file)
        if cost is None:
            return None
        cost["seconds"] = round(min(run(["-fsyntax-only", str(file)])[1]
                                    for _ in range(repeats)), 2)
        return {"header": header, **cost}


def program_cost(name, options):
    source = ROOT / "tests/consumer/project" / name
    text, seconds = run([*options.split(), "-c", str(source), "-o", os.devnull])
    if text is None:
        return None
    return {"program": name, "options": options, "seconds": round(seconds, 1)}


def measure():
    headers = [header_cost(header, 3) for header in HEADERS]
    programs = [program_cost(*program) for program in PROGRAMS]
    for name, cost in zip(HEADERS + [str(p) for p in PROGRAMS], headers + programs):
        if cost is None:
            print("left out, does not compile here:", name)
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True).stdout
    write({"compiler": version.splitlines()[0], "budget": BUDGET,
           "headers": [cost for cost in headers if cost],
           "programs": [cost for cost in programs if cost],
           "commands": json.loads(RESULTS.read_text()).get("commands", [])})


def write(results):
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))


def command_cost(command, commit):
    """Runs a command in a clean clone; its output is shown, and so is that it failed."""
    with tempfile.TemporaryDirectory() as folder:
        clone = pathlib.Path(folder) / "pare"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        subprocess.run(["git", "checkout", "-q", commit], cwd=clone, check=True)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=clone, check=True,
                                capture_output=True, text=True).stdout.strip()
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command.split(), cwd=clone,
                              env={**os.environ, "CCACHE_DIR": f"{folder}/cache"})
        if done.returncode != 0:
            print(f"{command} of {commit}: exit {done.returncode}", file=sys.stderr)
        seconds = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"command": command, "commit": commit, "cores": os.cpu_count(),
            "processor_seconds": round(processor), "seconds": round(seconds)}


def measure_commands(when, commit="HEAD", *names):
    results = json.loads(RESULTS.read_text())
    for command in names or COMMANDS:
        cost = {"when": when, **command_cost(command, commit)}
        print(cost)
        kept = [row for row in results.get("commands", [])
                if (row["when"], row["command"]) != (when, command)]
        results["commands"] = sorted(kept + [cost], key=lambda row: (row["command"],
                                                                     row["when"] != "before"))
        write(results)


def command_table(rows):
    if not rows:
        return ""
    text = """## What the commands take

Each on a clean clone with an empty compiler cache and the packages installed
(`benchmarks/compile_time.py commands`). Processor time is user and system time of all that a command
starts:

| command | | commit | cores | processor seconds | seconds |
|---|---|---|---:|---:|---:|
"""
    for row in rows:
        text += (f"| `{row['command']}` | {row['when']} | {row['commit']} | {row['cores']} | "
                 f"{row['processor_seconds']} | {row['seconds']} |\n")
    return text + "\n"


def page(results):
    budget = results["budget"]
    text = f"""# Compile time

What a source file pays for including a header of pare, and what a small program takes. Rendered by
`benchmarks/compile_time.py measure` from [compile-time.json](compile-time.json); seconds are
processor time of {results["compiler"]} on the machine that measured, the least of
three. Lines are those of the preprocessed text that are not empty.

| header | lines of pare | lines in all | kB | seconds |
|---|---:|---:|---:|---:|
"""
    for row in results["headers"]:
        text += (f"| `{row['header']}` | {row['own_lines']} | {row['lines']} | "
                 f"{row['kilobytes']} | {row['seconds']:.2f} |\n")
    text += """
The core needs the standard library only, and most of its lines are that. JSON is the dearest header
of the storage and the model; include those where files are read, not everywhere.

`tests/consumer/project` holds small programs that solve one layer:

| program | options | seconds |
|---|---|---:|
"""
    for row in results["programs"]:
        text += f"| `{row['program']}` | `{row['options']}` | {row['seconds']:.1f} |\n"
    text += f"""
Every configuration, backend and scalar type is a program of its own to the compiler: a source file
with one of each takes what is above, one that dispatches to all of them as pare does a minute.

{command_table(results.get("commands", []))}## Kernels compiled once

With the Eigen and Thrust backends the products and factorisations of blocks take much of the time,
in every source file again. A program of several files can compile them in one of them:

```cpp
#include "pare/backend/eigen_kernels_instances.hpp"  // in one file and nowhere else
```

and all its files with `-DPARE_EXTERN_KERNELS`. What it computes stays the same; the tests and tools
of this repository are built that way.

The same goes for solvers, whose `prepare` and `solve` are not inline. Files that share a solver
declare `extern template class pare::SparseGPTSolver<Config, Backend, T>;`, and one of them defines it
without `extern`. `cmake/eigen_solvers.hpp` does this for all configurations that `dispatch` knows.

## Budget

`{budget['header']}` may have at most {budget['own_lines']} lines of pare, {budget['lines']} lines
in all and {budget['kilobytes']} kB; the latter two leave room for larger standard libraries.
`ctest -R compile_time` fails above that. It prints the time and does not judge it.
"""
    return text


def check():
    results = json.loads(RESULTS.read_text())
    failed = False
    if results["budget"] != BUDGET or PAGE.read_text() != page(results):
        print("docs/compile-time.md is not what compile_time.py renders: run it with measure")
        failed = True
    cost = header_cost(BUDGET["header"], 1)
    if cost is None:
        print(f"{BUDGET['header']} does not compile with {compiler()}")
        return True
    print(cost)
    for key in ("own_lines", "lines", "kilobytes"):
        if cost[key] > BUDGET[key]:
            print(f"{BUDGET['header']}: {key} {cost[key]} is above the budget of {BUDGET[key]}")
            failed = True
    return failed


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        measure()
    elif sys.argv[1:2] == ["commands"] and len(sys.argv) > 2:
        measure_commands(*sys.argv[2:])
    elif sys.argv[1:] == ["render"]:
        write(json.loads(RESULTS.read_text()))
    elif sys.argv[1:] == ["check"]:
        sys.exit(check())
    else:
        sys.exit(__doc__)
