"""What pare exports, decoded by the programs that the formats are of.

python3 -m pytest tests/transformers/export_test.py   (PARE_TOOL names the tool; PARE_SHARED_DIR the
models)

Each configuration is saved dense and packed, and the packed one exported. compressed-tensors is
loaded by transformers with the package compressed-tensors; GPTQ is decoded here, bit by bit as its
layout says, and loaded by GPTQModel; GGUF is read with the package gguf, and run in llama.cpp by
llama-cpp-python (llama_cpp_run.py). In the checkpoint's type every weight is that of the dense
folder. Skips, and says so, where a package or the models are not there.
"""
import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

numpy = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("PARE_SHARED_DIR", ROOT / "../shared")).resolve()
TOOL = os.environ.get("PARE_TOOL", str(ROOT / "build/bin/pare"))
MODELS = sorted(path.name for path in (SHARED / "models").glob("tiny-*"))
CONFIGURATIONS = {
    "4 bits symmetric": ["--wbits", 4, "--symmetric"],
    "4 bits": ["--wbits", 4],
    "3 bits, act-order": ["--wbits", 3, "--symmetric", "--act-order"],
    "8 bits": ["--wbits", 8, "--symmetric"],
    "2 bits": ["--wbits", 2],
    "6 bits": ["--wbits", 6, "--symmetric"],
    "4 bits, groups of 32": ["--wbits", 4, "--symmetric", "--group-size", 32],
    "2:4 and 4 bits": ["--wbits", 4, "--symmetric", "--prunen", 2, "--prunem", 4],
}
EVERY = [("tiny-llama", c) for c in CONFIGURATIONS] + [
    (m, "4 bits symmetric") for m in MODELS if m != "tiny-llama"]

pytestmark = pytest.mark.skipif(not MODELS, reason="no shared models")


def run(*arguments):
    return subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="session")
def compressed(tmp_path_factory):
    """compressed(model, configuration): the folder with `dense` and `packed`, made once."""
    made = {}
    text = tmp_path_factory.mktemp("text") / "calib"
    text.write_text((SHARED / "text/wikitext2.calib.txt").read_text(encoding="utf-8")[:20000])

    def make(model, *options):
        if (model, options) not in made:
            folder = tmp_path_factory.mktemp("model")
            done = run("compress", SHARED / "models" / model, text, "--nsamples", 8, "--seqlen", 64,
                       *options, "--save", folder / "dense", "--save-packed", folder / "packed")
            assert done.returncode == 0, done.stdout + done.stderr
            made[model, options] = folder
        return made[model, options]

    return make


def exported(folder, form, *options):
    out = folder / form
    if not out.exists():
        done = run("export", folder / "packed", out, "--format", form, *options)
        assert done.returncode == 0, done.stdout + done.stderr
    return out


def exportable(folder, form):
    """Whether the shapes of a model fit; the refusal says so otherwise."""
    done = run("export", folder / "packed", folder / form, "--format", form)
    assert done.returncode == 0 or "multiples of 32" in done.stderr, done.stderr
    return done.returncode == 0


