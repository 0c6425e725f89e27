#!/usr/bin/env python3
"""Write deterministic LoRA adapters for some of the tiny models, in llama.cpp's format.

usage: make_tiny_adapters.py OUT_DIR [NAME...]     write all (or the named) adapters and print their sha256

Needs what make_tiny_models.py needs. Each matrix gets a pair whose product is about half as large as its own.
"""
import argparse
import hashlib
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

sys.dont_write_bytecode = True
from make_tiny_models import CATALOGUE, build  # noqa: E402
from tiny_weights import Stream  # noqa: E402

EMBEDDING = "token_embd.weight"
# Matrices of the layers that products are made with.
LAYERS = r"blk\.\d+\.(attn_(q|k|v|qkv|output|gate)|ffn_(gate|up|down|gate_up|gate_inp)(_exps|_shexp)?|ssm_(alpha|beta|out))\.weight"
SHARE = 0.5


@dataclass(frozen=True)
class Lora:
    base: str
    rank: int
    alpha: float | None
    wt: T = T.F32
    tensors: str = LAYERS       # a pattern that whole names match
    beside: tuple = ()          # adapters that are applied besides, before this one


LORAS = {
    "tiny-llama-lora": Lora("tiny-llama", 8, 16.0, tensors=LAYERS + r"|output\.weight|token_embd\.weight"),
    # rank 1 has vectors for matrices, and no alpha means a factor of one
    "tiny-llama-lora-second": Lora("tiny-llama", 1, None, T.F16, r".*\.(attn_k|ffn_down)\.weight", beside=("tiny-llama-lora",)),
    "tiny-llama-q4_k_m-lora": Lora("tiny-llama-q4_k_m", 5, 20.0, T.F16, r".*\.attn_[qv]\.weight"),
    "tiny-qwen2-lora": Lora("tiny-qwen2", 32, 8.0, T.Q8_0),
    "tiny-gemma3-lora": Lora("tiny-gemma3", 4, 8.0, T.BF16),
    "tiny-phi3-lora": Lora("tiny-phi3", 12, 6.0, T.F16),
    "tiny-qwen3moe-lora": Lora("tiny-qwen3moe", 6, 12.0, T.F16),
    "tiny-qwen35moe-lora": Lora("tiny-qwen35moe", 4, 4.0),
}


def logical_shape(data, qtype):
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    return (*data.shape[:-1], data.shape[-1] // size * block) if data.dtype == np.uint8 else data.shape


def pair(name, lora, shape, std, key):
    """A and B for a matrix `shape`, rows first; those of the embedding are transposed."""
    *experts, rows, cols = shape if len(shape) > 1 else (1, *shape)
    scale = lora.alpha / lora.rank if lora.alpha else 1.0
    normal = lambda part, *shape: Stream(f"{key}/{name}/{part}").normal(int(np.prod(shape))).reshape(shape)
    up = SHARE / scale / math.sqrt(lora.rank)
    if name == EMBEDDING:
        return normal("a", rows, lora.rank), up * std * normal("b", cols, lora.rank)
    return normal("a", *experts, lora.rank, cols) / math.sqrt(cols), up * normal("b", *experts, rows, lora.rank)


def encoded(values, qtype):
    values = values.astype(np.float32)
    block, _ = gguf.GGML_QUANT_SIZES[qtype]
    qtype = qtype if values.shape[-1] % block == 0 else T.F16
    return (values, T.F32) if qtype == T.F32 else (gguf.quants.quantize(values, qtype), qtype)


def write_adapter(name, path, f32=False):
    lora = LORAS[name]
    model = build(CATALOGUE[lora.base])
    w = gguf.GGUFWriter(path, model.arch)
    w.add_type("adapter")
    w.add_string("adapter.type", "lora")
    if lora.alpha is not None:
        w.add_float32("adapter.lora.alpha", lora.alpha)
    for tensor, (data, qtype) in model.tensors.items():
        if not re.fullmatch(lora.tensors, tensor):
            continue
        std = model.spec.opt.get("emb_std", 1.0)
        for part, values in zip("ab", pair(tensor, lora, logical_shape(data, qtype), std, name)):
            values, own = encoded(values, lora.wt)
            if f32 and own != T.F32:
                values, own = gguf.quants.dequantize(values, own), T.F32
            w.add_tensor(f"{tensor}.lora_{part}", np.ascontiguousarray(values), raw_dtype=own)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("out_dir")
    ap.add_argument("names", nargs="*", choices=[[], *LORAS])
    args = ap.parse_args()
    out = Path(args.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    for name in args.names or LORAS:
        path = out / f"{name}.gguf"
        write_adapter(name, path)
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}  {path.stat().st_size}", flush=True)


if __name__ == "__main__":
    main()
