#!/usr/bin/env python3
"""Renders the tables of a page from measured JSON.

python3 benchmarks/quality/render.py PAGE.md [--check]

Between "<!-- table NAME -->" and "<!-- end -->" of the page stands what TABLES[NAME] makes of the
JSON in the page's folder quality/. With --check nothing is written; a stale page is an error.
"""
import json
import math
import pathlib
import re
import sys


class Results:
    def __init__(self, folder):
        self.folder = folder
        self.all = json.loads((folder / "quality.json").read_text())
        self.by_key = {(r["model"], r["calibration"], r["name"]): r for r in self.all["runs"]}
        self.models = sorted({r["model"] for r in self.all["runs"]}, reverse=True)
        self.calibrations = sorted({r["calibration"] for r in self.all["runs"]}, reverse=True)

    def get(self, model, calibration, name):
        return self.by_key.get((model, calibration, name))


def perplexities(run):
    return " / ".join(f"{value:.2f}" for value in run["perplexity"].values())


def excess(run):
    """Mean of log(perplexity / dense) over the texts, in percent."""
    logs = [math.log(run["perplexity"][text] / run["dense"][text]) for text in run["perplexity"]]
    return 100 * sum(logs) / len(logs)


def head(results):
    some = next(iter(results.by_key.values()))
    texts = " / ".join(some["perplexity"])
    commit = f", commit {results.all['commit']}" if "commit" in results.all else ""
    lines = [f"Measured {results.all['date']} with `--backend {results.all['backend']}`{commit}. "
             f"Perplexity on {texts}; dense:", "", "| model | dense |", "|---|---|"]
    for model in results.models:
        run = next(r for r in results.by_key.values() if r["model"] == model)
        lines.append(f"| {model} | {perplexities({'perplexity': run['dense']})} |")
    return lines


def origin(measured):
    """Where and when a file of results was measured."""
    return [f"Measured {measured['date']} with `--backend {measured['backend']}` on an "
            f"{measured['device']}, commit {measured['commit']}.", ""]


def table(results, rows):
    """A row per (label, configuration): perplexities and excess for every model and text."""
    columns = [(m, c) for m in results.models for c in results.calibrations]
    lines = ["| | " + " | ".join(f"{m}, {c}" for m, c in columns) + " |",
             "|---" * (1 + len(columns)) + "|"]
    for label, name in rows:
        cells = []
        for model, calibration in columns:
            run = results.get(model, calibration, name)
            cells.append(f"{perplexities(run)} ({excess(run):+.1f} %)" if run else "")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def bars(results):
    return table(results, [
        ("uniform 3", "3.0 uniform, grid"),
        ("best, codes 3.0", "3.0 best"),
        ("best, codes 2.5", "2.5 best"),
        ("uniform 4", "4.0 uniform, grid"),
        ("best, codes 4.0", "4.0 best"),
        ("50 %, uniform 3", "50% 3.0 uniform, grid"),
        ("50 %, best, codes 3.0", "50% 3.0 best"),
    ])


def stored(results):
    lines = ["| model, calibration | configuration | stored bits | code bits | pruned | perplexity "
             "| excess |", "|---|---|---|---|---|---|---|"]
    for model in results.models:
        for calibration in results.calibrations:
            for label, name in [("uniform 2", "2 uniform, grid"),
                                ("uniform 2, all tricks", "2 uniform, tricks"),
                                ("best, stored 2.0, sparsity auto", "stored 2.0 best, auto"),
                                ("best, stored 3.0", "stored 2.0 best, dense at 3")]:
                run = results.get(model, calibration, name)
                if run is None:
                    continue
                lines.append(f"| {model}, {calibration} | {label} | {run['stored_bits']:.3f} "
                             f"| {run['code_bits']:.3f} | {100 * run['sparsity']:.1f} % "
                             f"| {perplexities(run)} | {excess(run):+.1f} % |")
    return lines


def tricks(results):
    return table(results, [
        ("nothing", "3.0 uniform"),
        ("act-order", "3.0 uniform, act-order"),
        ("clip search", "3.0 uniform, clip search"),
        ("both", "3.0 uniform, grid"),
        ("both, true-sequential", "3.0 uniform, grid, true-sequential"),
        ("both, asymmetric 0.5", "3.0 uniform, grid, asymmetric"),
        ("all four", "3.0 uniform, tricks"),
    ])


def allocation(results):
    return table(results, [
        ("uniform", "3.0 uniform, grid"),
        ("quantile, five signals", "3.0 quantile, five"),
        ("budget per linear, five signals", "3.0 layer, five"),
        ("budget per linear, distortion", "3.0 layer, distortion"),
        ("budget for the model, distortion", "3.0 model, distortion"),
        ("budget for the model, kl at 3 bits", "3.0 model, kl"),
        ("the same, kl at 2 bits", "3.0 model, kl at 2"),
        ("the same, kl at 4 bits", "3.0 model, kl at 4"),
    ])


