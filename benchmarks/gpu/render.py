"""Joins the results of benchmarks/gpu/run.sh into one JSON file and renders it as a page.

usage: render.py join FOLDER COMMIT   prints the JSON: machine.json, solver.json, model.json and
                                      peer_*.json of FOLDER
       render.py page FILE            prints the page
"""
import json
import pathlib
import sys


def join(folder, commit):
    folder = pathlib.Path(folder)
    result = {"commit": commit, **json.loads((folder / "machine.json").read_text())}
    result["solver"] = json.loads((folder / "solver.json").read_text())
    result["models"] = json.loads((folder / "model.json").read_text())
    peers = [json.loads(p.read_text()) for p in sorted(folder.glob("peer_*.json"))]
    if peers:
        result["peer"] = {key: peers[0][key] for key in ("torch", "device_name")}
        result["peer"]["results"] = [r for p in peers for r in p["results"]]
    print(json.dumps(result, indent=1))


TITLES = {"50%+4bit": "50 % + 4 bit", "mixed 4.0": "50 % + budget 4.0, clip search"}
PEER_CONFIGS = {"50+4": "50%+4bit", "2:4": "2:4"}


def page(file):
    run = json.loads(pathlib.Path(file).read_text())
    solver, peer = run["solver"], run.get("peer")
    print("# GPU benchmarks\n")
    print("Rendered by `benchmarks/gpu/render.py` from the JSON beside it; do not edit. "
          "`benchmarks/gpu/run.sh` measures.\n")
    print(f"{run['date']}, {solver['device']}, driver {run['driver']}, CUDA {run['cuda']}, commit "
          f"{run['commit'][:12]}. float32 without TF32, inputs resident, events, median.\n")
    print("floor = two potrf (cuSOLVER, the faster triangle) + half of one product "
          "(out, in) x (in, in), timed in the same run.")
    peers = {}
    if peer:
        print(f"Peer: the published algorithm in PyTorch {peer['torch']} (`benchmarks/peers`) on the "
              "same card.")
        for r in peer["results"]:
            peers[PEER_CONFIGS[r["config"]], r["rows"], r["cols"]] = r["median_ms"]
    print("\n| solve | out x in | ms | floor, ms | times floor | at most | peer, ms | peer / ours "
          "| share of the memory allowed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for s in solver["solves"]:
        other = peers.get((s["config"], s["out"], s["in"]))
        absolute = s["in"] == 768  # its bar is a time
        print(f"| {TITLES.get(s['config'], s['config'])} | {s['out']} x {s['in']} "
              f"| {s['solve_ms']:.2f} | {s['floor_ms']:.2f} | {s['times_floor']:.2f} "
              f"| {s['limit']:.1f} {'ms' if absolute else 'x floor'} "
              f"| {'%.0f' % other if other else ''} "
              f"| {'%.0f' % (other / s['solve_ms']) if other else ''} "
              f"| {s['peak_of_allowed']:.2f} |")
    print("\nMemory allowed: four copies of W and three of H.")
    print("\n## Where the time goes, ms\n")
    stages = sorted({name for s in solver["solves"] for name in s["stages_ms"]})
    print("| solve | out x in | " + " | ".join(stages) + " |")
    print("|---|---|" + "---|" * len(stages))
    for s in solver["solves"]:
        cells = [f"{s['stages_ms'][n]:.2f}" if n in s["stages_ms"] else "" for n in stages]
        print(f"| {TITLES.get(s['config'], s['config'])} | {s['out']} x {s['in']} | "
              + " | ".join(cells) + " |")
    print("\n## Hessian\n")
    print("| tokens | in | ms | TFLOP/s of the half that is computed, by the product's |")
    print("|---|---|---|---|")
    for g in solver["gram"]:
        print(f"| {g['tokens']} | {g['in']} | {g['gram_ms']:.2f} | {g['of_product_rate']:.2f} |")
    print("\n## Whole models\n")
    print("Random weights, 128 x 2048 random tokens, 50 % + 4 bit; making the model is not timed.\n")
    print("| shape | stored as | seconds | at most | peak of device memory, GiB | "
          "same bytes twice |")
    print("|---|---|---|---|---|---|")
    for m in run["models"]:
        same = {True: "yes", False: "NO", None: ""}[m.get("same_bytes_twice")]
        print(f"| {m['shape']} | {m['type']} | {m['seconds']:.2f} | {m['limit_seconds']:.0f} "
              f"| {m['peak_gib']:.2f} | {same} |")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "join":
        join(*sys.argv[2:])
    elif len(sys.argv) == 3 and sys.argv[1] == "page":
        page(sys.argv[2])
    else:
        sys.exit(__doc__)
