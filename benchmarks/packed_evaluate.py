#!/usr/bin/env python3
"""Times `pare evaluate` of packed folders beside that of the dense folder.

  packed_evaluate.py RESULT.json CALIBRATION EVALUATION NAME=FOLDER... [--tool PARE] [--repeats N]
                     [--windows N] [--seqlen N]

Every model is packed in three ways, calibrated on one window, for time does not depend on what the
weights are. Then the folders are evaluated in turn, so that a busy machine is busy for all. The
smallest time of each counts.
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import tempfile
import time

WAYS = {
    "4 bit, groups of 64": ["--wbits", "4", "--group-size", "64"],
    "50 % + 4 bit, groups of 64": ["--wbits", "4", "--group-size", "64", "--sparsity", "0.5"],
    "mixed widths, mean 3.0": ["--wbits", "4", "--target-avg-bits", "3"],
}


def run(*command):
    """Wall and processor time of a command, seconds."""
    def processor():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    begin, before = time.perf_counter(), processor()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin, processor() - before


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("calibration")
    parser.add_argument("evaluation")
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--tool", default="build/bin/pare")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seqlen", type=int, default=256)
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
    load = os.getloadavg()[0]
    models = []
    with tempfile.TemporaryDirectory() as room:
        for number, model in enumerate(options.models):
            name, source = model.split("=", 1)
            folders = {"dense": source}
            for way, arguments in WAYS.items():
                folders[way] = f"{room}/{number}-{len(folders)}"
                run(options.tool, "compress", source, options.calibration, "--nsamples", "1",
                    "--seqlen", "256", "--save-packed", folders[way], *arguments)
            times = {way: [] for way in folders}
            for _ in range(options.repeats):
                for way, folder in folders.items():
                    times[way].append(run(options.tool, "evaluate", folder, "--eval",
                                          f"text={options.evaluation}", "--seqlen",
                                          str(options.seqlen), "--max-windows",
                                          str(options.windows)))
            models.append({"name": name, "times": [
                {"weights": way, "wall_s": min(w for w, _ in of_way),
                 "processor_s": min(p for _, p in of_way)} for way, of_way in times.items()]})
    options.result.write_text(json.dumps({
        "date": time.strftime("%Y-%m-%d"), "load": load, "repeats": options.repeats,
        "windows": options.windows, "seqlen": options.seqlen, "models": models}, indent=2) + "\n")


if __name__ == "__main__":
    main()
