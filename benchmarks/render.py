"""Joins the results of benchmarks/run.sh and renders them as a Markdown page.

usage: render.py join RESULT...   prints one JSON of runs of stage_*_benchmark: medians over the
                                  repetitions, a run per backend
       render.py page FOLDER      prints the page: FOLDER/cpu.json and, where they are there,
                                  cpu_stages.json, cpu_opt.json, cpu_peer.json, cpu_peer_stages.json
       render.py plot FOLDER      prints a gnuplot script that writes FOLDER/cpu_stages.svg
       render.py packed RESULT    prints the page of a result of packed_benchmark
       render.py groups FOLDER    prints the page of packed_groups.json and packed_evaluate.json there
"""
import json
import math
import pathlib
import statistics
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

# What a stage is, what stands beside it, and the exponent of `in` that its operations have.
STAGES = {
    "accumulate": ("H and moments of 2048 tokens", "half of Eigen's X^T X", "2"),
    "factor": ("U from H", "two Eigen LLTs", "3"),
    "score": ("five signals of the output channels", "reading W and half a product", "3"),
    "allocate": ("`Budget`: widths from scores", "reading W", "1 (log)"),
    "fit": ("grids, min-max", "reading W", "2"),
    "fit_clip": ("grids, clip search over 80 ranges", "reading W", "2"),
    "select": ("masks of 50 %, blocks of 128", "reading W", "2"),
    "sweep": ("column loop and trailing updates", "half a product", "3"),
    "solve": ("all from H on, 50 % + 4 bit", "two LLTs and half a product", "3"),
}


def load(path):
    return json.loads(path.read_text()) if path.exists() and path.stat().st_size else None


# --- join --------------------------------------------------------------------

def join(paths):
    runs = []
    for path in paths:
        run = load(pathlib.Path(path))
        repetitions = {}
        for entry in run["benchmarks"]:
            if entry.get("run_type", "iteration") != "iteration":
                continue
            if entry.get("error_occurred"):
                sys.exit(f"{path}: {entry['name']}: {entry['error_message']}")
            stage, *arguments = entry["run_name"].split("/")
            at = dict(a.split(":") for a in arguments if a.split(":")[0] in ("out", "in", "on"))
            key = (stage, int(at.get("out", 0)), int(at["in"]), int(at["on"]))
            repetitions.setdefault(key, []).append(entry)
        results = []
        order = list(STAGES)
        for key in sorted(repetitions, key=lambda k: (order.index(k[0]), k[2], k[1], k[3])):
            (stage, out, columns, threads), entries = key, repetitions[key]
            row = {"stage": stage, "out": out, "in": columns, "threads": threads}
            for name, counter in (("ms", "real_time"), ("floor_ms", "floor_ms"),
                                  ("times_floor", "times_floor")):
                row[name] = float(f"{statistics.median(e[counter] for e in entries):.5g}")
            row["repetitions"] = len(entries)
            results.append(row)
        context = run["context"]
        runs.append({"backend": context["backend"], "date": context["date"],
                     "cores": context["num_cpus"], "mhz": context["mhz_per_cpu"],
                     "results": results})
    text = json.dumps(runs, indent=1)  # a result per line
    for run in runs:
        for row in run["results"]:
            text = text.replace(json.dumps(row, indent=1).replace("\n", "\n   "), json.dumps(row))
    print(text)


# --- stages ------------------------------------------------------------------

def shape_text(out, columns):
    return f"{out} x {columns}" if out else f"in = {columns}"


def exponent(points):
    """Slope of log y over log x by least squares."""
    x, y = ([math.log(p[i]) for p in points] for i in (0, 1))
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    return (sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) /
            sum((a - mean_x) ** 2 for a in x))


