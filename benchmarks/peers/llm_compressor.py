#!/usr/bin/env python3
"""Times the GPTQ and SparseGPT functions of llm-compressor on the problems of sparsegpt_torch.py.

    llm_compressor.py --shape 4096x4096 --shape 12288x12288 --device cuda   prints one JSON object

Per result: milliseconds between events of the function alone, its operands copied before; `loss`,
tr((W - Q) H (W - Q)^T) in float64; `published_loss`, that of the published algorithm in
sparsegpt_torch.py on the same W and H. GPTQ includes choosing the grids, from least to largest
weight. With groups the published algorithm has no counterpart here.
Needs what sparsegpt_torch.py needs, transformers, compressed-tensors and llmcompressor, of whose
packages only these two modules are run. Says so and succeeds without llmcompressor.
"""
import argparse
import importlib
import importlib.util
import json
import os
import runpy
import sys
import types

PACKAGES = ("llmcompressor", "llmcompressor.modifiers", "llmcompressor.modifiers.gptq",
            "llmcompressor.modifiers.pruning", "llmcompressor.modifiers.pruning.sparsegpt")

CONFIGS = {
    "gptq4": dict(bits=4),
    "gptq4 g128": dict(bits=4, group=128),
    "prune50": dict(sparsity=0.5),
    "2:4": dict(prunen=2, prunem=4),
}


def load(*names):
    """Modules of llm-compressor, without what its packages import beside them."""
    found = importlib.util.find_spec(PACKAGES[0])
    if found is None:
        return None
    for package in PACKAGES:
        folder = os.path.join(*package.split(".")[1:]) if "." in package else ""
        module = types.ModuleType(package)
        module.__path__ = [os.path.join(root, folder) for root in found.submodule_search_locations]
        sys.modules[package] = module
    global VERSION
    VERSION = runpy.run_path(os.path.join(*found.submodule_search_locations, "version.py"))["version"]
    return [importlib.import_module(f"{PACKAGES[0]}.modifiers.{name}") for name in names]


modules = load("gptq.gptq_quantize", "pruning.sparsegpt.sgpt_sparsify")
if modules is None:
    print("skipped: no llmcompressor", file=sys.stderr)
    sys.exit(0)
gptq, sgpt = modules

import torch  # noqa: E402
from compressed_tensors.quantization import QuantizationArgs  # noqa: E402
from compressed_tensors.quantization.utils import calculate_qparams  # noqa: E402

import sparsegpt_torch as published  # noqa: E402


def quantize(W, H, bits, group=None):
    """Q (out, in) by GPTQ; W (out, in) and H (in, in) are overwritten."""
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=False, group_size=group,
                            strategy="group" if group else "channel")
    parts = W.reshape(W.shape[0], -1, group or W.shape[1])  # (out, grids of a row, columns)
    scale, zero = calculate_qparams(parts.amin(2), parts.amax(2), args)
    Q, _, fell_back = gptq.quantize_weight(W[None], H[None], scale[None], zero[None], None, args)
    if fell_back.any():
        raise ArithmeticError("GPTQ fell back to rounding to nearest")
    return Q[0]


def prune(W, H, sparsity=0.0, prunen=0, prunem=0):
    """Q (out, in) by SparseGPT; H (in, in) is overwritten."""
    linear = torch.nn.Linear(W.shape[1], W.shape[0], bias=False, device="meta")
    linear.weight = torch.nn.Parameter(W, requires_grad=False)
    return sgpt.sparsify_weight(linear, {linear: H}, sparsity, prunen, prunem, 128, 0.01, False)[1]


def loss_of(W, Q, H):
    """tr((W - Q) H (W - Q)^T) in float64, some rows at a time."""
    wide = H.double()
    return sum(((d @ wide) * d).sum().item() for d in (W - Q).double().split(2048))


def timed(call, W, H, repeat):
    """Milliseconds of `repeat` calls after an untimed one, and what the last returned."""
    times = []
    for run in range(-1, repeat):
        operands = W.clone(), H.clone()
        if W.is_cuda:
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            Q = call(*operands)
            stop.record()
            stop.synchronize()
            if run >= 0:
                times.append(start.elapsed_time(stop))
        else:
            (ms,), Q = published.time_calls(lambda: call(*operands), False, 1, 0)
            if run >= 0:
                times.append(ms)
    return times, Q


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--shape", action="append", metavar="ROWSxCOLS",
                        help="repeatable; default 768x768")
    parser.add_argument("--config", action="append", choices=list(CONFIGS),
                        help="repeatable; default all")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    results = []
    for text in args.shape or ["768x768"]:
        rows, cols = published.parse_shape(text)
        W, H = published.make_problem(rows, cols, args.seed, args.device)
        for name in args.config or list(CONFIGS):
            options = CONFIGS[name]
            function = quantize if "bits" in options else prune
            times, Q = timed(lambda w, h: function(w, h, **options), W, H, args.repeat)
            result = dict(problem=text, rows=rows, cols=cols, config=name,
                          **published.summary(times), loss=loss_of(W, Q, H))
            if "group" not in options:
                Q, _ = published.solve(W, H, **{"sparsity": 0.0, **options})
                result["published_loss"] = loss_of(W, Q, H)
            results.append(result)
            del Q
    cuda = args.device.startswith("cuda")
    print(json.dumps(dict(peer="llm_compressor", version=VERSION, torch=torch.__version__,
                          device=args.device,
                          device_name=torch.cuda.get_device_name(args.device) if cuda else "cpu",
                          repeat=args.repeat, results=results), indent=1))


if __name__ == "__main__":
    with torch.no_grad():
        main()