def plan_tricks(results):
    return table(results, [
        ("kl at 3 bits, act-order, clip search", "3.0 model, kl"),
        ("and true-sequential", "3.0 model, kl, true-sequential"),
        ("and asymmetric 0.5", "3.0 model, kl, asymmetric"),
        ("and both: best", "3.0 best"),
        ("best, asymmetric 0.25", "3.0 best, asymmetric 0.25"),
        ("best, asymmetric 1", "3.0 best, asymmetric 1"),
        ("best, input channels", "3.0 best, input channels"),
        ("codes 2.5: kl, act-order, clip search", "2.5 model, kl"),
        ("codes 2.5: best", "2.5 best"),
        ("50 % and 3.0: kl, act-order, clip search", "50% 3.0 model, kl"),
        ("50 % and 3.0: best", "50% 3.0 best"),
        ("codes 4.0: kl, act-order, clip search", "4.0 model, kl"),
        ("codes 4.0: best", "4.0 best"),
    ])


def masks(results):
    """Every pattern with the greedy mask, with its weights solved exactly, and with both searched."""
    measured = json.loads((results.folder / "masks.json").read_text())
    results.by_key |= {(r["model"], r["calibration"], r["name"]): r for r in measured["runs"]}
    return origin(measured) + table(results, [
        ("50 %", "50%"), ("`--refine`", "50% refined"), ("`--mask-search admm`", "50% admm"),
        ("70 %", "70%"), ("`--refine`", "70% refined"), ("`--mask-search admm`", "70% admm"),
        ("2:4", "2:4"), ("`--refine`", "2:4 refined"), ("`--mask-search admm`", "2:4 admm"),
        ("50 %, uniform 4", "50% 4 uniform, grid"),
        ("`--mask-search admm`", "50% 4 uniform, grid, admm"),
        ("2:4, uniform 4", "2:4 4 uniform, grid"),
        ("`--mask-search admm`", "2:4 4 uniform, grid, admm"),
        ("50 %, best, codes 3.0", "50% 3.0 best"),
        ("`--mask-search admm`", "50% 3.0 best, admm"),
        ("best, stored 2.0, sparsity auto", "stored 2.0 best, auto"),
        ("`--mask-search admm`", "stored 2.0 best, auto, admm"),
    ])


def failed(results):
    tried = json.loads((results.folder / "tried.json").read_text())
    texts = " / ".join(tried["texts"])
    lines = [f"| on top of the best, {tried['model']}, calibrated on {tried['calibration']} "
             f"| codes 3.0: {texts} | codes 2.5 |", "|---|---|---|"]
    for row in tried["rows"]:
        cells = [" / ".join(f"{v:.2f}" for v in row[t]) if row.get(t) else "" for t in ("3.0", "2.5")]
        lines.append(f"| {row['what']} | " + " | ".join(cells) + " |")
    return lines


def published(results):
    """Perplexities of every configuration of a published model, and its dense ones."""
    measured = json.loads((results.folder / "smollm2.json").read_text())
    runs = measured["runs"]
    lines = [*origin(measured),
             "| configuration | " + " | ".join(runs[0]["perplexity"]) + " |",
             "|---" * (1 + len(runs[0]["perplexity"])) + "|"]
    rows = [("dense", runs[0]["dense"])] + [
        (f"`{r['options']}`" + (f" (commit {r['commit']})" if "commit" in r else ""),
         r["perplexity"]) for r in runs]
    for label, values in rows:
        lines.append(f"| {label} | " + " | ".join(f"{v:.2f}" for v in values.values()) + " |")
    return lines


def listed(file):
    """Makes a table of bits and perplexities, a row for every run of a file. Where the file has more
    than one model or calibration text, the rows say which, and one is the dense model's."""
    def table_of(results):
        measured = json.loads((results.folder / file).read_text())
        runs = measured["runs"]
        texts = list(runs[0]["dense"])
        kinds = list(dict.fromkeys((run["model"], run["calibration"]) for run in runs))
        which = len(kinds) > 1
        lines = [*origin(measured),
                 ("| model, calibration " if which else "")
                 + "| configuration | stored bits | of the head | " + " | ".join(texts) + " |",
                 "|---" * (3 + which + len(texts)) + "|"]

        def row(kind, name, stored, head, values):
            lines.append((f"| {', '.join(kind)} " if which else "") + f"| {name} | {stored} | {head} | "
                         + " | ".join(f"{v:.2f}" for v in values.values()) + " |")

        for kind in kinds:
            of = [run for run in runs if (run["model"], run["calibration"]) == kind]
            if which:
                row(kind, "dense", "", "", of[0]["dense"])
            for run in of:
                head = f"{run['added_bits']:.2f}" if run["added_bits"] else ""
                row(kind, f"`{run['options']}`", f"{run['stored_bits']:.2f}", head,
                    run["perplexity"])
        return lines
    return table_of


TABLES = {"rotations": listed("rotations.json"), "presets": listed("presets.json"),
          "published": published, "head": head, "bars": bars, "stored": stored, "tricks": tricks,
          "allocation": allocation, "plan tricks": plan_tricks, "masks": masks,
          "failed": failed}


def main():
    page = pathlib.Path(sys.argv[1])
    results = Results(page.parent / "quality")
    text = page.read_text()

    def rendered(match):
        return (f"<!-- table {match[1]} -->\n" + "\n".join(TABLES[match[1]](results))
                + "\n<!-- end -->")

    fresh = re.sub(r"<!-- table ([a-z ]+) -->\n.*?<!-- end -->", rendered, text, flags=re.S)
    if "--check" in sys.argv[2:]:
        sys.exit(f"{page} is stale: render it anew" if fresh != text else 0)
    page.write_text(fresh)


if __name__ == "__main__":
    main()