class Stages:
    """The runs of cpu_stages.json, by backend, stage, shape and threads."""

    def __init__(self, runs):
        self.backends = [run["backend"] for run in runs]
        self.all = {(run["backend"], r["stage"], r["out"], r["in"], r["threads"]): r
                    for run in runs for r in run["results"]}
        self.threads = max((key[4] for key in self.all), default=1)
        self.shapes = {}  # by stage, as in the file
        for run in runs:
            for r in run["results"]:
                shapes = self.shapes.setdefault(r["stage"], [])
                if (r["out"], r["in"]) not in shapes:
                    shapes.append((r["out"], r["in"]))

    def get(self, backend, stage, shape, threads=None):
        return self.all.get((backend, stage, *shape, threads or self.threads))

    def squares(self, backend, stage, value):
        """(in, value) of the square shapes, or of every `in` where there is no `out`."""
        points = []
        for out, columns in self.shapes.get(stage, []):
            entry = self.get(backend, stage, (out, columns))
            if entry and out in (0, columns):
                points.append((columns, entry[value]))
        return sorted(points)


def number(value, digits=2):
    """Three significant digits or so, and no exponent."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else (
        f"{value:.{digits}f}" if value >= 0.1 else f"{value:.4f}")


def stage_peers(folder, peer):
    """Milliseconds of the peer by (stage, out, in); out is 0 where only the inputs matter."""
    times = {}
    for r in (load(folder / "cpu_peer_stages.json") or {}).get("results", []):
        out = 0 if r["stage"] in ("accumulate", "factor") else r["rows"]
        times[r["stage"], out, r["cols"]] = r["median_ms"]
    for r in peer.get("results", []):
        if r["config"] == "50+4":
            times["solve", r["rows"], r["cols"]] = r["median_ms"]
    return times


def print_stages(folder, stages, peer):
    first, threads = stages.backends[0], stages.threads
    peers = stage_peers(folder, peer)
    print("\n## Stages\n")
    print("Every stage alone, on inputs that are already there. *beside it*: by the machine's own "
          "kernels on as many threads, timed between the iterations. Medians over repetitions in "
          "random order. W is as warm in the caches for what is read beside it as for the stage. "
          "The published algorithm selects and sweeps in one loop, so the peer has one time for "
          "both; score and allocate are not in it.\n")
    print("| stage | does | beside it |")
    print("|---|---|---|")
    for stage, (what, beside, _) in STAGES.items():
        if stage in stages.shapes:
            print(f"| {stage} | {what} | {beside} |")
    print_rates(stages)

    one = threads > 1
    print(f"\n### {first}, {threads} thread{'s' if one else ''}\n")
    print("| stage | out x in | ms | beside it, ms | ratio | "
          + ("1 thread, ms | ratio | speed-up | " if one else "") + "peer, ms | peer / ours |")
    print("|---|---|---|---|---|" + ("---|---|---|" if one else "") + "---|---|")
    for stage in STAGES:
        for shape in stages.shapes.get(stage, []):
            entry = stages.get(first, stage, shape)
            if not entry:
                continue
            cells = [stage, shape_text(*shape), number(entry["ms"]), number(entry["floor_ms"]),
                     number(entry["times_floor"])]
            if one:
                alone = stages.get(first, stage, shape, 1)
                cells += ([number(alone["ms"]), number(alone["times_floor"]),
                           number(alone["ms"] / entry["ms"])] if alone else [""] * 3)
            other = peers.get((stage, *shape))
            cells += [number(other), number(other / entry["ms"] if other else None)]
            print("| " + " | ".join(cells) + " |")
    for shape in stages.shapes.get("sweep", []):
        other = peers.get(("loop", *shape))
        both = [stages.get(first, stage, shape) for stage in ("select", "sweep")]
        if other and all(both):
            ms = sum(entry["ms"] for entry in both)
            cells = ["select + sweep", shape_text(*shape), number(ms), "", ""]
            cells += ([""] * 3 if one else []) + [number(other), number(other / ms)]
            print("| " + " | ".join(cells) + " |")

    if len(stages.backends) > 1:
        print(f"\n### Backends, {threads} thread{'s' if one else ''}\n")
        print("Milliseconds; in brackets the ratio to what stands beside it.\n")
        print("| stage | out x in | " + " | ".join(stages.backends) + " |")
        print("|---|---|" + "---|" * len(stages.backends))
        for stage in STAGES:
            for shape in stages.shapes.get(stage, []):
                entries = [stages.get(b, stage, shape) for b in stages.backends]
                if sum(e is not None for e in entries) < 2:
                    continue
                cells = [f"{number(e['ms'])} ({number(e['times_floor'])})" if e else ""
                         for e in entries]
                print(f"| {stage} | {shape_text(*shape)} | " + " | ".join(cells) + " |")

    sizes = {stage: [x for x, _ in stages.squares(first, stage, "ms")] for stage in STAGES}
    if max(map(len, sizes.values())) >= 3:
        print_exponents(stages, sizes)
    if (folder / "cpu_stages.svg").exists():
        print("\n![Time and ratio over sizes](cpu_stages.svg)")
    else:
        print("\nNo picture: gnuplot is not installed where this was rendered.")


def print_exponents(stages, sizes):
    first, threads = stages.backends[0], stages.threads
    print(f"\n### Over sizes, {threads} thread{'s' if threads > 1 else ''}\n")
    print("Time grows as in^x: x by least squares over the square shapes (all `in` where there is "
          "no `out`), of the stage and of what stands beside it. *operations*: what x would be "
          "if every operation took the same time.\n")
    print("| stage | sizes | operations | " + " | ".join(stages.backends) + " | beside it |")
    print("|---|---|---|" + "---|" * (len(stages.backends) + 1))
    for stage in STAGES:
        if len(sizes[stage]) < 3:
            continue
        cells = []
        for backend in stages.backends:
            own = stages.squares(backend, stage, "ms")
            fewer = f" (to {own[-1][0]})" if own and own[-1][0] < sizes[stage][-1] else ""
            cells.append(f"{exponent(own):.2f}{fewer}" if len(own) >= 3 else "")
        cells.append(f"{exponent(stages.squares(first, stage, 'floor_ms')):.2f}")
        print(f"| {stage} | {sizes[stage][0]} to {sizes[stage][-1]} | {STAGES[stage][2]} | "
              + " | ".join(cells) + " |")


def print_rates(stages):
    """What the machine's kernels reached in this run, at the largest shapes."""
    first, lines = stages.backends[0], []
    for stage, unit, amount in (
            ("fit", "GB/s", lambda out, columns: 4e-6 * out * columns),
            ("sweep", "GFLOP/s", lambda out, columns: 1e-6 * out * columns * columns)):
        shapes = [s for s in stages.shapes.get(stage, []) if stages.get(first, stage, s)]
        if not shapes:
            continue
        shape = max(shapes, key=lambda s: s[0] * s[1])
        entry = stages.get(first, stage, shape)
        lines.append(f"{'reading' if stage == 'fit' else 'half a product of'} "
                     f"{shape_text(*shape)}: {amount(*shape) / entry['floor_ms']:.0f} {unit}")
    if lines:
        print(f"\nThe machine's kernels, {stages.threads} "
              f"thread{'s' if stages.threads > 1 else ''}: " + ", ".join(lines) + ".")


