#!/usr/bin/env python3
"""Write a GGUF of an 8B's shape with random weights, to measure speed with: Q4_K, and Q6_K where Q4_K_M has it.

usage: make_large_model.py VOCABULARY.gguf OUT.gguf

The tokenizer is that of VOCABULARY.gguf. 5 GB; needs only `gguf` and `numpy`.
"""
import argparse

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFReader, GGUFValueType, GGUFWriter

LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD = 32, 4096, 14336, 32, 8, 128
# Distinct blocks of a tensor: as many as no cache holds.
DISTINCT = 65536


def copy_tokenizer(source, writer):
    """Copies the tokenizer's keys; returns the size of the vocabulary."""
    for key, field in source.fields.items():
        if not key.startswith("tokenizer."):
            continue
        if field.types[0] == GGUFValueType.ARRAY:
            text = field.types[1] == GGUFValueType.STRING
            parts = (field.parts[i] for i in field.data)
            writer.add_array(key, [bytes(p).decode() if text else p[0].item() for p in parts])
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    return len(source.fields["tokenizer.ggml.tokens"].data)


def half(x):
    return np.frombuffer(np.float16(x).tobytes(), np.uint8)


def random_blocks(random, rows, cols, kind):
    """Blocks of 256 weights with a standard deviation of 0.8 / sqrt(cols)."""
    n, size = rows * cols // 256, 144 if kind == T.Q4_K else 210
    blocks = random.integers(0, 256, (min(n, DISTINCT), size), dtype=np.uint8)
    deviation = 0.8 / np.sqrt(cols)
    if kind == T.Q4_K:
        # Codes 0 to 15 deviate by 4.6 from 7.5; all scales and minima are 32.
        blocks[:, 0:2], blocks[:, 2:4] = half(deviation / 32 / 4.6), half(deviation / 32 / 4.6 * 7.5)
        blocks[:, 4:12], blocks[:, 12:16] = 0xA0, 0
    else:
        # Codes -32 to 31 deviate by 18.5; all scales are 16.
        blocks[:, 192:208], blocks[:, 208:210] = 16, half(deviation / 16 / 18.5)
    return np.resize(blocks, (n, size)).reshape(rows, -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary")
    parser.add_argument("out")
    args = parser.parse_args()
    random = np.random.default_rng(1)
    writer = GGUFWriter(args.out, "llama")
    n_vocab = copy_tokenizer(GGUFReader(args.vocabulary), writer)
    writer.add_block_count(LAYERS)
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_vocab_size(n_vocab)

    def add(name, rows, cols, kind=T.Q4_K):
        writer.add_tensor(name, random_blocks(random, rows, cols, kind), raw_dtype=kind)

    def add_norm(name):
        writer.add_tensor(name, np.ones(WIDTH, np.float32))

    add("token_embd.weight", n_vocab, WIDTH)
    add_norm("output_norm.weight")
    add("output.weight", n_vocab, WIDTH, T.Q6_K)
    for i in range(LAYERS):
        larger = T.Q6_K if i % 2 else T.Q4_K
        add_norm(f"blk.{i}.attn_norm.weight")
        add(f"blk.{i}.attn_q.weight", HEADS * HEAD, WIDTH)
        add(f"blk.{i}.attn_k.weight", KV_HEADS * HEAD, WIDTH)
        add(f"blk.{i}.attn_v.weight", KV_HEADS * HEAD, WIDTH, larger)
        add(f"blk.{i}.attn_output.weight", WIDTH, HEADS * HEAD)
        add_norm(f"blk.{i}.ffn_norm.weight")
        add(f"blk.{i}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{i}.ffn_up.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{i}.ffn_down.weight", WIDTH, FEED_FORWARD, larger)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
