"""Variants of every family, and tokenizer.model, against transformers.

python3 -m pytest tests/transformers   (PARE_TOOL names the tool; PARE_SHARED_DIR the texts)

Makes small random models with what a config.json of each family may say, some of them in the older
spelling that published checkpoints have, and compares the perplexity that the tool measures with
that of transformers. Skips, and says so, where torch, transformers or the texts are not there.
"""
import copy
import json
import shutil

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import families_test  # noqa: E402
from families_test import SHARED, run  # noqa: E402

pytestmark = pytest.mark.skipif(not families_test.MODELS, reason="no shared models")

COMMON = dict(vocab_size=384, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
              max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None)
LLAMA = dict(COMMON, intermediate_size=70, num_key_value_heads=2)
GEMMA = dict(LLAMA, head_dim=16, sliding_window=8, query_pre_attn_scalar=20)
PHI = dict(LLAMA, rope_parameters=dict(rope_type="default", rope_theta=1e4))
NEOX = dict(COMMON, intermediate_size=100)
OPT = dict(COMMON, ffn_dim=90, word_embed_proj_dim=48, pad_token_id=1)
GPT2 = dict(vocab_size=384, n_embd=48, n_layer=3, n_head=4, n_positions=64, bos_token_id=1,
            eos_token_id=2)
BLOOM = dict(vocab_size=384, hidden_size=48, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=2)
LINEAR = dict(rope_type="linear", factor=2.5, rope_theta=5000.0)
DYNAMIC = dict(rope_type="dynamic", factor=2.5, rope_theta=5000.0)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32, rope_theta=100.0)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=1000.0)
SHORT = [1.0 + 0.05 * i for i in range(6)]
LONG = [1.0 + 0.7 * i for i in range(6)]
LONGROPE = dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG, rope_theta=1e4)
MIXED = ["full_attention", "sliding_attention", "full_attention"]


def rope(kind="default", **more):
    return dict(rope_type=kind, rope_theta=1000.0, **more)


def older(parameters, name="rope_scaling", **more):
    """How config.json said it before transformers 5."""
    scaling = {k: v for k, v in parameters.items() if k not in ("rope_type", "rope_theta")}
    return {"rope_parameters": None, "rope_theta": parameters["rope_theta"],
            name: {"type": parameters["rope_type"], **scaling}, **more}