def plot(folder):
    runs = load(folder / "cpu_stages.json")
    stages = Stages(runs)
    first = stages.backends[0]
    curves = {}

    def colour(i):  # gnuplot has eight
        return f"lc {i + 1}" if i < 8 else "lc rgb '#888888' lw 2"

    for stage in STAGES:
        if len(stages.squares(first, stage, "ms")) > 1:
            curves[stage] = [stages.squares(first, stage, v) for v in ("ms", "times_floor")]
    print("set terminal svg size 1000,420 background '#ffffff'")
    print(f"set output '{folder / 'cpu_stages.svg'}'")
    for i, stage in enumerate(curves):
        print(f"${stage} << EOD")
        for (columns, ms), (_, ratio) in zip(*curves[stage]):
            print(columns, ms, ratio)
        print("EOD")
    print("set multiplot layout 1,2")
    print("set logscale xy\nset grid\nset xlabel 'in'\nunset key")
    print("set xtics (768, 1024, 2048, 4096)\nset xrange [700:4500]")
    labels = {2: f"ms, {first}, {stages.threads} threads", 3: "times what stands beside it"}
    for column, label in labels.items():
        print(f"set ylabel '{label}'")
        if column == 3:
            print("set key outside right")  # one for both
        print("plot " + ", ".join(
            f"${stage} using 1:{column} with linespoints pt 7 ps 0.5 {colour(i)} "
            f"title '{stage}' noenhanced" for i, stage in enumerate(curves)))
    print("unset multiplot")