def logits(model):
    ids = torch.randint(0, 300, (2, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids).logits.float()


@pytest.mark.parametrize("model, configuration", EVERY)
def test_transformers_loads_compressed_tensors(compressed, model, configuration):
    pytest.importorskip("compressed_tensors")
    if model == "tiny-gpt2":
        pytest.skip("weights stored as (in, out): refused, see below")
    options = CONFIGURATIONS[configuration]
    folder = compressed(model, *options)
    out = exported(folder, "compressed-tensors")
    weights = json.loads((out / "config.json").read_text())["quantization_config"]["config_groups"]
    assert {g["weights"]["num_bits"] for g in weights.values()} == {options[1]}
    more = {}
    if "--symmetric" not in options:
        more["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
    load = transformers.AutoModelForCausalLM.from_pretrained
    dense = load(folder / "dense", dtype=torch.float16)
    quantized = load(out, dtype=torch.float16, **more)
    given = logits(quantized)  # which decodes the weights
    wanted = dense.state_dict()
    found = quantized.state_dict()
    for name, weight in wanted.items():
        assert torch.equal(found[name], weight), name
    assert torch.equal(given, logits(dense))
    # In float32 products of codes and scales are not rounded to the checkpoint's type.
    dense = load(folder / "dense", dtype=torch.float32)
    quantized = load(out, dtype=torch.float32, **more)
    wanted = logits(dense)
    assert (logits(quantized) - wanted).abs().max() < 0.02 * wanted.std()


def unpacked(words, bits, count):
    """Streams of `bits` along the first side, lowest bits first."""
    words = words.to(torch.int64) & 0xFFFFFFFF
    rows = []
    for i in range(count):
        word, shift = divmod(i * bits, 32)
        value = words[word] >> shift
        if shift + bits > 32:
            value = value | (words[word + 1] << (32 - shift))
        rows.append(value & ((1 << bits) - 1))
    return torch.stack(rows)


def check_gptq(folder, out, transposed=False):
    """Decodes every linear of a GPTQ folder and holds it against the dense one. Returns its schemes."""
    config = json.loads((out / "quantize_config.json").read_text())
    assert config == json.loads((out / "config.json").read_text())["quantization_config"]
    assert config["checkpoint_format"] == "gptq_v2" and config["quant_method"] == "gptq"
    wanted = safetensors.load_file(folder / "dense/model.safetensors")
    found = safetensors.load_file(out / "model.safetensors")
    schemes = {}
    for name, weight in wanted.items():
        module = name.removesuffix(".weight")
        if f"{module}.qweight" not in found:
            assert torch.equal(found[name], weight), name
            continue
        scheme = dict(config)
        for pattern, of_module in config.get("dynamic", {}).items():
            assert pattern.startswith(("+:", "-:"))
            if pattern.startswith("+:") and re.match(pattern[2:], module):
                scheme.update(of_module)
        bits = scheme["bits"]
        schemes[module] = (bits, scheme["group_size"], scheme["sym"])
        scales = found[f"{module}.scales"].T.float()
        groups = found[f"{module}.g_idx"].long()
        inputs, rows = len(groups), len(scales)
        codes = unpacked(found[f"{module}.qweight"], bits, inputs).T
        zeros = unpacked(found[f"{module}.qzeros"].T, bits, rows)
        decoded = ((codes - zeros[:, groups]).float() * scales[:, groups]).to(weight.dtype)
        assert torch.equal(decoded, weight.T if transposed else weight), name
        if scheme["sym"]:
            assert (zeros == 1 << (bits - 1)).all()
    assert schemes
    return schemes


@pytest.mark.parametrize("model, configuration", EVERY)
def test_gptq_holds_every_weight(compressed, model, configuration):
    folder = compressed(model, *CONFIGURATIONS[configuration])
    if model != "tiny-llama" and not exportable(folder, "gptq"):
        pytest.skip("rows or inputs that 32 does not divide: refused")
    out = exported(folder, "gptq", *(["--widen"] if configuration == "6 bits" else []))
    check_gptq(folder, out, transposed=model == "tiny-gpt2")


GPTQMODEL = {name: options for name, options in CONFIGURATIONS.items()
             if name not in ("2 bits", "6 bits")}
GPTQMODEL["2 bits"] = ["--wbits", 2, "--group-size", 32]
GPTQMODEL["a width per linear"] = ["--wbits", 4, "--symmetric", "--target-avg-bits", 3.5, "--scope",
                                   "model", "--kl-windows", 1, "--fused-widths"]


@pytest.mark.parametrize("configuration", GPTQMODEL)
def test_gptqmodel_loads_gptq(compressed, configuration):
    gptqmodel = pytest.importorskip("gptqmodel")
    folder = compressed("tiny-llama", *GPTQMODEL[configuration])
    out = exported(folder, "gptq", *(["--widen"] if configuration == "a width per linear" else []))
    loaded = gptqmodel.GPTQModel.load(str(out), backend=gptqmodel.BACKEND.TORCH, device="cpu",
                                      dtype=torch.float16)
    dense = transformers.AutoModelForCausalLM.from_pretrained(folder / "dense", dtype=torch.float16)
    assert torch.equal(logits(loaded.model), logits(dense))


GGUF = {"tiny-llama": "LLAMA", "tiny-llama3": "LLAMA", "tiny-llama-yarn": "LLAMA",
        "tiny-qwen2": "QWEN2", "tiny-qwen3": "QWEN3", "tiny-gemma2": "GEMMA2",
        "tiny-gemma3": "GEMMA3", "tiny-phi3": "PHI3", "tiny-gpt2": "GPT2", "tiny-neox": "GPTNEOX",
        "tiny-neox-serial": "GPTNEOX", "tiny-bloom": "BLOOM"}
GGUF_KINDS = {"4 bits symmetric": "Q4_0", "4 bits": "Q5_0", "3 bits, act-order": "Q4_0",
              "8 bits": "Q8_0", "2 bits": "Q4_0", "6 bits": "Q8_0",
              "4 bits, groups of 32": "Q4_0", "2:4 and 4 bits": "Q4_0"}


def in_order_of_gguf(model, name, weight, config):
    """Rows as llama.cpp has them: LLaMA's heads interleaved, q, k and v one after the other."""
    if model.startswith("tiny-llama") and (".q_proj." in name or ".k_proj." in name):
        heads = config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
        return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weight.shape)
    if "query_key_value" in name:
        heads = config.get("num_attention_heads", config.get("n_head"))
        return weight.unflatten(0, (heads, 3, -1)).transpose(0, 1).reshape(weight.shape)
    if model.startswith("tiny-gemma") and name.endswith("norm.weight"):
        return weight.float() + 1
    if model == "tiny-gpt2" and weight.dim() == 2 and ".h." in name:
        return weight.T
    return weight


@pytest.mark.parametrize("model, configuration", [
    (m, c) for m, c in EVERY if m in GGUF])
def test_gguf_holds_every_weight(compressed, model, configuration):
    gguf = pytest.importorskip("gguf")
    folder = compressed(model, *CONFIGURATIONS[configuration])
    reader = gguf.GGUFReader(exported(folder, "gguf") / "model.gguf")
    config = json.loads((folder / "dense/config.json").read_text())
    arch = gguf.MODEL_ARCH[GGUF[model]]
    assert reader.get_field("general.architecture").contents() == gguf.MODEL_ARCH_NAMES[arch]
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    names = gguf.get_tensor_name_map(arch, layers)
    tensors = {t.name: t for t in reader.tensors}
    wanted = safetensors.load_file(folder / "dense/model.safetensors")
    kinds = set()
    for name, weight in wanted.items():
        short = name.removeprefix("transformer.")  # some names are in the package without it
        tensor = tensors.pop(names.get_name(name, try_suffixes=(".weight", ".bias")) or
                             names.get_name(short, try_suffixes=(".weight", ".bias")))
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        weight = in_order_of_gguf(model, name, weight, config)
        assert torch.equal(values.reshape(weight.shape).to(weight.dtype), weight), name
        if tensor.name.startswith("blk.") and weight.dim() == 2:
            kinds.add(tensor.tensor_type.name)
    assert not set(tensors) - {"rope_freqs.weight", "output.weight"}
    assert GGUF_KINDS[configuration] in kinds and kinds <= {GGUF_KINDS[configuration], "F16"}
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    tokenizer = json.loads((folder / "dense/tokenizer.json").read_text())
    assert all(tokens[i] == token for token, i in tokenizer["model"]["vocab"].items())
    assert reader.get_field("tokenizer.ggml.pre").contents() == "gpt-2"


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """A LLaMA with 256 and 512 inputs, which the large blocks of GGUF need."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=384, hidden_size=256, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2,
                                      intermediate_size=512, max_position_embeddings=128,
                                      tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).half().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (SHARED / "models/tiny-llama" / name).exists():
            (folder / name).write_bytes((SHARED / "models/tiny-llama" / name).read_bytes())
    return folder


@pytest.mark.parametrize("bits, options, kind", [
    (2, [], "Q2_K"), (2, ["--symmetric"], "Q2_K"), (3, ["--symmetric"], "Q3_K"), (3, [], "Q4_0"),
    (4, ["--symmetric"], "Q4_0"), (4, [], "Q4_K"), (4, ["--group-size", 256], "Q4_K"),
    (4, ["--group-size", 64], "Q4_1"), (5, ["--symmetric"], "Q5_0"), (5, [], "Q5_K"),
    (5, ["--group-size", 32], "Q5_1"), (6, ["--symmetric"], "Q6_K"), (6, [], "Q8_0"),
    (8, ["--symmetric", "--embeddings", "q8_0"], "Q8_0")])
def test_the_smallest_blocks_of_gguf_hold_every_weight(wide, calibration, bits, options, kind,
                                                       tmp_path):
    gguf = pytest.importorskip("gguf")
    out = tmp_path / "gguf"
    done = run("compress", wide, calibration, "--nsamples", 4, "--seqlen", 64, "--wbits", bits,
               *options, "--save", tmp_path / "dense", "--save-as", f"gguf={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"note: 14 linears as {kind}\n" in done.stdout
    wanted = safetensors.load_file(tmp_path / "dense/model.safetensors")
    config = json.loads((wide / "config.json").read_text())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    tensors = {t.name: t for t in gguf.GGUFReader(out / "model.gguf").tensors}
    for name, weight in wanted.items():
        tensor = tensors[names.get_name(name, try_suffixes=(".weight",))]
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        weight = in_order_of_gguf("tiny-llama", name, weight, config)
        if tensor.name == "token_embd.weight" and "--embeddings" in options:
            assert tensor.tensor_type.name == "Q8_0"
            assert (values - weight.float()).abs().max() < weight.float().abs().max() / 200
            continue
        assert torch.equal(values.reshape(weight.shape).to(weight.dtype), weight), name
        if ".mlp." in name or ".self_attn." in name:
            assert tensor.tensor_type.name == kind, name
    text = tmp_path / "text"
    text.write_text((SHARED / "text/short.txt").read_text(encoding="utf-8")[:600])
    blocks = in_llama_cpp(out / "model.gguf", text, 64)["logits"]
    plain = in_llama_cpp(with_plain_weights(out / "model.gguf", tmp_path / "plain.gguf"), text, 64)
    assert (blocks - plain["logits"]).abs().max() < 0.1 * plain["logits"].std()


def in_llama_cpp(path, text, window, *leading):
    """What llama_cpp_run.py says of a file and a text, and the logits of the first window."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    logits_file = path.parent / "logits.npy"
    done = subprocess.run(
        [sys.executable, ROOT / "tests/transformers/llama_cpp_run.py", path, text, str(window),
         logits_file, *map(str, leading)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    if window > 0:
        result["logits"] = torch.from_numpy(numpy.load(logits_file))
    return result


def ids_of(folder, text):
    """By tokenizer.json itself: classes of transformers have rules of their own for some."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole = text.read_bytes().decode("utf-8")
    return tokenizer.encode(whole, add_special_tokens=False).ids


def with_plain_weights(path, out):
    """The same file with every weight in float32, in which llama.cpp does not round activations."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.get_field("general.architecture").contents())
    for name, field in reader.fields.items():
        if name == "general.architecture" or name.startswith("GGUF."):
            continue
        kind = field.types[0]
        more = {"sub_type": field.types[-1]} if kind == gguf.GGUFValueType.ARRAY else {}
        writer.add_key_value(name, field.contents(), kind, **more)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, numpy.ascontiguousarray(values, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.mark.parametrize("model", sorted(GGUF))
def test_llama_cpp_runs_gguf(compressed, model, tmp_path):
    folder = compressed(model, *CONFIGURATIONS["8 bits"])
    path = exported(folder, "gguf") / "model.gguf"
    text = tmp_path / "text"
    text.write_text((SHARED / "text/short.txt").read_text(encoding="utf-8")[:2000])
    window = 64
    given = in_llama_cpp(with_plain_weights(path, tmp_path / "plain.gguf"), text, window)
    ids = ids_of(folder / "dense", text)
    assert given["ids"] == ids
    dense = transformers.AutoModelForCausalLM.from_pretrained(folder / "dense", dtype=torch.float32)
    with torch.no_grad():
        wanted = dense(torch.tensor([ids[:window]])).logits[0].double()
    off = (given["logits"] - wanted).abs().max() / wanted.std()
    blocks = in_llama_cpp(path, text, window)
    rounded = (blocks["logits"] - wanted).abs().max() / wanted.std()
    print(f"{model}: logits differ by {off:.2g} of their spread, in blocks {rounded:.2g}")
    assert off < 0.01  # gelu is a table of float16 in llama.cpp
    assert rounded < 0.1  # and inputs of blocks are rounded to 8 bits
    assert blocks["ids"] == ids


@pytest.mark.parametrize("name", sorted(path.name for path in (SHARED / "tokenizers").glob("*/")))
def test_llama_cpp_cuts_texts_alike(name, calibration, tmp_path):
    """Each kind of tokenizer is written so that llama.cpp gives its ids, or is refused."""
    source = SHARED / "tokenizers" / name
    tokenizer = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    config = transformers.LlamaConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=1,
                                      num_attention_heads=2, intermediate_size=64,
                                      tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).half().save_pretrained(tmp_path / "model")
    for file in source.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    out = tmp_path / "gguf"
    done = run("compress", tmp_path / "model", calibration, "--nsamples", 1, "--seqlen", 16, "--wbits", 8,
               "--symmetric", "--save-as", f"gguf={out}")
    if name in ("llama2", "llama2-metaspace"):
        assert done.returncode != 0 and "falls back to bytes" in done.stderr, done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("hard.txt", "short.txt"):
        found = in_llama_cpp(out / "model.gguf", SHARED / "text" / text, 0)["ids"]
        assert found == ids_of(source, SHARED / "text" / text), text


def test_gguf_refuses_by_name(compressed):
    for model, reason in {"tiny-opt-gelu": "llama.cpp has no opt",
                          "tiny-llama-dynamic": "stretched"}.items():
        done = run("export", compressed(model, "--wbits", 4, "--symmetric") / "packed", "never",
                   "--format", "gguf")
        assert done.returncode != 0 and reason in done.stderr


def test_refusals_come_all_at_once(compressed):
    done = run("export", compressed("tiny-gpt2", "--wbits", 4, "--symmetric") / "packed", "never",
               "--format", "compressed-tensors")
    assert done.returncode != 0 and "12 linears, the first" in done.stderr
    assert "(in, out)" in done.stderr and "gptq" in done.stderr
    folder = compressed("tiny-llama", "--wbits", 4, "--symmetric", "--target-avg-bits", 3.5,
                        "--bit-method", "budget")
    done = run("export", folder / "packed", "never", "--format", "compressed-tensors")
    assert done.returncode != 0 and "--widen" in done.stderr


def test_rows_of_several_widths_are_widened(compressed):
    pytest.importorskip("compressed_tensors")
    folder = compressed("tiny-llama", "--wbits", 4, "--symmetric", "--target-avg-bits", 3.5,
                        "--bit-method", "budget")
    out = exported(folder, "compressed-tensors", "--widen")
    load = transformers.AutoModelForCausalLM.from_pretrained
    dense, quantized = load(folder / "dense", dtype=torch.float16), load(out, dtype=torch.float16)
    assert torch.equal(logits(quantized), logits(dense))


def test_linears_that_are_loaded_as_one_have_one_width(compressed):
    """Chosen so by a plan, or stored so afterwards."""
    pytest.importorskip("compressed_tensors")
    plan = ["--wbits", 4, "--symmetric", "--target-avg-bits", 4.5, "--scope", "model",
            "--kl-windows", 1]
    for folder, options in ((compressed("tiny-llama", *plan, "--fused-widths"), []),
                            (compressed("tiny-llama", *plan), ["--widen", "--fused-widths"])):
        out = exported(folder, "compressed-tensors", *options)
        config = json.loads((out / "config.json").read_text())["quantization_config"]
        bits = {target.removeprefix("re:(.*[.])?").removesuffix("$").replace("[.]", "."):
                group["weights"]["num_bits"]
                for group in config["config_groups"].values() for target in group["targets"]}
        schemes = check_gptq(folder, exported(folder, "gptq", "--widen", *options[1:]))
        assert len(set(bits.values())) > 1 or options
        for layer in range(3):
            for one in (["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
                        ["mlp.gate_proj", "mlp.up_proj"]):
                names = [f"model.layers.{layer}.{name}" for name in one]
                assert len({bits[name] for name in names}) == 1, bits
                assert len({schemes[name] for name in names}) == 1, schemes
        load = transformers.AutoModelForCausalLM.from_pretrained
        dense, quantized = load(folder / "dense", dtype=torch.float16), load(out, dtype=torch.float16)
        assert torch.equal(logits(quantized), logits(dense))
    done = run("export", folder / "packed", "never", "--format", "gguf", "--fused-widths")
    assert done.returncode != 0 and "leave it out" in done.stderr


def test_rotations_are_exported_where_they_are_folded_into_weights(compressed):
    pytest.importorskip("compressed_tensors")
    done = run("export", compressed("tiny-llama", "--wbits", 4, "--rotate", "full") / "packed",
               "never", "--format", "gptq")
    assert done.returncode != 0 and "write --rotate folded" in done.stderr, done.stderr
    folder = compressed("tiny-llama", "--wbits", 4, "--symmetric", "--rotate", "folded")
    out = exported(folder, "compressed-tensors")
    load = transformers.AutoModelForCausalLM.from_pretrained
    dense, quantized = load(folder / "dense", dtype=torch.float16), load(out, dtype=torch.float16)
    assert torch.equal(logits(quantized), logits(dense))


@pytest.fixture(scope="session")
def bfloat16(tmp_path_factory):
    """tiny-llama as most checkpoints are stored."""
    folder = tmp_path_factory.mktemp("bfloat16")
    source = SHARED / "models/tiny-llama"
    weights = safetensors.load_file(source / "model.safetensors")
    safetensors.save_file({name: weight.bfloat16() for name, weight in weights.items()},
                          folder / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = "bfloat16"
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (source / name).exists():
            (folder / name).write_bytes((source / name).read_bytes())
    return folder


@pytest.fixture(scope="session")
def calibration(tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "calib"
    text.write_text((SHARED / "text/wikitext2.calib.txt").read_text(encoding="utf-8")[:20000])
    return text


@pytest.mark.parametrize("options", [["--wbits", 4, "--symmetric", "--group-size", 32],
                                     ["--wbits", 3, "--clip-search"],
                                     ["--wbits", 8, "--symmetric", "--prunen", 2, "--prunem", 4]])
def test_grids_are_fitted_to_bfloat16(bfloat16, calibration, options, tmp_path):
    """What is saved in each format is what was measured: no scale is rounded a second time."""
    pytest.importorskip("compressed_tensors")
    done = run("compress", bfloat16, calibration, "--nsamples", 8, "--seqlen", 64, *options,
               "--save", tmp_path / "dense", "--save-as", f"compressed-tensors={tmp_path / 'ct'}",
               "--save-as", f"gptq={tmp_path / 'gptq'}")
    assert done.returncode == 0, done.stdout + done.stderr
    scales = {name: tensor for name, tensor in
              safetensors.load_file(tmp_path / "ct/model.safetensors").items()
              if name.endswith("weight_scale")}
    assert scales and all(scale.dtype == torch.bfloat16 for scale in scales.values())
    for name, scale in safetensors.load_file(tmp_path / "gptq/model.safetensors").items():
        if name.endswith(".scales"):
            same = scales[name.removesuffix("scales") + "weight_scale"]
            assert torch.equal(scale.T.float(), same.float()), name
    more = {}
    if "--symmetric" not in options:
        more["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
    load = transformers.AutoModelForCausalLM.from_pretrained
    dense = load(tmp_path / "dense", dtype=torch.bfloat16)
    quantized = load(tmp_path / "ct", dtype=torch.bfloat16, **more)
    wanted = logits(dense)
    assert torch.equal(logits(quantized), wanted)
    for name, weight in dense.state_dict().items():
        assert torch.equal(quantized.state_dict()[name], weight), name


def test_save_as_refuses_before_calibration(bfloat16, calibration, tmp_path):
    done = run("compress", bfloat16, calibration, "--nsamples", 8, "--seqlen", 64, "--wbits", 4,
               "--group-size", 28, "--save-as", f"compressed-tensors={tmp_path / 'ct'}")
    assert done.returncode != 0 and "groups of 28 do not divide" in done.stderr, done.stderr
    assert "calibration:" not in done.stdout and not (tmp_path / "ct").exists()


def test_save_as_goes_on_after_a_stop(bfloat16, calibration, tmp_path):
    command = ["compress", bfloat16, calibration, "--nsamples", 8, "--seqlen", 64, "--wbits", 4,
               "--symmetric", "--checkpoint", tmp_path / "run",
               "--save-as", f"gptq={tmp_path / 'gptq'}"]
    for _ in range(2):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "gptq/quantize_config.json").exists()
    assert "going on in" in done.stdout


def perplexity(model, ids, seqlen):
    """Of whole windows, a window at a time, in double."""
    loss = count = 0
    with torch.no_grad():
        for window in ids[:len(ids) // seqlen * seqlen].view(-1, 1, seqlen):
            given = model(window).logits[0, :-1].double()
            loss += torch.nn.functional.cross_entropy(given, window[0, 1:], reduction="sum").item()
            count += seqlen - 1
    return math.exp(loss / count)


REAL = os.environ.get("PARE_SMOLLM2")


@pytest.mark.parametrize("model, seqlen", [("opt-tiny", 128), ("smollm2", 512)])
def test_perplexity_is_the_one_that_pare_measures(model, seqlen, tmp_path):
    """PARE_SMOLLM2 names the folder that shared/tools/smollm2.sh has made."""
    pytest.importorskip("compressed_tensors")
    if model == "smollm2" and not REAL:
        pytest.skip("PARE_SMOLLM2 is not set")
    source = pathlib.Path(REAL) if model == "smollm2" else SHARED / "models" / model
    text = SHARED / "text/short.txt"
    out, report = tmp_path / "ct", tmp_path / "report.json"
    done = run("compress", source, SHARED / "text/wikitext2.calib.txt", "--nsamples", 16,
               "--seqlen", seqlen, "--wbits", 4, "--symmetric", "--group-size", 64,
               "--eval", f"short={text}", "--report", report,
               "--save-packed", tmp_path / "packed", "--save-as", f"compressed-tensors={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run("evaluate", tmp_path / "packed", "--seqlen", seqlen, "--eval", f"short={text}",
               "--report", tmp_path / "evaluated.json")
    assert done.returncode == 0, done.stdout + done.stderr
    evaluated = json.loads((tmp_path / "evaluated.json").read_text())
    pare = evaluated["perplexity"]["short"]
    measured = json.loads(report.read_text())["perplexity"]["compressed"]["short"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    ids = torch.tensor(evaluated["config"]["leading_ids"] + ids)
    load = transformers.AutoModelForCausalLM.from_pretrained
    found = perplexity(load(out, dtype=torch.float32), ids, seqlen)
    print(f"{model}: pare {pare:.6f} (when compressed {measured:.6f}), transformers {found:.6f}")
    assert abs(measured - pare) < 1e-4 * pare
    assert abs(found - pare) < 1e-4 * pare


@pytest.mark.parametrize("model, seqlen, options", [
    ("tiny-llama", 64, ["--wbits", 4, "--symmetric", "--group-size", 32]),
    ("smollm2", 512, ["--wbits", 4, "--symmetric", "--group-size", 32]),
    ("smollm2", 512, ["--wbits", 4, "--symmetric", "--group-size", 64]),
    ("smollm2", 512, ["--wbits", 8, "--symmetric"])])
def test_perplexity_of_llama_cpp(model, seqlen, options, tmp_path):
    """llama.cpp cuts the text itself; it rounds inputs of blocks to 8 bits, which float32 shows."""
    if model == "smollm2" and not REAL:
        pytest.skip("PARE_SMOLLM2 is not set")
    source = pathlib.Path(REAL) if model == "smollm2" else SHARED / "models" / model
    text, report = SHARED / "text/short.txt", tmp_path / "report.json"
    done = run("compress", source, SHARED / "text/wikitext2.calib.txt", "--nsamples", 16,
               "--seqlen", seqlen, *options, "--save-packed", tmp_path / "packed",
               "--save-as", f"gguf={tmp_path / 'gguf'}")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run("evaluate", tmp_path / "packed", "--seqlen", seqlen, "--eval", f"short={text}",
               "--report", report)
    assert done.returncode == 0, done.stdout + done.stderr
    evaluated = json.loads(report.read_text())
    pare, leading = evaluated["perplexity"]["short"], evaluated["config"]["leading_ids"]
    path = tmp_path / "gguf/model.gguf"
    found = in_llama_cpp(path, text, seqlen, *leading)
    assert found["ids"] == ids_of(source, text)
    plain = with_plain_weights(path, tmp_path / "plain.gguf")
    exact = in_llama_cpp(plain, text, seqlen, *leading)
    print(f"{model} {options}: pare {pare:.4f}, llama.cpp {found['perplexity']:.4f}, with weights "
          f"in float32 {exact['perplexity']:.4f}")
    assert abs(found["perplexity"] - pare) < 0.005 * pare
    assert abs(exact["perplexity"] - pare) < 1e-4 * pare
