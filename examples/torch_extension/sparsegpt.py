"""pare's solver behind the interface of the published Python class SparseGPT.

    from sparsegpt import SparseGPT, Quantizer

    gpt = SparseGPT(layer)                  # a torch.nn.Linear
    gpt.quantizer = Quantizer()             # leave out to prune only
    gpt.quantizer.configure(4, perchannel=True, sym=False, mse=False)
    gpt.add_batch(inp, out)                 # from a forward hook, once per batch
    gpt.fasterprune(0.5, prunen=0, prunem=0, percdamp=.01, blocksize=128)
    gpt.free()

Activations and weights in float32 are read where PyTorch holds them, and the new weights are the
solver's own memory; other types are converted. Tensors on the CPU are solved there, those on a GPU
there. The extension is compiled on first use and kept by PyTorch.
"""
import functools
import pathlib

import torch
from torch.utils import cpp_extension

HERE = pathlib.Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"
EIGEN = ["/usr/include/eigen3", "/usr/local/include/eigen3"]


@functools.cache
def extension(device):
    """The compiled module for tensors on a kind of device, "cpu" or "cuda"."""
    if device == "cpu":
        return cpp_extension.load(
            "pare_cpu", [str(HERE / "cpu.cpp")], extra_include_paths=[str(INCLUDE), *EIGEN],
            extra_cflags=["-std=c++20", "-O3", "-march=native", "-fopenmp"],
            extra_ldflags=["-fopenmp"])
    if device == "cuda":
        return cpp_extension.load(
            "pare_cuda", [str(HERE / "cuda.cu")], extra_include_paths=[str(INCLUDE)],
            extra_cflags=["-std=c++20", "-O3"],
            extra_cuda_cflags=["-std=c++20", "-O3", "--expt-relaxed-constexpr"],
            extra_ldflags=["-lcublas", "-lcublasLt", "-lcusolver"], with_cuda=True)
    raise ValueError(f"device: expected cpu or cuda, got {device}")


class Quantizer:
    """The options of rounding, by the names of the published quantizer."""

    def configure(self, bits, perchannel=False, sym=True, mse=False):
        """bits 2..8; grids belong to rows (perchannel), or to groups of a row's inputs, see
        fasterprune(group_size); mse: search the range."""
        if not perchannel:
            raise ValueError("perchannel: expected True, a grid per row; got False")
        self.bits, self.sym, self.mse = bits, sym, mse


class SparseGPT:
    """Compresses one torch.nn.Linear in place. `loss`, `mask` and `bits` are there afterwards."""

    def __init__(self, layer):
        if not isinstance(layer, torch.nn.Linear):
            raise TypeError(f"layer: expected torch.nn.Linear, got {type(layer).__name__}")
        self.layer = layer
        self.device = layer.weight.device
        self.columns = layer.weight.shape[1]
        self.solver = extension(self.device.type).Linear(self.columns)
        self.quantizer = None
        self.loss = self.mask = self.bits = None

    def add_batch(self, inp, out=None):
        """Adds inputs, (tokens, in) or (sequences, tokens, in); the outputs are not looked at."""
        sequences = inp.shape[0] if inp.dim() == 3 else 1
        inp = inp.detach().reshape(-1, self.columns).to(torch.float32)
        self._wait()
        self.solver.add(inp, sequences)

    def fasterprune(self, sparsity, prunen=0, prunem=0, blocksize=128, percdamp=.01,
                    act_order=False, target_average_bits=None, group_size=0, group_fit="dense"):
        """Prunes and rounds. The last four are not in the published class: the visit order; a width
        per row whose mean is the target (bits is then the width at which rows are scored); a grid
        per group_size inputs of a row, 0 for whole rows; and what grids of groups are fitted to,
        "dense" weights or "compensated", as they are when the sweep reaches the group."""
        if group_fit not in ("dense", "compensated"):
            raise ValueError(f"group_fit: expected dense or compensated, got {group_fit}")
        weight = self.layer.weight
        quantizer = self.quantizer
        self._wait()
        solved = self.solver.solve(
            weight.detach().to(torch.float32), None if prunen or sparsity == 0 else sparsity,
            prunen, prunem if prunen else 0, quantizer.bits if quantizer else None,
            quantizer.sym if quantizer else False, quantizer.mse if quantizer else False,
            target_average_bits, act_order, blocksize, percdamp, group_size,
            group_fit == "compensated")
        weight.data = solved.Q.to(weight.dtype)
        self.loss, self.mask, self.bits = solved.loss, solved.mask, solved.bits

    def free(self):
        """Gives H back. The object cannot be used any more."""
        self.solver = None

    def _wait(self):
        """What PyTorch queued on the GPU must be done: the solver has a stream of its own."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