# --- page --------------------------------------------------------------------

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
    **{f"bits_4_group_{g}": f"4 bit, groups of {g}" for g in (128, 64, 32)},
    "mixed_3": "2, 3, 4, 6 and 8 bit by output, mean 3.0",
    "half_4": "50 % + 4 bit, mask of bits",
    "half_mixed_3": "50 % + mixed, mask of bits",
    "two_of_four_4": "2:4 + 4 bit",
    **{f"tokens_{n}{mask}{way}": f"{n} token{'s' if n > 1 else ''}, {what}, {how}"
       for n in (1, 4, 16, 32)
       for mask, what in (("", "4 bit, groups of 128"), ("_half", "50 % + 4 bit"))
       for way, how in (("", "one after the other"), ("_unpacked", "rows unpacked"))},
}


def packed_best(run):
    """The fastest of the repetitions by (weights, out, threads)."""
    best = {}
    for entry in run["benchmarks"]:
        if entry.get("aggregate_name") != "min":
            continue
        name, *pairs = entry["run_name"].split("/")
        arguments = dict(pair.split(":") for pair in pairs if ":" in pair)
        best[name, int(arguments["out"]), int(arguments["threads"])] = entry
    return best


def packed(result):
    run = json.loads(result.read_text())
    context, best = run["context"], packed_best(run)
    sizes = sorted({key[1] for key in best})
    threads = sorted({key[2] for key in best})
    repetitions = max(entry["repetitions"] for entry in best.values())
    print(f"# The packed product with {context['vectors']}\n")
    print("Rendered by `benchmarks/run.sh packed` from the JSON beside it; do not edit.\n")
    print(f"{context['date'][:10]}, {context['num_cpus']} cores at {context['mhz_per_cpu']} MHz, "
          f"load {context['load_avg'][0]:.1f} at the start. y = W x with W (out, 4096), batch 1. "
          f"Smallest of {repetitions} single products each, interleaved at random: other matrices "
          f"have passed through the caches since the last, of which the largest has "
          f"{max(c['size'] for c in context['caches']) >> 20} MiB. "
          "[How it works](../packed_product.md).")
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


def groups(folder):
    """Grids per group beside grids per row, and the evaluation of packed folders."""
    run = load(folder / "packed_groups.json")
    context, best = run["context"], packed_best(run)
    repetitions = max(entry["repetitions"] for entry in best.values())
    print("# Packed weights with groups, and evaluated\n")
    print("Rendered by `benchmarks/run.sh groups` from the JSON beside it; do not edit.\n")
    print("## Groups\n")
    print(f"{context['date'][:10]}, {context['num_cpus']} cores at {context['mhz_per_cpu']} MHz, "
          f"{context['vectors']}, load {context['load_avg'][0]:.1f} at the start. y = W x with "
          f"W (out, 4096), 4 bits, smallest of {repetitions} single products each, interleaved at "
          "random. *Times a grid per row*: time per byte of the packed weights, scales and zero "
          "points counted, over that with a grid per row. Processor time is of all threads: other "
          "load stretches it less than time by the clock.\n")
    print("| out | threads | weights | ms | times a grid per row | processor, ms "
          "| times a grid per row |")
    print("|---|---|---|---|---|---|---|")
    for out in sorted({key[1] for key in best}):
        for threads in sorted({key[2] for key in best}):
            row = best["bits_4", out, threads]
            for name in ["bits_4"] + [f"bits_4_group_{g}" for g in (128, 64, 32)]:
                entry = best[name, out, threads]
                cells = []
                for kind in ("real_time", "cpu_time"):
                    ratio = entry[kind] / entry["bytes"] * row["bytes"] / row[kind]
                    cells += [f"{entry[kind]:.2f}", f"{ratio:.2f}"]
                title = "4 bit, a grid per row" if name == "bits_4" else PACKED_TITLES[name]
                print(f"| {out} | {threads} | {title} | " + " | ".join(cells) + " |")
    run = load(folder / "packed_evaluate.json")
    print("\n## Evaluation\n")
    print(f"{run['date']}, load {run['load']:.1f} at the start. `pare evaluate` of a packed folder "
          f"beside the dense one, {run['windows']} windows of {run['seqlen']} tokens, two threads, "
          f"loading included, smallest of {run['repeats']} runs in turn.\n")
    print("| model | weights | s | times dense | processor, s | times dense |")
    print("|---|---|---|---|---|---|")
    for model in run["models"]:
        dense = model["times"][0]
        for entry in model["times"]:
            print(f"| {model['name']} | {entry['weights']} | " +
                  " | ".join(f"{entry[kind]:.2f} | {entry[kind] / dense[kind]:.2f}"
                             for kind in ("wall_s", "processor_s")) + " |")


