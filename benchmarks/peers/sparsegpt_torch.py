#!/usr/bin/env python3
"""A PyTorch peer of the published SparseGPT algorithm (float32, TF32 off).

    sparsegpt_torch.py check FOLDER           compare with golden files gN_*.safetensors
    sparsegpt_torch.py bench --shape 2048x2048 --config 50+4 [--device cuda] ...
    sparsegpt_torch.py stages --shape 2048x2048 ...
    sparsegpt_torch.py save  --shape 2048x2048 FILE   write the bench problem (W, H)

`bench` times the solve alone (H is given), `stages` the parts of the algorithm that can be called
alone; both print one JSON object.
Needs torch, numpy and safetensors.
"""
import argparse
import json
import math
import os
import statistics
import sys
import time

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False


def quantize(x, scale, zero, maxq):
    """Round x to the grid scale * ({0..maxq} - zero)."""
    code = torch.clamp(torch.round(x / scale) + zero, 0, maxq)
    return scale * (code - zero)


class Quantizer:
    """One uniform grid per row of a weight matrix."""

    def __init__(self, bits, sym=False, mse=False, norm=2.4, grid=100, maxshrink=0.8):
        self.maxq = 2 ** bits - 1
        self.sym, self.mse = sym, mse
        self.norm, self.grid, self.maxshrink = norm, grid, maxshrink
        self.scale = self.zero = None

    def find_params(self, w):
        """Choose scale and zero, both of shape (rows, 1), for the rows of w."""
        lo = w.min(1).values.clamp(max=0)
        hi = w.max(1).values.clamp(min=0)
        if self.sym:
            hi = torch.maximum(lo.abs(), hi)
            lo = torch.where(lo < 0, -hi, lo)
        empty = (lo == 0) & (hi == 0)
        lo = torch.where(empty, torch.full_like(lo, -1), lo)
        hi = torch.where(empty, torch.full_like(hi, 1), hi)

        scale, zero = self._grid(lo, hi)
        if self.sym:
            zero = torch.full_like(scale, (self.maxq + 1) / 2)
        if self.mse:
            best = torch.full_like(lo, math.inf)
            for i in range(int(self.maxshrink * self.grid)):
                p = 1 - i / self.grid
                s, z = self._grid(p * lo, p * hi)
                if self.sym:
                    z = zero
                q = quantize(w, s[:, None], z[:, None], self.maxq)
                err = (q - w).abs_().pow_(self.norm).sum(1)
                better = err < best
                best = torch.where(better, err, best)
                scale = torch.where(better, s, scale)
                zero = torch.where(better, z, zero)
        self.scale, self.zero = scale[:, None], zero[:, None]

    def _grid(self, lo, hi):
        scale = (hi - lo) / self.maxq
        return scale, torch.round(-lo / scale)

    def __call__(self, x):
        return quantize(x, self.scale, self.zero, self.maxq)


