"""Joins the results of benchmarks/gpu/run.sh into one JSON file and renders it as a page.

usage: render.py join FOLDER COMMIT   prints the JSON: machine.json, solver.json, model.json,
                                      peer_*.json and llm_compressor.json of FOLDER
       render.py page FILE            prints the page
       render.py packed FILE          prints the page of the packed products: FILE is packed.json
                                      with "date", "driver", "cuda" and "commit" beside
       render.py search FILE          the same of the search for masks: FILE is search.json
       render.py rotate FILE          the same of rotations: FILE is rotate.json
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
    other = folder / "llm_compressor.json"
    if other.exists() and other.read_text().strip():  # empty where Python has no llmcompressor
        result["llm_compressor"] = json.loads(other.read_text())
    print(json.dumps(result, indent=1))


TITLES = {"50%+4bit": "50 % + 4 bit", "4bit g128": "4 bit g128, act-order, clip search", "mixed 4.0": "50 % + budget 4.0, clip search"}
PEER_CONFIGS = {"50+4": "50%+4bit", "2:4": "2:4"}


def page(file):
    run = json.loads(pathlib.Path(file).read_text())
    solver, peer = run["solver"], run.get("peer")
    print("# GPU benchmarks\n")
    print("Rendered by `benchmarks/gpu/render.py` from the JSON beside it; do not edit. "
          "`benchmarks/gpu/run.sh` measures.\n")
    print(f"{run['date']}, {solver['device']}, driver {run['driver']}, CUDA {run['cuda']}, commit "
          f"{run['commit'][:12]}. float32, inputs resident, events, median."
          + (f" Products of halves run at {solver['halves_tflops']} TFLOP/s, copies at "
             f"{solver['copy_tb_per_s']:.2f} TB/s." if "halves_tflops" in solver
             else " No TF32.") + "\n")
    if "remark" in run:
        print(run["remark"] + "\n")
    print("floor = two potrf (cuSOLVER, the faster triangle) + half of one product "
          "(out, in) x (in, in), in float32's own arithmetic, timed in the same run.")
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
        if "limit_ms" in s:
            limit = f"{s['limit_ms']:g} ms"
        else:  # earlier runs: of the floor, but for the smallest
            limit = f"{s['limit']:.1f} {'ms' if s['in'] == 768 else 'x floor'}"
        print(f"| {TITLES.get(s['config'], s['config'])} | {s['out']} x {s['in']} "
              f"| {s['solve_ms']:.2f} | {s['floor_ms']:.2f} | {s['times_floor']:.2f} "
              f"| {limit} "
              f"| {'%.0f' % other if other else ''} "
              f"| {'%.0f' % (other / s['solve_ms']) if other else ''} "
              f"| {s['peak_of_allowed']:.2f} |")
    print("\nMemory allowed: four copies of W and three of H.")
    if "together" in solver:
        together(solver["together"])
        queue(solver["queue"])
    if "llm_compressor" in run:
        compressor(run["llm_compressor"])
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
    print("Random weights, 128 x 2048 random tokens; making the model is not timed.\n")
    settings = {"": "50 % + 4 bit", "g128": "4 bit g128", "admm": "50 %, mask search"}
    print("| shape | stored as | compressed to | seconds | at most | peak of device memory, GiB | "
          "same bytes twice |")
    print("|---|---|---|---|---|---|---|")
    for m in run["models"]:
        same = {True: "yes", False: "NO", None: ""}[m.get("same_bytes_twice")]
        print(f"| {m['shape']} | {m['type']} | {settings[m.get('setting', '')]} | {m['seconds']:.2f} | {m['limit_seconds']:g} "
              f"| {m['peak_gib']:.2f} | {same} |")
    print("\nRates in these runs, TFLOP/s. Of attention the causal half is counted, of H the half that is "
          "computed.\n")
    print("| shape | stored as | compressed to | linears | attention | H |")
    print("|---|---|---|---|---|---|")
    for m in run["models"]:
        rates = m["tflop_per_s"]
        print(f"| {m['shape']} | {m['type']} | {settings[m.get('setting', '')]} "
              f"| {rates['linear']:.0f} | {rates['attention']:.0f} | {rates['gram']:.0f} |")


def together(results):
    print("\n## Linears that share their inputs\n")
    print("50 % + 4 bit, with the factor: solved together, and one after the other with one factor.\n")
    print("| linears | out x in | together, ms | one after the other, ms | ratio |")
    print("|---|---|---|---|---|")
    for r in results:
        print(f"| {r['linears']} | {r['out']} x {r['in']} | {r['together_ms']:.2f} "
              f"| {r['apart_ms']:.2f} | {r['apart_ms'] / r['together_ms']:.2f} |")


def queue(results):
    print("\n## Launches\n")
    print("50 % + 4 bit with a factor that is given, wall time: until all launches of the solve have been "
          "queued, and until it has ended. Beside it the loop over blocks alone (selection, sweep, update): "
          "launched one by one and as one CUDA graph, between events; and what the host takes to launch it, "
          "or to capture it, to update the graph (to make a new one where that is refused) and to launch that."
          "\n")
    print("| out x in | queued after, ms | ended after, ms | loop, ms | as a graph, ms "
          "| host: launches, ms | host: graph, ms |")
    print("|---|---|---|---|---|---|---|")
    for r in results:
        print(f"| {r['out']} x {r['in']} | {r['queued_ms']:.3f} | {r['ended_ms']:.3f} "
              f"| {r['loop_ms']:.3f} | {r['graph_ms']:.3f} "
              f"| {r['launching_ms']:.3f} | {r['making_ms']:.3f} |")


def compressor(run):
    print("\n## llm-compressor\n")
    print(f"Its GPTQ (Triton) and SparseGPT functions, llm-compressor {run['version']} with PyTorch "
          f"{run['torch']}, on the same card (`benchmarks/peers/llm_compressor.py`): events, median. Loss: "
          "tr((W - Q) H (W - Q)^T) in float64, beside that of the published algorithm on the same W and "
          "H.\n")
    titles = {"gptq4": "4 bit", "gptq4 g128": "4 bit g128", "prune50": "50 %"}
    print("| solve | out x in | ms | loss | published |")
    print("|---|---|---|---|---|")
    for r in run["results"]:
        published = f"{r['published_loss']:.6g}" if "published_loss" in r else ""
        print(f"| {titles.get(r['config'], r['config'])} | {r['rows']} x {r['cols']} "
              f"| {r['median_ms']:.1f} | {r['loss']:.6g} | {published} |")


def packed(file):
    run = json.loads(pathlib.Path(file).read_text())
    print("# Packed products on the GPU\n")
    print("Rendered by `benchmarks/gpu/render.py` from the JSON beside it; do not edit. "
          "`benchmarks/gpu/run.sh` measures, with `gpu_packed_benchmark`.\n")
    print(f"{run['date']}, {run['device']}, driver {run['driver']}, CUDA {run['cuda']}, commit "
          f"{run['commit'][:12]}. y = W x with one x in float32, weights not in any cache, times "
          "between events, per product of a graph of many. Copies of a gigabyte move "
          f"{run['copy_tb_per_s']:.2f} TB/s, reads and writes counted.\n")
    print("*In turn*: every product waits for the one before, and reads x only then. *Side by side*: "
          "three chains at once, as q, k and v allow. float16 is the faster of cuBLAS and of a "
          "kernel that only streams the weights, measured in the same two ways.\n")
    print("*of copy*: bytes of the weights read per second, of the copy's rate. Bits per weight: "
          "read, and in the file.\n")
    shape = None
    for p in run["products"]:
        if (p["out"], p["in"]) != shape:
            shape = p["out"], p["in"]
            half = [p["us"][i] * p["times_float16"][i] for i in (0, 1)]
            print(f"\n## {shape[0]} x {shape[1]}\n")
            print(f"float16: {half[0]:.2f} us in turn, {half[1]:.2f} us side by side.\n")
            print("| weights | in turn, us | times float16 | of copy | side by side, us "
                  "| times float16 | of copy | bits read | in the file |")
            print("|---|---|---|---|---|---|---|---|---|")
        weights = p["out"] * p["in"]
        print(f"| {p['format']} | " +
              " | ".join(f"{p['us'][i]:.2f} | {p['times_float16'][i]:.2f} "
                         f"| {100 * p['of_copy'][i]:.0f} %" for i in (0, 1)) +
              f" | {8 * p['bytes'] / weights:.2f} | {8 * p['packed_bytes'] / weights:.2f} |")
    if "tokens" not in run:
        return
    print("\n## Few tokens of a model\n")
    print("A 4-bit linear with groups of 64 in a forward pass: its packed bits times one token after "
          "the other, or its rows unpacked on the host, copied and multiplied for all tokens. "
          "`gpu_packed_benchmark RESULT tokens` measures these alone.\n")
    print("| out x in | tokens | packed, us | unpacked, us | unpacked / packed |")
    print("|---|---|---|---|---|")
    for t in run["tokens"]:
        print(f"| {t['out']} x {t['in']} | {t['tokens']} | {t['packed_us']:.1f} "
              f"| {t['unpacked_us']:.1f} | {t['unpacked_us'] / t['packed_us']:.2f} |")


def search(file):
    run = json.loads(pathlib.Path(file).read_text())
    print("# Search for masks on the GPU\n")
    print("Rendered by `benchmarks/gpu/render.py` from the JSON beside it; do not edit. "
          "`benchmarks/gpu/run.sh` measures, with `gpu_search_benchmark`.\n")
    print(f"{run['date']}, {run['device']}, driver {run['driver']}, CUDA {run['cuda']}, commit "
          f"{run['commit'][:12]}. `--mask-search admm` on a linear of made-up numbers, float32, inputs "
          "resident, events, median. *Shared*: the same where another linear of the same inputs has "
          "paid for the inverses.\n")
    print("floor: a product (out, in) x (in, in) in TF32 for every step, two potrf (cuSOLVER) and half a "
          "product (in, in) x (in, in) for every penalty, and the float32 products of the exact solve, "
          "timed in the same run. *Loss*: of the loss of the greedy mask.\n")
    print("| mask | out x in | ms | at most | shared, ms | floor, ms | steps | penalties "
          "| eigendecomposition, ms | loss |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for s in run["searches"]:
        eigen = s["eigendecomposition_ms"]
        print(f"| {s['config']} | {s['out']} x {s['in']} | {s['solve_ms']:.0f} | {s['limit_ms']:.0f} "
              f"| {s['shared_factor_ms']:.0f} | {s['floor_ms']:.0f} | {s['steps']} | {s['penalties']} "
              f"| {'%.0f' % eigen if eigen else 'not timed'} | {s['loss_of_greedy']:.2f} |")


def rotate(file):
    run = json.loads(pathlib.Path(file).read_text())
    print("# Rotations on the GPU\n")
    print("Rendered by `benchmarks/gpu/render.py` from the JSON beside it; do not edit. "
          "`benchmarks/gpu/run.sh` measures, with `gpu_rotate_benchmark`.\n")
    print(f"{run['date']}, {run['device']}, driver {run['driver']}, CUDA {run['cuda']}, commit "
          f"{run['commit'][:12]}. `rotate_rows` of a batch of 2^28 numbers into another, events, median. "
          "*Copy*: as many bytes by `cudaMemcpyAsync` in the same run; reads and writes are counted. "
          "*Of copy*: the bandwidth of the rotation, of that of the copy; at least 0.70 is asked. *Back*: "
          "by the inverse.\n")
    print("| rows x columns | block | type | copy, GB/s | rotated, ms | of copy | back, ms | of copy |")
    print("|---|---|---|---|---|---|---|---|")
    for r in run["rotations"]:
        print(f"| {r['rows']} x {r['cols']} | {r['block']} | {r['type']} | {r['copy_gb_per_s']:.0f} "
              f"| {r['rotate_ms']:.3f} | {r['share']:.2f} | {r['back_ms']:.3f} "
              f"| {r['back_share']:.2f} |")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "join":
        join(*sys.argv[2:])
    elif len(sys.argv) == 3 and sys.argv[1] == "page":
        page(sys.argv[2])
    elif len(sys.argv) == 3 and sys.argv[1] == "packed":
        packed(sys.argv[2])
    elif len(sys.argv) == 3 and sys.argv[1] == "search":
        search(sys.argv[2])
    elif len(sys.argv) == 3 and sys.argv[1] == "rotate":
        rotate(sys.argv[2])
    else:
        sys.exit(__doc__)
