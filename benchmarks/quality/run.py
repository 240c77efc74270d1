#!/usr/bin/env python3
"""Measures what every choice of pare gains: perplexities of many configurations, as JSON.

python3 benchmarks/quality/run.py --out docs/quality/quality.json \
    --model opt-tiny=DIR --calibration NAME=FILE --eval NAME=FILE [--eval ...] \
    [--tool build/bin/pare] [--backend cuda] [--jobs 4] [--seconds 600]
    [--set published --more "--seqlen 1024 --max-windows 60"]

Every --model is compressed with every --calibration by every configuration below. Results are added
to those in the file; configurations it holds already are not run again. render.py shows them.
"""
import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import subprocess
import tempfile
import time

GRID = ["--act-order", "--clip-search"]
G128 = ["--group-size", "128"]
ADMM = ["--mask-search", "admm"]
HALF = ["--sparsity", "0.5"]
RUNS = ["--prunen", "2", "--prunem", "4"]
TRICKS = GRID + ["--true-sequential", "--asymmetric", "0.5"]
MODEL = ["--scope", "model", "--importance", "kl"]


def best(asymmetric):
    """The preset before it had groups, searches for masks, and rotations."""
    return [*GRID, "--true-sequential", "--asymmetric", asymmetric, "--scope", "model"]


BEST = best("0.5")


def codes(bits, target, *options):
    return ["--wbits", str(bits), "--target-avg-bits", str(target), *options]


def stored(bits, target, *options):
    return ["--wbits", str(bits), "--target-bits-per-weight", str(target), *options]


# What the tables show, in the order in which it is measured.
CONFIGURATIONS = {
    # the bars
    "3.0 uniform, grid": ["--wbits", "3", *GRID],
    "3.0 best": codes(3, 3.0, *BEST),
    "2.5 best": codes(3, 2.5, *BEST),
    "4.0 uniform, grid": ["--wbits", "4", *GRID],
    "4.0 best": codes(4, 4.0, *BEST),
    "50% 3.0 uniform, grid": ["--sparsity", "0.5", "--wbits", "3", *GRID],
    "50% 3.0 best": codes(3, 3.0, "--sparsity", "0.5", *BEST),
    "2 uniform, grid": ["--wbits", "2", *GRID],
    "2 uniform, tricks": ["--wbits", "2", *TRICKS],
    "stored 2.0 best, auto": ["--wbits", "3", "--target-bits-per-weight", "2.0", "--sparsity",
                              "auto", *BEST],
    # tricks on uniform widths
    "3.0 uniform": ["--wbits", "3"],
    "3.0 uniform, act-order": ["--wbits", "3", "--act-order"],
    "3.0 uniform, clip search": ["--wbits", "3", "--clip-search"],
    "3.0 uniform, grid, true-sequential": ["--wbits", "3", *GRID, "--true-sequential"],
    "3.0 uniform, grid, asymmetric": ["--wbits", "3", *GRID, "--asymmetric", "0.5"],
    "3.0 uniform, tricks": ["--wbits", "3", *TRICKS],
    # who gets the bits
    "3.0 quantile, five": codes(3, 3.0, "--bit-method", "quantile", *GRID),
    "3.0 layer, five": codes(3, 3.0, *GRID),
    "3.0 layer, distortion": codes(3, 3.0, "--importance", "distortion", *GRID),
    "3.0 model, distortion": codes(3, 3.0, "--scope", "model", "--importance", "distortion",
                                   *GRID),
    "3.0 model, kl": codes(3, 3.0, *MODEL, *GRID),
    "3.0 model, kl at 2": codes(2, 3.0, *MODEL, *GRID),
    "3.0 model, kl at 4": codes(4, 3.0, *MODEL, *GRID),
    # tricks on the plan
    "3.0 model, kl, true-sequential": codes(3, 3.0, *MODEL, *GRID, "--true-sequential"),
    "3.0 model, kl, asymmetric": codes(3, 3.0, *MODEL, *GRID, "--asymmetric", "0.5"),
    "3.0 best, asymmetric 0.25": codes(3, 3.0, *best("0.25")),
    "3.0 best, asymmetric 1": codes(3, 3.0, *best("1")),
    "3.0 best, input channels": codes(3, 3.0, *BEST, "--axis", "input"),
    "2.5 model, kl": codes(3, 2.5, *MODEL, *GRID),
    "50% 3.0 model, kl": codes(3, 3.0, "--sparsity", "0.5", *MODEL, *GRID),
    "4.0 model, kl": codes(4, 4.0, *MODEL, *GRID),
    "stored 2.0 best, dense at 3": ["--wbits", "3", "--target-bits-per-weight", "3.0", *BEST],
}

