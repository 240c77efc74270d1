"""Tests sparsegpt.py on real layers. Ends with 77 where PyTorch or a compiler for it is missing.

python3 test_sparsegpt.py [cpu] [cuda]    default: cpu, and cuda where there is a GPU
"""
import pathlib
import shutil
import sys

try:
    import torch
except ImportError:
    print("skipped: torch cannot be imported")
    sys.exit(77)
if shutil.which("ninja") is None or shutil.which("c++") is None:
    print("skipped: extensions of torch need ninja and c++")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent.parent / "benchmarks" / "peers"))
from sparsegpt import Quantizer, SparseGPT, extension  # noqa: E402


def problem(device, out=96, inputs=128, tokens=512, dtype=torch.float32):
    generator = torch.Generator().manual_seed(8)
    layer = torch.nn.Linear(inputs, out)
    layer.weight.data = 0.05 * torch.randn(out, inputs, generator=generator)
    mix = torch.randn(inputs // 4, inputs, generator=generator)  # inputs that hang together
    X = torch.randn(4, tokens // 4, inputs // 4, generator=generator) @ mix
    X += torch.randn(X.shape, generator=generator)
    return layer.to(device=device, dtype=dtype), X.to(device=device, dtype=dtype)


def solved(device, *arguments, quantizer=None, **options):
    layer, X = problem(device)
    dense = layer.weight.detach().clone()
    gpt = SparseGPT(layer)
    if quantizer:
        gpt.quantizer = Quantizer()
        gpt.quantizer.configure(**quantizer)
    hook = layer.register_forward_hook(lambda _, inp, out: gpt.add_batch(inp[0].data, out.data))
    layer(X)
    hook.remove()
    gpt.fasterprune(*arguments, **options)
    x = X.reshape(-1, X.shape[-1])
    error = ((dense - layer.weight) @ x.T).norm() / (dense @ x.T).norm()
    return gpt, dense, layer.weight.detach(), float(error), X


def raises(kind, what, call):
    try:
        call()
    except kind as error:
        assert what in str(error), f"expected {what!r} in the message, got: {error}"
        return
    raise AssertionError(f"expected {kind.__name__} with {what!r}")


def test_half(device):
    gpt, dense, Q, error, _ = solved(device, 0.5)
    assert int((Q == 0).sum()) == Q.numel() // 2
    assert bool((Q[gpt.mask.bool()] == 0).all())
    magnitude = torch.where(dense.abs() > dense.abs().median(), dense, 0 * dense)
    _, X = problem(device)
    x = X.reshape(-1, X.shape[-1])
    by_magnitude = float(((dense - magnitude) @ x.T).norm() / (dense @ x.T).norm())
    assert error < 0.9 * by_magnitude, (error, by_magnitude)
    return f"50 %: half of the weights are zero, error {error:.2f}, by magnitude {by_magnitude:.2f}"


def test_two_four(device):
    _, _, Q, error, _ = solved(device, 0, prunen=2, prunem=4)
    assert bool(((Q.reshape(-1, 4) == 0).sum(1) == 2).all())
    return f"2:4: two zeros in every four, error {error:.2f}"


def test_against_published(device):
    """The same Q as the published algorithm, but for weights on the edge between two values."""
    try:
        import sparsegpt_torch as peer
    except ImportError as error:
        return f"skipped: the published algorithm in PyTorch: {error}"
    gpt, dense, Q, _, X = solved(device, 0, prunen=2, prunem=4, quantizer={
        "bits": 4, "perchannel": True, "sym": False})
    quantizer = peer.Quantizer(4)
    theirs = peer.SparseGPT(dense.clone(), quantizer)
    theirs.add_batch(X)
    expected = theirs.fasterprune(0, prunen=2, prunem=4)
    same = float((Q - expected).abs().le(1e-4 * expected.abs().max()).float().mean())
    assert same > 0.97, same
    assert abs(gpt.loss / float(theirs.loss) - 1) < 0.02, (gpt.loss, float(theirs.loss))
    assert max(len(row.unique()) for row in Q) <= 16
    return "2:4 and 4 bits: the published algorithm's weights, at most 16 values per row"


def test_widths(device):
    gpt, _, Q, error, _ = solved(device, 0.5, target_average_bits=3.5, quantizer={
        "bits": 4, "perchannel": True, "sym": False, "mse": True})
    mean = sum(gpt.bits) / len(gpt.bits)
    assert len(gpt.bits) == Q.shape[0] and 3.5 - 1 / len(gpt.bits) < mean <= 3.5, mean
    for row, bits in zip(Q, gpt.bits):
        assert len(row.unique()) <= 2 ** bits
    return f"a width per row: mean {mean:.2f} bits, error {error:.2f}"


def test_groups(device):
    """A grid per 32 inputs: few values in each group, and less lost than with a grid per row."""
    quantizer = {"bits": 3, "perchannel": True, "sym": False}
    rows, _, _, _, _ = solved(device, 0, quantizer=quantizer)
    for fit in ("dense", "compensated"):
        gpt, _, Q, _, _ = solved(device, 0, quantizer=quantizer, group_size=32, group_fit=fit)
        for group in Q.reshape(-1, 32):
            assert len(group.unique()) <= 8
        assert max(len(row.unique()) for row in Q) > 8
        assert gpt.loss < 0.9 * rows.loss, (fit, gpt.loss, rows.loss)
    raises(ValueError, "group_fit", lambda: solved(device, 0, quantizer=quantizer, group_size=32,
                                                   group_fit="compensated", act_order=True))
    return f"groups of 32: at most 8 values in each, loss {gpt.loss:.1f}, by row {rows.loss:.1f}"


def test_memory(device):
    """Float32 is used in place, strided inputs too; other types keep their type."""
    layer, X = problem(device)
    wide = torch.zeros(X.shape[0] * X.shape[1], 2 * X.shape[2], device=device)
    wide[:, :X.shape[2]] = X.reshape(-1, X.shape[2])
    module = extension(torch.device(device).type)
    by_view, by_copy = module.Linear(X.shape[2]), module.Linear(X.shape[2])
    by_view.add(wide[:, :X.shape[2]], 4)
    by_copy.add(X.reshape(-1, X.shape[2]), 4)
    options = (0.5, 0, 0, None, False, False, None, False, 128, 0.01)
    a = by_view.solve(layer.weight.detach(), *options)
    b = by_copy.solve(layer.weight.detach(), *options)
    assert torch.equal(a.Q, b.Q)
    kept = a.Q.clone()
    del a, by_view  # Q alone keeps the solver's memory
    assert torch.equal(kept, b.Q)
    gpt = SparseGPT(layer)
    gpt.add_batch(X)
    gpt.fasterprune(0.5)
    assert torch.equal(layer.weight.detach(), b.Q)
    half, X = problem(device, dtype=torch.bfloat16)
    gpt = SparseGPT(half)
    gpt.add_batch(X)
    gpt.fasterprune(0.5)
    assert half.weight.dtype == torch.bfloat16
    assert 2 * int((half.weight == 0).sum()) >= half.weight.numel()
    gpt.free()
    return "float32 in place, strided inputs as views, bfloat16 converted and back"


def test_errors(device):
    layer, X = problem(device)
    gpt = SparseGPT(layer)
    raises(ValueError, "expected at least one batch", lambda: gpt.fasterprune(0.5))
    X[0, 3, 5] = float("nan")
    raises(ValueError, "NaN or infinity at (3, 5)", lambda: gpt.add_batch(X))
    gpt.add_batch(torch.nan_to_num(X))
    raises(ValueError, "sparsity", lambda: gpt.fasterprune(1.5))
    raises(ValueError, "zeros, of", lambda: gpt.fasterprune(0, prunen=4, prunem=2))
    raises(ValueError, "nothing to do", lambda: gpt.fasterprune(0))
    raises(ValueError, "expected a float32 matrix", lambda: gpt.solver.add(X.double()[0], 1))
    raises(ValueError, f"of shape ({X.shape[1]}, {X.shape[2]}) and strides",
           lambda: gpt.solver.add(X.double()[0], 1))
    raises(TypeError, "torch.nn.Linear", lambda: SparseGPT(torch.nn.ReLU()))
    return "errors: typed, with the place of a NaN"


def main():
    devices = sys.argv[1:] or ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        for test in (test_half, test_two_four, test_against_published, test_widths, test_groups,
                     test_memory, test_errors):
            print(f"{device}: {test(device)}", flush=True)


if __name__ == "__main__":
    main()
