#!/usr/bin/env python3
"""Compute the reference answers of tiny models with llama.cpp: logits, best tokens, greedy text; or embeddings.

usage: make_references.py MODELS_DIR OUT_DIR NAME...     read MODELS_DIR/NAME.gguf, write OUT_DIR/NAME.json

Needs `llama-cpp-python` (0.3.36), `gguf` (0.19) and `numpy`. llama.cpp runs on the weights dequantised to F32, since its
CPU backend otherwise rounds activations to the weights' type, with an F32 cache, no flash attention and one thread. Prompts
are random; the first one is taken whose best tokens all lead by at least 0.02. The answer of an adapter is that of its model
with it (and those that it stands beside) applied.

llama.cpp reads GELU from a table of half floats, which moves logits by up to 0.01: such files get a wider `tolerance` and
prompts whose best tokens lead by more.
"""
import argparse
import ctypes
import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import llama_cpp as llama

sys.dont_write_bytecode = True
from make_tiny_adapters import LORAS, write_adapter  # noqa: E402
from make_tiny_models import CATALOGUE, write_models  # noqa: E402
from tiny_weights import Stream  # noqa: E402

N_PROMPT, N_GREEDY, N_CTX = 40, 16, 512
# Tokens of the texts that models embed.
N_TEXTS = (29, 75)
GELU = {"codeshell", "falcon", "gemma", "gpt2", "gptneox", "phi2", "starcoder", "bloom", "mpt", "gemma3", "gemma3n", "gemma4", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"}
# Largest difference of a logit and smallest margin where llama.cpp's own GELU is not exact.
GELU_TOLERANCE, GELU_MARGIN, MARGIN = 0.02, 0.05, 0.02
# The same of an embedding's number.
GELU_EMBEDDING_TOLERANCE = 0.0005


class Reference:
    """One sequence in llama.cpp."""

    def __init__(self, path, embeddings=False, adapters=()):
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp cannot load {path}"
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = N_CTX
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = llama.GGML_TYPE_F32
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.embeddings = embeddings
        self.context = llama.llama_init_from_model(self.model, params)
        loaded = [llama.llama_adapter_lora_init(self.model, str(adapter).encode()) for adapter in adapters]
        assert all(loaded), f"llama.cpp cannot load {adapters}"
        handles = (llama.llama_adapter_lora_p_ctypes * len(loaded))(*loaded)
        scales = (ctypes.c_float * len(loaded))(*[1.0] * len(loaded))
        assert llama.llama_set_adapters_lora(self.context, handles, len(loaded), scales) == 0
        self.n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))

    def clear(self):
        memory = llama.llama_get_memory(self.context)
        if memory:      # encoders have none
            llama.llama_memory_clear(memory, True)

    def decode(self, tokens, start):
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, start + i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert llama.llama_decode(self.context, batch) == 0
        llama.llama_batch_free(batch)

    def embed(self, tokens):
        """The pooled vector of a text, of length 1."""
        self.decode(tokens, 0)
        n = llama.llama_model_n_embd(self.model)
        row = llama.llama_get_embeddings_seq(self.context, 0)
        vector = np.ctypeslib.as_array(ctypes.cast(row, ctypes.POINTER(ctypes.c_float)), (n,)).astype(np.float64)
        return vector / np.linalg.norm(vector)

    def run(self, tokens, start):
        """Logits of every token, `[tokens, vocabulary]`."""
        self.decode(tokens, start)
        rows = llama.llama_get_logits(self.context)
        shape = (len(tokens), self.n_vocab)
        return np.ctypeslib.as_array(ctypes.cast(rows, ctypes.POINTER(ctypes.c_float)), shape).copy()


def margins(rows):
    best = np.sort(rows, axis=1)[:, -2:]
    return best[:, 1] - best[:, 0]


def digits(values, n):
    return [float(f"{v:.{n}g}") for v in values]


def answer(reference, tokens):
    reference.clear()
    prompt = reference.run(tokens, 0)
    row, greedy = prompt[-1:], []
    greedy_rows = []
    for i in range(N_GREEDY):
        greedy.append(int(row.argmax()))
        greedy_rows.append(row[0])
        row = reference.run(greedy[-1:], len(tokens) + i)
    return prompt, greedy, margins(np.array(greedy_rows))


def random_tokens(spec, what, n):
    return [int(t) for t in Stream(f"{spec.name}/{what}").uniform(n, 0, spec.vocab)]


def embeddings(spec, folder):
    reference = Reference(Path(folder) / f"{spec.name}.gguf", embeddings=True)
    texts = []
    for i, n in enumerate(N_TEXTS):
        tokens = random_tokens(spec, f"text/{i}", n)
        reference.clear()
        texts.append(dict(tokens=tokens, embedding=digits(reference.embed(tokens), 6)))
    return texts


def readable(spec):
    """The same weights with names and in a layout that llama.cpp reads in this architecture."""
    opt = {k: v for k, v in spec.opt.items() if k != "ollama"}
    if spec.arch == "llama" and "moe" in opt:
        opt["moe"] = {k: v for k, v in opt["moe"].items() if k != "layout"}
    return replace(spec, opt=opt)


def sha256(models, name):
    return hashlib.sha256((Path(models) / f"{name}.gguf").read_bytes()).hexdigest()


def describe(name, models, folder):
    lora = LORAS.get(name)
    base = lora.base if lora else name
    spec = CATALOGUE[base]
    inexact = spec.arch in GELU
    write_models([readable(spec)], folder, f32=True)
    result = dict(name=name, arch=spec.arch, type=spec.wt.name, sha256=sha256(models, base), n_ctx=N_CTX)
    adapters = []
    if lora:
        names = [*lora.beside, name]
        adapters = [Path(folder) / f"{adapter}.gguf" for adapter in names]
        for adapter, path in zip(names, adapters):
            write_adapter(adapter, path, f32=True)
        result |= dict(model=base, adapters=[dict(name=adapter, sha256=sha256(models, adapter)) for adapter in names])
    if "pooling" in spec.opt or "pooling_type" in spec.kv:
        if inexact:
            result["tolerance"] = GELU_EMBEDDING_TOLERANCE
        return result | dict(texts=embeddings(spec, folder))
    reference = Reference(Path(folder) / f"{base}.gguf", adapters=adapters)
    for attempt in range(1000):
        tokens = random_tokens(spec, f"prompt/{attempt}", N_PROMPT)
        prompt, greedy, greedy_margin = answer(reference, tokens)
        least = min(margins(prompt).min(), greedy_margin.min())
        if least >= (GELU_MARGIN if inexact else MARGIN):
            break
    else:
        raise SystemExit(f"{name}: no prompt has clear answers")
    shown = (0, N_PROMPT // 2, N_PROMPT - 1)
    if inexact:
        result["tolerance"] = GELU_TOLERANCE
    return result | dict(tokens=tokens, argmax=[int(i) for i in prompt.argmax(axis=1)], margin=digits(margins(prompt), 3),
                         logits={str(i): digits(prompt[i], 6) for i in shown}, greedy=greedy, greedy_margin=digits(greedy_margin, 3))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("models_dir")
    ap.add_argument("out_dir")
    ap.add_argument("names", nargs="+", choices=[*CATALOGUE, *LORAS])
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names:
            result = describe(name, args.models_dir, folder)
            text = json.dumps(result, separators=(",", ":"))
            (Path(args.out_dir) / f"{name}.json").write_text(text)
            if "logits" in result:
                print(f"{name}: logits' standard deviation {np.std(list(result['logits'].values())):.2f}", flush=True)


if __name__ == "__main__":
    main()