def print_goals(run, peers):
    """The two goals of the CPU solve."""
    for name, out, columns, entry in rows_of(run):
        if (name, out, columns) != ("prune_50_bits_4", 2048, 2048):
            continue
        verdict = "met" if entry["times_floor"] <= 2 else "not met"
        print(f"\nGoals for 50 % + 4 bit at 2048 x 2048: at most 2 times the floor: "
              f"{entry['times_floor']:.2f}, {verdict}; at least 12 times as fast as the peer: ",
              end="")
        other = peers.get((name, out, columns))
        if other is None:
            print("no peer in this run.")
        else:
            ratio = other / entry["real_time"]
            print(f"{ratio:.1f}, {'met' if ratio >= 12 else 'not met'}.")


# Of opt_benchmark.cpp.
SHAPES = {
    "opt_small": "opt-small's shape (6 layers, hidden 512, ffn 2048), 128 x 512 calibration tokens",
    "smollm2": "SmolLM2-135M's shape (30 layers, hidden 576, ffn 1536, three key-value heads), "
               "16 x 512 calibration tokens",
}


def page(folder):
    run = load(folder / "cpu.json")
    peer = load(folder / "cpu_peer.json") or {"missing": "it was not asked for"}
    stages = load(folder / "cpu_stages.json")
    context = run["context"]
    print("# CPU benchmarks\n")
    print("Rendered by `benchmarks/run.sh` from the JSON beside it; do not edit.\n")
    print(f"{context['date'][:10]}, {context['num_cpus']} cores at {context['mhz_per_cpu']} MHz, "
          "float32.\n")
    peers = {}
    if "missing" in peer:
        print(f"Peer: none, {peer['missing']}.\n")
    else:
        for result in peer["results"]:
            key = (PEER_CONFIGS[result["config"]], result["rows"], result["cols"])
            peers[key] = result["median_ms"]
        print(f"Peer: the published algorithm in PyTorch {peer['torch']} "
              f"(`benchmarks/peers`), {peer['threads']} threads, same run.\n")
    print("## Solves\n")
    print("Eigen backend. floor = two Eigen LLTs of in x in + half of one Eigen product "
          "(out, in) x (in, in), timed between the solves.\n")
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
    print_goals(run, peers)
    search = load(folder / "cpu_search.json")
    if search:
        print("\n## Searches for masks\n")
        print(f"{search['context']['date'][:10]}. `--mask-search admm` beside the solve with the greedy "
              "mask, timed in turn. *Loss*: of the greedy mask's.\n")
        print("| mask | out x in | s | times the greedy solve | loss |")
        print("|---|---|---|---|---|")
        for name, out, columns, entry in rows_of(search):
            mask = TITLES[name.replace("search", "prune")]
            print(f"| {mask.removeprefix('prune ')} | {out} x {columns} "
                  f"| {entry['real_time'] / 1e3:.1f} | {entry['times_greedy']:.0f} "
                  f"| {entry['loss_of_greedy']:.2f} |")
    if stages:
        print_stages(folder, Stages(stages), peer)
    model = load(folder / "cpu_opt.json")
    if model:
        print("\n## A whole model\n")
        for entry in model["benchmarks"]:
            shape = next(text for name, text in SHAPES.items() if name in entry["name"])
            print(f"- {shape}, 50 % + 4 bit: {entry['real_time']:.1f} s, "
                  f"{entry['times_gemm']:.2f} times its {entry['gflop']:.0f} GFLOP of products at "
                  f"the rate of Eigen's own product, peak memory {entry['peak_mib']:.0f} MiB.")


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] == "join":
        join(sys.argv[2:])
    elif len(sys.argv) == 3 and sys.argv[1] in ("page", "plot", "packed", "groups"):
        {"page": page, "plot": plot, "packed": packed, "groups": groups}[sys.argv[1]](pathlib.Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
