#!/usr/bin/env python3
"""llama.cpp's CPU backend, to compare with in the same run as the benches `peer`, `tokenizer` and `embed`.

usage: llama_cpp_peer.py speed MODEL.gguf [--prompt 256] [--decode 64] [--runs 3] [--threads 2]
       llama_cpp_peer.py tokenize MODEL.gguf TEXTFILE [--runs 5]
       llama_cpp_peer.py embed MODEL.gguf [--length 16] [--texts 256] [--runs 5] [--threads 2]

`scripts/peers.sh` installs what it needs. Prints one JSON object of medians.
"""
import argparse
import ctypes
import json
import statistics
import time

import llama_cpp as ll


def load(path, vocab_only):
    params = ll.llama_model_default_params()
    params.n_gpu_layers = 0
    params.vocab_only = vocab_only
    model = ll.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise SystemExit(f"cannot load {path}")
    return model


def speed(a):
    """A prompt in batches of 512, then single tokens of fixed ids: nothing is sampled, as in llama-bench."""
    start = time.perf_counter()
    model = load(a.model, False)
    params = ll.llama_context_default_params()
    params.n_ctx = a.prompt + a.decode + 64
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = a.threads
    context = ll.llama_init_from_model(model, params)
    load_ms = (time.perf_counter() - start) * 1e3
    n_vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))

    def step(ids):
        # The batch points into it, so it has to live until the call returns.
        tokens = (ll.llama_token * len(ids))(*ids)
        if ll.llama_decode(context, ll.llama_batch_get_one(tokens, len(ids))) != 0:
            raise SystemExit("llama_decode failed")

    prompt = [(17 * i + 5) % n_vocab for i in range(a.prompt)]
    prefill, decode = [], []
    for _ in range(a.runs + 1):
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        start = time.perf_counter()
        for i in range(0, a.prompt, 512):
            step(prompt[i:i + 512])
        middle = time.perf_counter()
        for i in range(a.decode):
            step([(31 * i + 7) % n_vocab])
        prefill.append(a.prompt / (middle - start))
        decode.append(a.decode / (time.perf_counter() - middle))
    # The first run warms up.
    return {"load_ms": round(load_ms), "prefill_tps": statistics.median(prefill[1:]),
            "decode_tps": statistics.median(decode[1:])}


def tokenize(a):
    start = time.perf_counter()
    vocab = ll.llama_model_get_vocab(load(a.model, True))
    load_ms = (time.perf_counter() - start) * 1e3
    text = open(a.text, "rb").read()
    ids = (ll.llama_token * (len(text) + 16))()
    times = []
    for _ in range(a.runs):
        start = time.perf_counter()
        n = ll.llama_tokenize(vocab, text, len(text), ids, len(ids), True, True)
        times.append(time.perf_counter() - start)
        if n < 0:
            raise SystemExit("llama_tokenize failed")
    return {"load_ms": round(load_ms), "encode_mb_s": len(text) / 1e6 / statistics.median(times), "tokens": n}


def embed(a):
    """Texts of one length, as many in a step as fit 512 tokens and 32 sequences (more were slower)."""
    start = time.perf_counter()
    model = load(a.model, False)
    n_seq = max(1, min(32, 512 // a.length))
    params = ll.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.n_seq_max = n_seq
    params.n_threads = params.n_threads_batch = a.threads
    params.embeddings = True
    context = ll.llama_init_from_model(model, params)
    load_ms = (time.perf_counter() - start) * 1e3
    n_vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    batch = ll.llama_batch_init(512, 0, 1)

    def step(n_texts):
        batch.n_tokens = n_texts * a.length
        for i in range(batch.n_tokens):
            text, place = divmod(i, a.length)
            batch.token[i] = (17 * place + 5 + text) % n_vocab
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = place, 1, text, 1
        start = time.perf_counter()
        if ll.llama_encode(context, batch) != 0:
            raise SystemExit("llama_encode failed")
        ll.llama_get_embeddings_seq(context, 0)
        return time.perf_counter() - start

    times = [sum(step(min(n_seq, a.texts - done)) for done in range(0, a.texts, n_seq)) for _ in range(a.runs + 1)]
    # The first run warms up.
    return {"load_ms": round(load_ms), "texts_per_s": a.texts / statistics.median(times[1:])}


def main():
    parser = argparse.ArgumentParser()
    modes = parser.add_subparsers(required=True)
    mode = modes.add_parser("speed")
    mode.set_defaults(run=speed)
    mode.add_argument("model")
    for name, default in [("--prompt", 256), ("--decode", 64), ("--runs", 3), ("--threads", 2)]:
        mode.add_argument(name, type=int, default=default)
    mode = modes.add_parser("tokenize")
    mode.set_defaults(run=tokenize)
    mode.add_argument("model")
    mode.add_argument("text")
    mode.add_argument("--runs", type=int, default=5)
    mode = modes.add_parser("embed")
    mode.set_defaults(run=embed)
    mode.add_argument("model")
    for name, default in [("--length", 16), ("--texts", 256), ("--runs", 5), ("--threads", 2)]:
        mode.add_argument(name, type=int, default=default)
    a = parser.parse_args()
    silence = ll.llama_log_callback(lambda level, text, data: None)
    ll.llama_log_set(silence, ctypes.c_void_p(0))
    ll.llama_backend_init()
    print(json.dumps({"peer": f"llama-cpp-python {ll.__version__}", **a.run(a)}))


main()