# Type, what its configuration says, and what is changed in the file afterwards, None: taken out. A
# "seqlen" of its own is no field.
VARIANTS = {
    "llama-biases": ("llama", LLAMA, dict(attention_bias=True, mlp_bias=True), {}),
    "llama-tied": ("llama", LLAMA, dict(tie_word_embeddings=True), {}),
    "llama-head-dim": ("llama", LLAMA, dict(head_dim=20), {}),
    "llama-one-kv-head": ("llama", LLAMA, dict(num_key_value_heads=1), {}),
    "llama-gelu": ("llama", LLAMA, dict(num_key_value_heads=4, hidden_act="gelu_pytorch_tanh",
                                        rms_norm_eps=1e-3), {}),
    "llama-linear": ("llama", LLAMA, dict(rope_parameters=LINEAR), {}),
    "llama-linear-older": ("llama", LLAMA, dict(rope_parameters=LINEAR), older(LINEAR)),
    "llama-dynamic": ("llama", LLAMA, dict(rope_parameters=DYNAMIC, seqlen=90), {}),
    "llama-dynamic-older": ("llama", LLAMA, dict(rope_parameters=DYNAMIC, seqlen=90),
                            older(DYNAMIC)),
    "llama-dynamic-short": ("llama", LLAMA, dict(rope_parameters=DYNAMIC), {}),
    "llama3": ("llama", LLAMA, dict(rope_parameters=LLAMA3), {}),
    "llama3-older": ("llama", LLAMA, dict(rope_parameters=LLAMA3), older(LLAMA3)),
    "llama3-original-beside": ("llama", LLAMA, dict(rope_parameters=LLAMA3,
                                                    original_max_position_embeddings=16), {}),
    "llama-yarn": ("llama", LLAMA, dict(rope_parameters=YARN), {}),
    "llama-yarn-older": ("llama", LLAMA, dict(rope_parameters=YARN), older(YARN)),
    "llama-yarn-mscale": ("llama", LLAMA, dict(rope_parameters=dict(YARN, mscale=0.7,
                                                                    mscale_all_dim=0.3)), {}),
    "llama-yarn-betas": ("llama", LLAMA, dict(rope_parameters=dict(
        YARN, attention_factor=1.2, beta_fast=16.0, beta_slow=2.0)), {}),
    "llama-yarn-not-truncated": ("llama", LLAMA, dict(rope_parameters=dict(YARN, truncate=False)),
                                 {}),
    "llama-longrope": ("llama", LLAMA, dict(rope_parameters=dict(
        LONGROPE, factor=4.0, original_max_position_embeddings=16)), {}),
    "llama-share-ignored": ("llama", LLAMA, dict(rope_parameters=rope(partial_rotary_factor=0.5)),
                            {}),
    "mistral-no-window": ("mistral", LLAMA, dict(sliding_window=None), {}),
    "mistral-window": ("mistral", LLAMA, dict(sliding_window=7, head_dim=14), {}),
    "mistral-sees-itself": ("mistral", LLAMA, dict(sliding_window=1), {}),
    "mistral-yarn": ("mistral", LLAMA, dict(sliding_window=20, rope_parameters=YARN), {}),
    "qwen2-tied": ("qwen2", LLAMA, dict(tie_word_embeddings=True), {}),
    "qwen2-windows": ("qwen2", LLAMA, dict(use_sliding_window=True, sliding_window=6,
                                           max_window_layers=1), {}),
    "qwen2-windows-older": ("qwen2", LLAMA, dict(use_sliding_window=True, sliding_window=6,
                                                 max_window_layers=1), dict(layer_types=None)),
    "qwen2-windows-off": ("qwen2", LLAMA, dict(use_sliding_window=False, sliding_window=6), {}),
    "qwen2-layer-types": ("qwen2", LLAMA, dict(use_sliding_window=True, sliding_window=6,
                                               layer_types=MIXED), {}),
    "qwen3-biases": ("qwen3", LLAMA, dict(attention_bias=True, head_dim=16), {}),
    "qwen3-usual-heads": ("qwen3", LLAMA, {}, {}),
    "qwen3-layer-types": ("qwen3", LLAMA, dict(head_dim=12, use_sliding_window=True,
                                               sliding_window=5, layer_types=MIXED), {}),
    "gemma2-no-caps": ("gemma2", GEMMA, dict(attn_logit_softcapping=None,
                                             final_logit_softcapping=None), {}),
    "gemma2-caps": ("gemma2", GEMMA, dict(attn_logit_softcapping=2.0,
                                          final_logit_softcapping=3.0), {}),
    "gemma2-layer-types": ("gemma2", GEMMA, dict(layer_types=MIXED), {}),
    "gemma2-older": ("gemma2", GEMMA, {}, dict(layer_types=None)),
    "gemma2-untied": ("gemma2", GEMMA, dict(tie_word_embeddings=False, attention_bias=True), {}),
    "gemma3-caps": ("gemma3_text", GEMMA, dict(attn_logit_softcapping=2.0,
                                               final_logit_softcapping=3.0), {}),
    "gemma3-older-pattern": ("gemma3_text", GEMMA, dict(layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"]),
        dict(layer_types=None, sliding_window_pattern=2)),
    "gemma3-linear": ("gemma3_text", GEMMA, dict(layer_types=MIXED, rope_parameters=dict(
        full_attention=LINEAR, sliding_attention=rope())), {}),
    "gemma3-linear-older": ("gemma3_text", GEMMA, dict(layer_types=MIXED, rope_parameters=dict(
        full_attention=LINEAR, sliding_attention=rope())),
        older(LINEAR, rope_local_base_freq=1000.0)),
    "gemma3-full": ("gemma3_text", GEMMA, dict(layer_types=["full_attention"] * 3), {}),
    "phi3": ("phi3", PHI, {}, {}),
    "phi3-all-heads": ("phi3", PHI, dict(num_key_value_heads=4, sliding_window=9), {}),
    "phi3-partial": ("phi3", PHI, dict(rope_parameters=rope(partial_rotary_factor=0.5)), {}),
    "phi3-partial-older": ("phi3", PHI, dict(rope_parameters=rope(partial_rotary_factor=0.5)),
                           dict(rope_parameters=None, rope_theta=1000.0,
                                partial_rotary_factor=0.5)),
    "phi3-tied": ("phi3", PHI, dict(tie_word_embeddings=True, hidden_act="gelu"), {}),
    "phi3-longrope-short": ("phi3", PHI, dict(rope_parameters=LONGROPE, seqlen=30,
                                              original_max_position_embeddings=40), {}),
    "phi3-longrope-long": ("phi3", PHI, dict(rope_parameters=LONGROPE, seqlen=60,
                                             original_max_position_embeddings=40), {}),
    "phi3-longrope-older": ("phi3", PHI, dict(rope_parameters=LONGROPE, seqlen=60,
                                              original_max_position_embeddings=40),
                            older(LONGROPE)),
    "neox-whole-heads": ("gpt_neox", NEOX, dict(rope_parameters=rope(partial_rotary_factor=1.0)),
                         {}),
    "neox-odd-share": ("gpt_neox", NEOX, dict(rope_parameters=rope(partial_rotary_factor=0.25)),
                       {}),
    "neox-older": ("gpt_neox", NEOX, dict(rope_parameters=rope(partial_rotary_factor=0.5)),
                   dict(rope_parameters=None, rotary_emb_base=1000, rotary_pct=0.5)),
    "neox-serial": ("gpt_neox", NEOX, dict(use_parallel_residual=False, attention_bias=False), {}),
    "neox-tied": ("gpt_neox", NEOX, dict(tie_word_embeddings=True, hidden_act="gelu_fast",
                                         layer_norm_eps=1e-3), {}),
    "bloom-three-heads": ("bloom", BLOOM, dict(n_head=3), {}),
    "bloom-six-heads": ("bloom", BLOOM, dict(n_head=6, layer_norm_epsilon=1e-3), {}),
    "bloom-after-norm": ("bloom", BLOOM, dict(apply_residual_connection_post_layernorm=True), {}),
    "bloom-older": ("bloom", BLOOM, {}, dict(hidden_size=None, n_embed=48)),
    "gpt2-scales": ("gpt2", GPT2, dict(scale_attn_weights=False), {}),
    "gpt2-by-layer": ("gpt2", GPT2, dict(scale_attn_by_inverse_layer_idx=True), {}),
    "gpt2-inner": ("gpt2", GPT2, dict(n_inner=70, activation_function="relu"), {}),
    "gpt2-untied": ("gpt2", GPT2, dict(tie_word_embeddings=False,
                                       activation_function="quick_gelu"), {}),
    "gpt2-ignored": ("gpt2", GPT2, {}, dict(head_dim=99, num_key_value_heads=3)),
    "opt-projected": ("opt", OPT, dict(word_embed_proj_dim=30), {}),
    "opt-after": ("opt", OPT, dict(do_layer_norm_before=False, word_embed_proj_dim=20), {}),
    "opt-no-biases": ("opt", OPT, dict(enable_bias=False), {}),
    "opt-not-affine": ("opt", OPT, dict(layer_norm_elementwise_affine=False,
                                        activation_function="gelu"), {}),
    "opt-no-final-norm": ("opt", OPT, dict(_remove_final_layer_norm=True), {}),
    "opt-untied": ("opt", OPT, dict(tie_word_embeddings=False), {}),
    "opt-ignored": ("opt", OPT, {}, dict(head_dim=99, num_key_value_heads=3)),
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "short"
    file.write_text((SHARED / "text/short.txt").read_text(encoding="utf-8")[:4000],
                    encoding="utf-8")
    return file


def measured(folder, seqlen, text):
    return families_test.measured(run("evaluate", folder, "--seqlen", seqlen, "--eval",
                                      f"short={text}"))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant(name, text, tmp_path, monkeypatch):
    kind, base, fields, changes = VARIANTS[name]
    fields = copy.deepcopy(dict(base, **fields))
    seqlen = fields.pop("seqlen", 48)
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter, value in model.named_parameters():
            norm = "norm" in parameter or "ln_" in parameter
            value.copy_(0.2 * torch.randn_like(value) + (1 if norm and value.dim() == 1 else 0))
    model.save_pretrained(tmp_path)
    shutil.copy(SHARED / "models/tiny-llama/tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    monkeypatch.setattr(families_test, "SEQLEN", seqlen)
    expected = families_test.by_transformers(tmp_path, text)
    file = tmp_path / "config.json"
    written = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in written.items() if key not in changes
                                or value is not None}))
    assert measured(tmp_path, seqlen, text) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("rules", [{}, {"legacy": True}, {"add_prefix_space": False},
                                   {"add_bos_token": True, "bos_token": "<s>"}])
def test_a_sentencepiece_model(rules, text, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(SHARED / "models/tiny-llama" / name, tmp_path)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "tokenizer"), model_type="bpe",
        vocab_size=384, byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, minloglevel=2)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", **rules}))
    evaluated = tmp_path / "evaluated"
    evaluated.write_text(" A text.</s>\n With </s>\u00e9\u6f22  1234\n" + text.read_text("utf-8"),
                         encoding="utf-8")
    tokenizer = transformers.LlamaTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor(tokenizer.encode(evaluated.read_text("utf-8"), add_special_tokens=False))
    if "add_bos_token" in rules:
        ids = torch.cat([torch.tensor([1]), ids])
    windows = ids[:len(ids) // 48 * 48].view(-1, 48)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        logits = model(windows).logits[:, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    assert measured(tmp_path, 48, evaluated) == pytest.approx(loss.exp().item(), rel=2e-4)