class SparseGPT:
    """Compresses one linear layer's weight (out, in) by layer-wise reconstruction."""

    def __init__(self, weight, quantizer=None):
        self.weight = weight
        self.rows, self.cols = weight.shape
        self.H = torch.zeros(self.cols, self.cols, device=weight.device)
        self.n = 0
        self.quantizer = quantizer
        self.loss = None

    def add_batch(self, x):
        """Accumulate H = 2/n sum x x^T; x is (tokens, in) or (sequences, tokens, in)."""
        if x.dim() == 2:
            x = x[None]
        t = x.shape[0]
        x = x.reshape(-1, self.cols).float()
        self.H *= self.n / (self.n + t)
        self.n += t
        x = math.sqrt(2 / self.n) * x
        self.H += x.T @ x

    def inverse_factor(self, H, percdamp):
        """Upper Cholesky factor of (H + damping)^-1; overwrites H."""
        d = torch.arange(self.cols, device=H.device)
        H[d, d] += percdamp * H.diagonal().mean()
        H = torch.cholesky_inverse(torch.linalg.cholesky(H))
        return torch.linalg.cholesky(H, upper=True)

    def fasterprune(self, sparsity, prunen=0, prunem=0, blocksize=128, percdamp=0.01):
        """Return the compressed weight; self.loss is the sum of squared errors / 2."""
        W = self.weight.clone().float()
        quantizer = self.quantizer
        if quantizer is not None and quantizer.scale is None:
            quantizer.find_params(W)

        H = self.H.clone()
        dead = H.diagonal() == 0
        H[dead, dead] = 1
        W[:, dead] = 0
        U = self.inverse_factor(H, percdamp)

        losses = torch.zeros(self.rows, device=W.device)
        for i1 in range(0, self.cols, blocksize):
            i2 = min(i1 + blocksize, self.cols)
            count = i2 - i1
            W1 = W[:, i1:i2].clone()
            Q1 = torch.zeros_like(W1)
            Err1 = torch.zeros_like(W1)
            losses1 = torch.zeros_like(W1)
            U1 = U[i1:i2, i1:i2]
            diag = U1.diagonal()

            if prunen:
                mask = torch.zeros_like(W1, dtype=torch.bool)
            else:
                score = W1 ** 2 / diag ** 2
                rank = int(score.numel() * sparsity)
                mask = score <= torch.sort(score.flatten())[0][rank]

            for i in range(count):
                w = W1[:, i]
                d = diag[i]
                if prunen and i % prunem == 0:
                    score = W1[:, i:i + prunem] ** 2 / diag[i:i + prunem] ** 2
                    mask.scatter_(1, i + torch.topk(score, prunen, dim=1, largest=False)[1], True)
                q = w.clone()
                q[mask[:, i]] = 0
                if quantizer is not None:
                    q = quantizer(q[:, None]).flatten()
                Q1[:, i] = q
                losses1[:, i] = (w - q) ** 2 / d ** 2
                err = (w - q) / d
                W1[:, i:] -= err[:, None] @ U1[i, i:][None]
                Err1[:, i] = err

            W[:, i1:i2] = Q1
            losses += losses1.sum(1) / 2
            W[:, i2:] -= Err1 @ U[i1:i2, i2:]

        self.loss = losses.sum()
        return W


# --- check -----------------------------------------------------------------

def load_tensors(path):
    """Tensors and metadata of a safetensors file, as float32 torch tensors."""
    with safe_open(path, "np") as f:
        tensors = {k: torch.from_numpy(np.array(f.get_tensor(k), dtype=np.float32)) for k in f.keys()}
        return tensors, f.metadata() or {}


def check_file(path, device, loss_rtol=1e-3, agreement=0.995):
    """Solve one golden problem; return (ok, a line of text)."""
    t, meta = load_tensors(path)
    n, m = int(meta.get("n", 0)), int(meta.get("m", 0))
    sparsity, bits = float(meta.get("s", 0)), int(meta.get("b", 0))
    quantizer = None
    if bits:
        quantizer = Quantizer(bits, sym=meta.get("sym") == "True", mse=meta.get("mse") == "True")
    solver = SparseGPT(t["W"].to(device), quantizer)

    # H was accumulated from four sequences; recompute it as well as using the file's.
    if t["X"].shape[0] % 4 == 0:
        for part in t["X"].to(device).chunk(4):
            solver.add_batch(part)
    else:
        solver.H += t["H"].to(device)
    h_err = ((solver.H.cpu() - t["H"]).norm() / t["H"].norm()).item()
    solver.H = t["H"].to(device)

    Q = solver.fasterprune(sparsity, n, m).cpu()
    loss, want = solver.loss.item(), t["loss"].item()
    loss_err = abs(loss - want) / abs(want)
    pruned = n > 0 or sparsity > 0
    if pruned:
        same = ((Q == 0) == (t["Q"] == 0)).float().mean().item()
    else:
        same = torch.isclose(Q, t["Q"], rtol=1e-5, atol=1e-7).float().mean().item()
    exact = torch.isclose(Q, t["Q"], rtol=1e-4, atol=1e-6).float().mean().item()
    ok = loss_err <= loss_rtol and same >= agreement and h_err <= 1e-5
    line = (f"loss {loss:.6g} (published {want:.6g}, relative {loss_err:.1e}), "
            f"{'mask' if pruned else 'Q'} {100 * same:.3f} % equal, Q close {100 * exact:.3f} %, H {h_err:.1e}")
    if bits:
        grid_err = max(((quantizer.scale.flatten().cpu() - t["scale"]) / t["scale"]).abs().max().item(),
                       (quantizer.zero.flatten().cpu() - t["zero"]).abs().max().item())
        ok = ok and grid_err <= 1e-5
        line += f", grid {grid_err:.1e}"
    return ok, line


