#!/usr/bin/env python3
"""Writes the tables of speeds in README.md from the JSON in docs/benchmarks.

python3 benchmarks/readme.py [--check]

They stand between "<!-- speed -->" and "<!-- end -->". With --check nothing is written; tables
that differ from the JSON are an error.
"""
import json
import pathlib
import re
import sys

from render import number, packed_best, rows_of

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLES = re.compile(r"(<!-- speed -->\n).*?(<!-- end -->)", re.S)

SOLVES_CPU = [(768, 768), (2048, 2048)]
SOLVES_GPU = [(768, 768), (4096, 4096), (12288, 12288)]
PRODUCTS = [(4096, 4096), (16384, 4096)]
# Title, name in packed_cpu.json, name in packed_h200.json.
WEIGHTS = [("2 bit", "bits_2", "2 bit"),
           ("4 bit", "bits_4", "4 bit"),
           ("mixed 3.0 by output", "mixed_3", "mixed 3.0, output channels"),
           ("50 % + 4 bit, with its mask", "half_4", "50 % + 4 bit"),
           ("2:4 + 4 bit", "two_of_four_4", "2:4 + 4 bit")]


def load(name):
    return json.loads((ROOT / "docs" / "benchmarks" / name).read_text())


def peer_times(peer):
    return {(r["rows"], r["cols"]): r["median_ms"] for r in peer.get("results", [])
            if r["config"] == "50+4"}


def solves():
    """(shape, machine, ms, floor, peer) of the solves at 50 % + 4 bit."""
    run, theirs = load("cpu.json"), peer_times(load("cpu_peer.json"))
    for name, out, columns, entry in rows_of(run):
        if name == "prune_50_bits_4" and (out, columns) in SOLVES_CPU:
            yield (f"{out} x {columns}", f"{run['context']['num_cpus']} cores", entry["real_time"],
                   entry["floor_ms"], theirs.get((out, columns)))
    run = load("h100.json")
    theirs = peer_times(run.get("peer", {}))
    for s in run["solver"]["solves"]:
        shape = (s["out"], s["in"])
        if s["config"] == "50%+4bit" and shape in SOLVES_GPU:
            yield (f"{s['out']} x {s['in']}", run["solver"]["device"], s["solve_ms"],
                   s["floor_ms"], theirs.get(shape))


def tables():
    lines = ["| solve, 50 % + 4 bit | on | ms | two Cholesky and half a product, ms "
             "| published algorithm in PyTorch, ms |", "|---|---|---|---|---|"]
    for shape, machine, ms, floor, peer in solves():
        lines.append(f"| {shape} | {machine} | {number(ms)} | {number(floor)} | {number(peer)} |")

    cpus = [load("packed_cpu.json"), load("packed_avx512.json")]
    gpu = load("packed_h200.json")
    on_cpus = [packed_best(run) for run in cpus]
    on_gpu = {(p["format"], p["out"], p["in"]): p for p in gpu["products"]}
    threads = min(max(key[2] for key in best) for best in on_cpus)
    titles = ["y = W x, one x"]
    for run in cpus:
        titles += [f"{threads} threads, {run['context']['vectors']}, ms", "times float32"]
    titles += [f"{gpu['device']}, us: in turn", "times float16", "side by side", "times float16"]
    lines += ["", "| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for out, columns in PRODUCTS:
        for title, on_cpu, name in WEIGHTS:
            p = on_gpu[name, out, columns]
            cells = [f"{out} x {columns}, {title}"]
            for best in on_cpus:
                ms, dense = (best[w, out, threads]["real_time"] for w in (on_cpu, "float32"))
                cells += [number(ms), number(dense / ms, 1)]
            for us, times in zip(p["us"], p["times_float16"]):
                cells += [number(us, 1), number(times, 1)]
            lines.append("| " + " | ".join(cells) + " |")
    model = next(m for m in load("h100.json")["models"]
                 if m["shape"] == "opt-6.7b" and not m["setting"])
    lines += ["", f"A model of the shape of {model['shape']} in {model['type']} takes "
              f"{number(model['seconds'])} s to compress on the GPU, and at most "
              f"{number(model['peak_gib'])} GiB of its memory."]
    return "\n".join(lines) + "\n"


def main():
    page = ROOT / "README.md"
    text = page.read_text()
    fresh, count = TABLES.subn(lambda m: m[1] + tables() + m[2], text)
    if count != 1:
        sys.exit("README.md: expected one <!-- speed --> with an <!-- end --> behind it")
    if fresh == text:
        return
    if "--check" in sys.argv[1:]:
        sys.exit("README.md: the speeds differ from docs/benchmarks: python3 benchmarks/readme.py")
    page.write_text(fresh)


if __name__ == "__main__":
    main()
