"""Renders the JSON of a benchmark run as a Markdown page.

usage: render.py FOLDER          reads FOLDER/cpu.json, FOLDER/cpu_opt.json and, where it is there,
                                 FOLDER/cpu_peer.json
       render.py FOLDER packed   reads FOLDER/packed_cpu.json
"""
import json
import pathlib
import sys

TITLES = {
    "prune_50": "prune 50 %",
    "prune_2_of_4": "2:4",
    "prune_50_bits_4": "50 % + 4 bit",
    "bits_4": "4 bit",
    "prune_50_budget_4_clip": "50 % + budget 4.0, clip search",
}
PEER_CONFIGS = {"prune50": "prune_50", "2:4": "prune_2_of_4", "50+4": "prune_50_bits_4",
                "gptq4": "bits_4"}


def load(path):
    return json.loads(path.read_text()) if path.exists() and path.stat().st_size else None


def rows_of(run):
    """(benchmark, out, in, entry) of every entry of a Google Benchmark run."""
    for entry in run["benchmarks"]:
        if entry.get("run_type", "iteration") != "iteration":
            continue
        name, out, columns = entry["name"].split("/")[:3]
        yield name, int(out.split(":")[1]), int(columns.split(":")[1]), entry


PACKED_TITLES = {
    "read_memory": "float32, only read and added up",
    "float32": "float32, Eigen's product",
    **{f"bits_{b}": f"{b} bit" for b in range(2, 9)},
    "mixed_3": "2, 3, 4, 6 and 8 bit by output, mean 3.0",
    "half_4": "50 % + 4 bit, mask of bits",
    "half_mixed_3": "50 % + mixed, mask of bits",
    "two_of_four_4": "2:4 + 4 bit",
}


def packed(folder):
    run = json.loads((folder / "packed_cpu.json").read_text())
    context, best = run["context"], {}
    for entry in run["benchmarks"]:
        if entry.get("aggregate_name") != "min":
            continue
        name, *pairs = entry["run_name"].split("/")
        arguments = dict(pair.split(":") for pair in pairs if ":" in pair)
        best[name, int(arguments["out"]), int(arguments["threads"])] = entry
    sizes = sorted({key[1] for key in best})
    threads = sorted({key[2] for key in best})
    repetitions = max(entry["repetitions"] for entry in best.values())
    print("# The packed product\n")
    print("Rendered by `benchmarks/run.sh packed` from the JSON beside it; do not edit.\n")
    print(f"{context['date'][:10]}, {context['num_cpus']} cores at {context['mhz_per_cpu']} MHz, "
          f"load {context['load_avg'][0]:.1f} at the start. y = W x with W (out, 4096), batch 1. "
          f"Smallest of {repetitions} single products each, interleaved at random: other matrices "
          "have passed through the caches since the last. [How it works](../packed_product.md).")
    for out in sizes:
        print(f"\n## {out} x 4096\n")
        titles, lines = ["weights", "bits / weight"], ["---", "---"]
        for count in threads:
            titles += [f"{count} thread{'s' if count > 1 else ''}, ms", "times float32", "GB/s"]
            lines += ["---"] * 3
        print("| " + " | ".join(titles) + " |\n|" + "|".join(lines) + "|")
        for name, title in PACKED_TITLES.items():
            if (name, out, threads[0]) not in best:
                continue
            cells = [title, f"{best[name, out, threads[0]]['bits_per_weight']:.2f}"]
            for count in threads:
                entry, dense = best[name, out, count], best["float32", out, count]
                cells += [f"{entry['real_time']:.2f}",
                          f"{dense['real_time'] / entry['real_time']:.2f}",
                          f"{entry['bytes'] / entry['real_time'] / 1e6:.1f}"]
            print("| " + " | ".join(cells) + " |")


def main(folder):
    folder = pathlib.Path(folder)
    run, peer = load(folder / "cpu.json"), load(folder / "cpu_peer.json")
    context = run["context"]
    print("# CPU benchmarks\n")
    print("Rendered by `benchmarks/run.sh` from the JSON beside it; do not edit.\n")
    print(f"{context['date'][:10]}, {context['num_cpus']} cores at {context['mhz_per_cpu']} MHz, "
          "float32, Eigen backend.\n")
    peers = {}
    if peer:
        for result in peer["results"]:
            key = (PEER_CONFIGS[result["config"]], result["rows"], result["cols"])
            peers[key] = result["median_ms"]
        print(f"Peer: the published algorithm in PyTorch {peer['torch']} "
              f"(`benchmarks/peers`), {peer['threads']} threads.\n")
    print("floor = two Eigen LLTs of in x in + half of one Eigen product (out, in) x (in, in), "
          "timed between the solves.\n")
    print("| solve | out x in | ms | floor, ms | times floor | peer, ms | peer / ours |")
    print("|---|---|---|---|---|---|---|")
    for name, out, columns, entry in rows_of(run):
        if name not in TITLES:
            continue
        other = peers.get((name, out, columns))
        print(f"| {TITLES[name]} | {out} x {columns} | {entry['real_time']:.1f} "
              f"| {entry['floor_ms']:.1f} | {entry['times_floor']:.2f} "
              f"| {'%.0f' % other if other else ''} "
              f"| {'%.1f' % (other / entry['real_time']) if other else ''} |")
    print("\n| stage | in | ms | beside it, ms | ratio |")
    print("|---|---|---|---|---|")
    seen = set()
    for name, _, columns, entry in rows_of(run):
        if name not in ("accumulate", "factor") or (name, columns) in seen:
            continue
        seen.add((name, columns))
        if name == "accumulate":
            print(f"| H of {2 * columns} tokens | {columns} | {entry['real_time']:.1f} "
                  f"| {entry['product_ms']:.1f} (Eigen's X^T X) | {entry['times_product']:.2f} |")
        else:
            print(f"| factor U | {columns} | {entry['real_time']:.1f} "
                  f"| {entry['llt_ms']:.1f} (one Eigen LLT) | {entry['times_llt']:.2f} |")
    entry = load(folder / "cpu_opt.json")["benchmarks"][0]
    print(f"\nA whole model of opt-small's shape (6 layers, hidden 512, ffn 2048), 128 x 512 "
          f"calibration tokens, 50 % + 4 bit: {entry['real_time']:.1f} s, "
          f"{entry['times_gemm']:.2f} times its {entry['gflop']:.0f} GFLOP of products at the rate "
          f"of Eigen's own product, peak memory {entry['peak_mib']:.0f} MiB.")


if __name__ == "__main__":
    if sys.argv[2:] == ["packed"]:
        packed(pathlib.Path(sys.argv[1]))
    else:
        main(sys.argv[1])