# What a search for masks gains (--set masks), besides what is above.
MASKS = {
    "50%": HALF, "50% refined": [*HALF, "--refine"], "50% admm": [*HALF, *ADMM],
    "70%": ["--sparsity", "0.7"], "70% refined": ["--sparsity", "0.7", "--refine"],
    "70% admm": ["--sparsity", "0.7", *ADMM],
    "2:4": RUNS, "2:4 refined": [*RUNS, "--refine"], "2:4 admm": [*RUNS, *ADMM],
    "50% 4 uniform, grid": [*HALF, "--wbits", "4", *GRID],
    "50% 4 uniform, grid, admm": [*HALF, "--wbits", "4", *GRID, *ADMM],
    "2:4 4 uniform, grid": [*RUNS, "--wbits", "4", *GRID],
    "2:4 4 uniform, grid, admm": [*RUNS, "--wbits", "4", *GRID, *ADMM],
    "50% 3.0 best, admm": codes(3, 3.0, *HALF, *BEST, *ADMM),
    "stored 2.0 best, auto, admm": [*CONFIGURATIONS["stored 2.0 best, auto"], *ADMM],
}

# What is measured of a published model (--set published), as its weights have outliers.
PUBLISHED = {
    "4": ["--wbits", "4"],
    "4 g128": ["--wbits", "4", *G128],
    "3": ["--wbits", "3"],
    "3 grid": ["--wbits", "3", *GRID],
    "3 g128": ["--wbits", "3", *G128],
    "3 g128 compensated": ["--wbits", "3", *G128, "--group-fit", "compensated"],
    "3 g128 grid": ["--wbits", "3", *G128, *GRID],
    "3 g64 grid": ["--wbits", "3", "--group-size", "64", *GRID],
    "50%": HALF, "50% admm": [*HALF, *ADMM],
    "2:4": RUNS, "2:4 admm": [*RUNS, *ADMM],
    "70%": ["--sparsity", "0.7"], "70% admm": ["--sparsity", "0.7", *ADMM],
    "50% 4 g128": [*HALF, "--wbits", "4", *G128],
    "50% 4 g128 admm": [*HALF, "--wbits", "4", *G128, "--clip-search", *ADMM],
    "50% 4 g128 grid admm": [*HALF, "--wbits", "4", *G128, *GRID, *ADMM],
    "2:4 4 g128": [*RUNS, "--wbits", "4", *G128],
    "2:4 4 g128 admm": [*RUNS, "--wbits", "4", *G128, *ADMM],
}

# What rotations gain on a published model (--set rotations).
FOLDED, FULL = ["--rotate", "folded"], ["--rotate", "full"]
ROTATIONS = {
    "4 grid folded": ["--wbits", "4", *GRID, *FOLDED],
    "4 grid full": ["--wbits", "4", *GRID, *FULL],
    "4 g128 grid full": ["--wbits", "4", *G128, *GRID, *FULL],
    "4 g64 grid full": ["--wbits", "4", "--group-size", "64", *GRID, *FULL],
    "4 g128 best full": ["--wbits", "4", *G128, *TRICKS, *FULL],
    "4 g64 symmetric folded": ["--wbits", "4", "--symmetric", "--group-size", "64", *GRID, *FOLDED],
    "3 grid full": ["--wbits", "3", *GRID, *FULL],
    "3 g128 grid full": ["--wbits", "3", *G128, *GRID, *FULL],
    "3 g128 best full": ["--wbits", "3", *G128, *TRICKS, *FULL],
}

