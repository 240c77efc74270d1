"""Runs a GGUF file in llama.cpp, which cuts texts into tokens itself.

python3 tests/transformers/llama_cpp_run.py MODEL.gguf TEXT WINDOW LOGITS.npy [LEADING_ID...]

Prints one line of JSON: the ids of the text, and the perplexity of whole windows of them, each by
itself, in double; the logits of the first window go to LOGITS.npy. With WINDOW 0 the ids alone. A
process of its own: torch and llama.cpp bring OpenMP runtimes that do not go together.
"""
import json
import pathlib
import sys

import llama_cpp
import numpy

default_params = llama_cpp.llama_model_default_params


def plain_params():
    """Weights stay as they are in the file: blocks for AMX do not run on every virtual machine."""
    params = default_params()
    params.use_extra_bufts = False
    return params


llama_cpp.llama_cpp.llama_model_default_params = plain_params
path, text, window, logits_file, *leading = sys.argv[1:]
window = int(window)
more = {}
if window == 0:
    more["vocab_only"] = True
else:  # keys and values in float32, as pare has them
    more.update(n_ctx=window, n_batch=window, n_ubatch=window, logits_all=True, type_k=0, type_v=0)
model = llama_cpp.Llama(path, verbose=False, **more)
ids = model.tokenize(pathlib.Path(text).read_bytes(), add_bos=False, special=True)
all_ids = [int(i) for i in leading] + ids
loss = count = 0
for first in range(0, len(all_ids) - window + 1, window or len(all_ids) + 1):
    if window == 0:
        break
    tokens = all_ids[first:first + window]
    model.reset()
    model.eval(tokens)
    logits = model.scores[:window].astype(numpy.float64)
    if first == 0:
        numpy.save(logits_file, logits)
    logits = logits[:-1] - logits[:-1].max(axis=1, keepdims=True)
    chosen = logits[numpy.arange(window - 1), tokens[1:]]
    loss += (numpy.log(numpy.exp(logits).sum(axis=1)) - chosen).sum()
    count += window - 1
print(json.dumps({"ids": ids, "perplexity": float(numpy.exp(loss / count)) if count else None}))