def check(args):
    """Run every golden file of a folder; non-zero exit on a disagreement."""
    names = sorted(f for f in os.listdir(args.folder)
                   if f.endswith(".safetensors") and f[0] == "g" and f[1:2].isdigit())
    if not names:
        sys.exit("no gN_*.safetensors in that folder")
    failed = 0
    for name in names:
        ok, line = check_file(os.path.join(args.folder, name), args.device)
        failed += not ok
        print("ok  " if ok else "FAIL", name, line)
    return 1 if failed else 0


# --- bench -----------------------------------------------------------------

CONFIGS = {
    "prune50": dict(sparsity=0.5),
    "2:4": dict(sparsity=0.0, prunen=2, prunem=4),
    "50+4": dict(sparsity=0.5, bits=4),
    "gptq4": dict(sparsity=0.0, bits=4),
}


def make_problem(rows, cols, seed, device):
    """W and H of a random, well-conditioned layer with correlated inputs."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(rows, cols, generator=g) * 0.02
    X = torch.randn(2 * cols, cols, generator=g).to(device)
    spread = torch.exp(0.5 * torch.randn(cols, generator=g)).to(device)
    mix = (torch.randn(cols, cols, generator=g) * (0.3 / math.sqrt(cols))).to(device)
    X = (X + X @ mix) * spread
    H = X.T @ X
    H *= 2 / (2 * cols)
    return W.to(device), (H + H.T) / 2


def solve(W, H, sparsity, prunen=0, prunem=0, bits=0):
    """One solve, as it is timed."""
    solver = SparseGPT.__new__(SparseGPT)
    solver.weight, solver.H = W, H
    solver.rows, solver.cols = W.shape
    solver.quantizer = Quantizer(bits) if bits else None
    return solver.fasterprune(sparsity, prunen, prunem), solver.loss


def time_calls(call, cuda, repeat, warmup):
    """Milliseconds of `repeat` calls, and what the last one returned."""
    for _ in range(warmup):
        result = call()
    times = []
    for _ in range(repeat):
        if cuda:
            torch.cuda.synchronize()
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            result = call()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop))
        else:
            begin = time.perf_counter()
            result = call()
            times.append(1e3 * (time.perf_counter() - begin))
    return times, result


def parse_shape(text):
    rows, cols = text.lower().split("x")
    return int(rows), int(cols)


def problems(args):
    """Yield (label, W, H) for every input file and shape asked for."""
    for path in args.input or []:
        t, _ = load_tensors(path)
        pre = args.prefix
        W, H = t[pre + "W"].to(args.device), t[pre + "H"].to(args.device)
        yield os.path.basename(path), W, H
    for text in args.shape or ([] if args.input else ["768x768"]):
        rows, cols = parse_shape(text)
        yield text, *make_problem(rows, cols, args.seed, args.device)


def bench(args):
    """Time the solve and print one JSON object."""
    if args.threads:
        torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    results = []
    for label, W, H in problems(args):
        for name in args.config or list(CONFIGS):
            times, (_, loss) = time_calls(lambda: solve(W, H, **CONFIGS[name]), cuda, args.repeat,
                                          args.warmup)
            results.append(dict(problem=label, rows=W.shape[0], cols=W.shape[1], config=name,
                                **summary(times), loss=loss.item()))
    print_results(args, results)
    return 0


def summary(times):
    return dict(median_ms=round(statistics.median(times), 3), times_ms=[round(t, 3) for t in times])


def print_results(args, results):
    """One JSON object: what ran where, and the results."""
    cuda = args.device.startswith("cuda")
    print(json.dumps(dict(peer="sparsegpt_torch", torch=torch.__version__, device=args.device,
                          device_name=torch.cuda.get_device_name(args.device) if cuda else "cpu",
                          threads=torch.get_num_threads(), repeat=args.repeat, warmup=args.warmup,
                          results=results), indent=1))


def stages(args):
    """Time H of one window of 2048 tokens, U, the grids and the loop over columns at 50 % + 4 bit
    (masks, rounding, updates; U and grids given), and print one JSON object."""
    if args.threads:
        torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    results, seen = [], set()
    for text in args.shape or ["768x768"]:
        rows, cols = parse_shape(text)
        W, H = make_problem(rows, cols, args.seed, args.device)
        X = torch.randn(2048, cols, generator=torch.Generator().manual_seed(args.seed))
        X = X.to(args.device)
        loop = SparseGPT(W, Quantizer(4))
        loop.quantizer.find_params(W)
        loop.H += H
        upper = loop.inverse_factor(H.clone(), 0.01)
        loop.inverse_factor = lambda H, percdamp: upper
        calls = dict(fit=lambda: Quantizer(4).find_params(W),
                     fit_clip=lambda: Quantizer(4, mse=True).find_params(W),
                     loop=lambda: loop.fasterprune(0.5))
        if cols not in seen:  # the others depend on the inputs only
            solver = SparseGPT(W)
            calls.update(accumulate=lambda: solver.add_batch(X),
                         factor=lambda: solver.inverse_factor(H.clone(), 0.01))
        seen.add(cols)
        for name, call in calls.items():
            times, _ = time_calls(call, cuda, args.repeat, args.warmup)
            results.append(dict(stage=name, rows=rows, cols=cols, **summary(times)))
    print_results(args, results)
    return 0


def save(args):
    """Write W and H of the bench problem, for another program to solve."""
    rows, cols = parse_shape(args.shape)
    W, H = make_problem(rows, cols, args.seed, "cpu")
    save_file({"W": W.numpy(), "H": H.numpy()}, args.file)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    p = commands.add_parser("check", help="compare with golden files")
    p.add_argument("folder")
    p.add_argument("--device", default="cpu")
    p.set_defaults(run=check)

    p = commands.add_parser("bench", help="time the solve")
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument("--shape", action="append", metavar="ROWSxCOLS", help="repeatable; default 768x768")
    p.add_argument("--input", action="append", metavar="FILE", help="safetensors file with W and H; repeatable")
    p.add_argument("--prefix", default="", help="what stands before W and H in the names of --input")
    p.add_argument("--config", action="append", choices=list(CONFIGS), help="repeatable; default all")
    p.add_argument("--threads", type=int, default=0, help="CPU threads; default torch's own")
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--warmup", type=int, default=1, help="untimed solves first")
    p.add_argument("--seed", type=int, default=0)
    p.set_defaults(run=bench)

    p = commands.add_parser("stages", help="time the parts of a solve")
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument("--shape", action="append", metavar="ROWSxCOLS", help="repeatable; default 768x768")
    p.add_argument("--threads", type=int, default=0, help="CPU threads; default torch's own")
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--warmup", type=int, default=1, help="untimed calls first")
    p.add_argument("--seed", type=int, default=0)
    p.set_defaults(run=stages)

    p = commands.add_parser("save", help="write the bench problem to a file")
    p.add_argument("file")
    p.add_argument("--shape", required=True, metavar="ROWSxCOLS")
    p.add_argument("--seed", type=int, default=0)
    p.set_defaults(run=save)

    args = parser.parse_args()
    with torch.no_grad():
        sys.exit(args.run(args))


if __name__ == "__main__":
    main()