# What the presets give (--set presets), per kind of target.
PRESET = ["--preset", "best"]
AUTO = ["--sparsity", "auto"]
PRESETS = {
    "4 fast": ["--wbits", "4", "--preset", "fast"],
    "4 best": ["--wbits", "4", *PRESET],
    "4 best, not rotated": ["--wbits", "4", *PRESET, "--rotate", "none"],
    "3 fast": ["--wbits", "3", "--preset", "fast"],
    "3 best": ["--wbits", "3", *PRESET],
    "3 best, not rotated": ["--wbits", "3", *PRESET, "--rotate", "none"],
    "codes 3.0 best": codes(3, 3.0, *PRESET),
    "codes 3.0 best, not rotated": codes(3, 3.0, *PRESET, "--rotate", "none"),
    "codes 3.0 best, a grid per row": codes(3, 3.0, *PRESET, "--group-size", "0"),
    "stored 4.25 best": stored(3, 4.25, *PRESET),
    "stored 3.25 best": stored(3, 3.25, *PRESET),
    "stored 3.25 best, a grid per row": stored(3, 3.25, *PRESET, "--group-size", "0"),
    "stored 3.25 best, not rotated": stored(3, 3.25, *PRESET, "--rotate", "none"),
    "stored 2.0 best, auto": stored(3, 2.0, *AUTO, *PRESET),
    "stored 2.0 best, auto, not rotated": stored(3, 2.0, *AUTO, *PRESET, "--rotate", "none"),
    "stored 2.0 best, auto, groups, not rotated":
        stored(3, 2.0, *AUTO, "--group-size", "auto", *PRESET, "--rotate", "none"),
    "50% best": [*HALF, *PRESET],
    "50% 4 best": [*HALF, "--wbits", "4", *PRESET],
    "50% 4 best, rotated": [*HALF, "--wbits", "4", *PRESET, *FULL],
    "50% codes 3.0 best": codes(3, 3.0, *HALF, *PRESET),
    "2:4 best": [*RUNS, *PRESET],
}
SETS = {"choices": CONFIGURATIONS, "masks": MASKS, "published": PUBLISHED,
        "rotations": ROTATIONS, "presets": PRESETS}


def named(text):
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"{text}: write NAME=PATH")
    return name, path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--model", required=True, action="append", type=named)
    parser.add_argument("--calibration", required=True, action="append", type=named)
    parser.add_argument("--eval", required=True, action="append", type=named)
    parser.add_argument("--tool", default="build/bin/pare")
    parser.add_argument("--backend", default="eigen")
    parser.add_argument("--jobs", default=1, type=int, help="runs at a time")
    parser.add_argument("--seconds", default=1e9, type=float, help="start no run after that")
    parser.add_argument("--set", default="choices", choices=SETS, help="which configurations")
    parser.add_argument("--more", default="", help="options for all of them, in one argument")
    parser.add_argument("--commit", default="", help="recorded with the results")
    parser.add_argument("--device", default="", help="recorded with the results")
    arguments = parser.parse_args()
    configurations = SETS[arguments.set]

    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"runs": []}
    done = {(r["model"], r["calibration"], r["name"]) for r in results["runs"]}
    jobs = [(model, calibration, name)
            for model in arguments.model for calibration in arguments.calibration
            for name in configurations
            if (model[0], calibration[0], name) not in done]
    # The first configurations of every model and text before the others.
    order = list(configurations)
    jobs.sort(key=lambda job: order.index(job[2]) >= 10)
    start = time.monotonic()

    def run(job):
        (model, folder), (calibration, text), name = job
        if time.monotonic() - start > arguments.seconds:
            return job, None
        with tempfile.TemporaryDirectory() as temporary:
            report = pathlib.Path(temporary) / "report.json"
            command = [arguments.tool, "compress", folder, text, "--backend", arguments.backend,
                       "--report", str(report), *configurations[name], *arguments.more.split()]
            for eval_name, eval_file in arguments.eval:
                command += ["--eval", f"{eval_name}={eval_file}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
            measured = json.loads(report.read_text())
        totals, plan = measured["totals"], measured["plan"]
        return job, {
            "model": model, "calibration": calibration, "name": name,
            "options": " ".join(configurations[name]),
            "perplexity": measured["perplexity"]["compressed"],
            "dense": measured["perplexity"]["dense"],
            "code_bits": totals["average_bits"],
            "stored_bits": totals["stored_bits_per_weight"],
            "added_bits": (measured["config"].get("rotation") or {}).get("added_bits_per_weight", 0),
            "sparsity": totals["sparsity"], "seconds": totals["seconds"],
            "plan": plan and {key: plan[key] for key in plan if key != "patterns"},
            "patterns": plan and sorted(plan["patterns"].values()),
        }

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(run, job) for job in jobs]):
            (model, calibration, name), result = future.result()
            if result is None:
                continue
            results["runs"].append(result)
            results["date"] = datetime.date.today().isoformat()
            results["backend"] = arguments.backend
            for key in ("commit", "device"):
                if getattr(arguments, key):
                    results[key] = getattr(arguments, key)
            partial = arguments.out.with_suffix(".partial")
            partial.write_text(json.dumps(results, indent=1) + "\n")
            os.replace(partial, arguments.out)
            print(f"{time.monotonic() - start:6.1f} s  {model[0]} {calibration[0]} {name}:",
                  {k: round(v, 3) for k, v in result["perplexity"].items()}, flush=True)


if __name__ == "__main__":
    main()
