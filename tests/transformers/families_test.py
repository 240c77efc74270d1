"""Every family against transformers: what pare saves, transformers loads, with the same perplexity.

python3 -m pytest tests/transformers   (PARE_TOOL names the tool; PARE_SHARED_DIR the models)

Compresses each of the small models to 50 % and 4 bits, saves it dense and packed, verifies and
unpacks the packed one, and stops one run with SIGKILL and resumes it. Skips, and says so, where
torch, transformers or the models are not there.
"""
import math
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("PARE_SHARED_DIR", ROOT / "../shared")).resolve()
TOOL = os.environ.get("PARE_TOOL", str(ROOT / "build/bin/pare"))
MODELS = sorted(path.name for path in (SHARED / "models").glob("tiny-*"))
SEQLEN = 96
PERPLEXITY = re.compile(r"perplexity.* on short: ([0-9.]+)", re.M)

pytestmark = pytest.mark.skipif(not MODELS, reason="no shared models")


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A calibration and an evaluation text, short enough for one core."""
    folder = tmp_path_factory.mktemp("texts")
    for name, source, size in (("calib", "wikitext2.calib.txt", 20000), ("short", "short.txt", 4000)):
        text = (SHARED / "text" / source).read_text(encoding="utf-8")[:size]
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run(*arguments):
    done = subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compress(model, texts, *more):
    return run("compress", SHARED / "models" / model, texts / "calib", "--nsamples", 8, "--seqlen",
               SEQLEN, "--sparsity", 0.5, "--wbits", 4, "--eval", f"short={texts / 'short'}", *more)


def measured(output):
    """The last perplexity that the tool printed."""
    return float(PERPLEXITY.findall(output)[-1])


def by_transformers(folder, text):
    """Perplexity of windows of SEQLEN tokens, nothing in front, in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    # AutoTokenizer takes the class that goes with model_type, which these small models do not have.
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = torch.tensor(tokenizer.encode(text.read_text(encoding="utf-8"),
                                        add_special_tokens=False).ids)
    windows = ids[:len(ids) // SEQLEN * SEQLEN].view(-1, SEQLEN)
    with torch.no_grad():
        logits = model(windows).logits[:, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    return math.exp(loss.item())


@pytest.mark.parametrize("model", MODELS)
def test_what_is_saved_is_loaded_with_the_same_perplexity(model, texts, tmp_path):
    output = compress(model, texts, "--save", tmp_path / "saved", "--save-packed",
                      tmp_path / "packed", "--report", tmp_path / "report.json")
    ours = measured(output)
    assert by_transformers(tmp_path / "saved", texts / "short") == pytest.approx(ours, rel=1e-3)

    verified = run("verify", SHARED / "models" / model, tmp_path / "packed", texts / "calib")
    assert "differ" not in verified, verified
    run("unpack", tmp_path / "packed", tmp_path / "unpacked")
    saved, unpacked = (transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / name, dtype=torch.float32).state_dict() for name in ("saved", "unpacked"))
    assert saved.keys() == unpacked.keys()
    for name, value in saved.items():
        assert torch.equal(value, unpacked[name]), name
    evaluated = measured(run("evaluate", tmp_path / "packed", "--seqlen", SEQLEN, "--eval",
                             f"short={texts / 'short'}"))
    assert evaluated == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize("rotation", ["folded", "full"])
@pytest.mark.parametrize("model", MODELS)
def test_what_is_rotated_is_loaded_with_the_same_perplexity(model, rotation, texts, tmp_path):
    if rotation == "full" and model not in ("tiny-llama", "tiny-gpt2", "tiny-neox"):
        pytest.skip("one model of every way to store weights is enough")
    output = compress(model, texts, "--rotate", rotation, "--save", tmp_path / "saved")
    assert by_transformers(tmp_path / "saved", texts / "short") == pytest.approx(measured(output),
                                                                                 rel=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_a_rotated_model_is_the_same_one(model, texts, tmp_path):
    run("rotate", SHARED / "models" / model, tmp_path / "rotated")
    assert by_transformers(tmp_path / "rotated", texts / "short") == pytest.approx(
        by_transformers(SHARED / "models" / model, texts / "short"), rel=2e-3)


@pytest.mark.parametrize("model", MODELS)
def test_a_killed_run_goes_on_to_the_same_bytes(model, texts, tmp_path):
    options = ("--checkpoint", tmp_path / "run", "--save", tmp_path / "resumed")
    command = [TOOL, "compress", SHARED / "models" / model, texts / "calib", "--nsamples", 8,
               "--seqlen", SEQLEN, "--sparsity", 0.5, "--wbits", 4, *options]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if list((tmp_path / "run").glob("layer-00000*.safetensors")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.0005)
    process.wait()
    run(*command[1:])
    compress(model, texts, "--save", tmp_path / "whole")
    files = sorted(path.name for path in (tmp_path / "whole").glob("*.safetensors"))
    assert files
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()
