#!/usr/bin/env python3
"""Ask llama.cpp how it quantises: the blocks of some weights, and the type of each tensor of some models.

usage: make_references.py OUT.json

Needs `llama-cpp-python` (0.3.36), `gguf` (0.19) and `numpy`. The models have the shapes that llama.cpp's choice depends on
(layers, heads, experts, a tied output, widths that are no multiple of 256) and zeros for weights.
"""
import ctypes
import json
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np

TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
# llama.cpp's `llama_ftype`.
LEVELS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13,
          "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "BF16": 32}


def weights():
    """Rows of 256 weights, exact in half precision."""
    random = np.random.default_rng(7)
    normal = lambda: random.normal(0, 0.05, 256)  # noqa: E731
    outlier = normal()
    outlier[77] = 2.5
    rows = {"normal": normal(), "normal too": normal(), "heavy tails": random.standard_t(2, 256) * 0.02, "one large": outlier,
            "positive": np.abs(normal()), "shifted": normal() + 0.3, "zeros": np.zeros(256), "equal": np.full(256, -0.25),
            "a zero group": np.where(np.arange(256) // 32 == 3, 0, normal()), "small": normal() * 1e-3}
    return {name: row.astype(np.float16) for name, row in rows.items()}


def encode(name, row):
    """The bytes that GGML makes of a row."""
    base = ctypes.CDLL(str(Path(llama.__file__).parent / "lib" / "libggml-base.so"))
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    out = ctypes.create_string_buffer(256 // block * size)
    values = row.astype(np.float32)
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    written = base.ggml_quantize_chunk(ctypes.c_int(kind), values.ctypes.data_as(ctypes.c_void_p), out, ctypes.c_int64(0),
                                       ctypes.c_int64(1), ctypes.c_int64(256), None)
    assert written == len(out.raw), name
    return out.raw.hex()


def model(path, arch, n_layers, n_heads, n_kv_heads, n_experts=0, tied=True, dim=256, ffn=512, fused=False):
    """A file with the names and shapes of a decoder."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(n_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(dim)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(1)
    if n_experts:
        writer.add_expert_count(n_experts)
        writer.add_expert_used_count(2)
    kv = dim // n_heads * n_kv_heads
    shapes = {"token_embd.weight": (64, dim), "output_norm.weight": (dim,)}
    if not tied:
        shapes["output.weight"] = (64, dim)
    for i in range(n_layers):
        layer = {"attn_norm.weight": (dim,), "attn_output.weight": (dim, dim), "attn_q_norm.weight": (1, dim)}
        layer |= ({"attn_qkv.weight": (dim + 2 * kv, dim)} if fused else
                  {"attn_q.weight": (dim, dim), "attn_k.weight": (kv, dim), "attn_v.weight": (kv, dim), "attn_v.bias": (kv,)})
        if n_experts:
            layer |= {"ffn_gate_inp.weight": (n_experts, dim), "ffn_gate_exps.weight": (n_experts, ffn, dim),
                      "ffn_up_exps.weight": (n_experts, ffn, dim), "ffn_down_exps.weight": (n_experts, dim, ffn)}
        else:
            layer |= {"ffn_gate.weight": (ffn, dim), "ffn_up.weight": (ffn, dim), "ffn_down.weight": (dim, ffn)}
        shapes |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
    for name, shape in shapes.items():
        writer.add_tensor(name, np.zeros(shape, np.float32 if len(shape) == 1 or "norm" in name else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"arch": arch, "n_layers": n_layers, "n_heads": n_heads, "n_kv_heads": n_kv_heads, "n_experts": n_experts,
            "tensors": [[name, list(reversed(shape))] for name, shape in shapes.items()]}


def types(path, ftype):
    """The type of each tensor after llama.cpp has quantised the file."""
    params = llama.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, 1
    out = f"{path}.out"
    assert llama.llama_model_quantize(str(path).encode(), out.encode(), ctypes.byref(params)) == 0, ftype
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(out).tensors}


MODELS = {
    "llama": dict(arch="llama", n_layers=26, n_heads=4, n_kv_heads=2),
    "grouped": dict(arch="llama", n_layers=11, n_heads=4, n_kv_heads=1, tied=False),
    "70B": dict(arch="llama", n_layers=80, n_heads=4, n_kv_heads=2, tied=False),
    "qwen2 70B": dict(arch="qwen2", n_layers=80, n_heads=4, n_kv_heads=4),
    "eight experts": dict(arch="llama", n_layers=16, n_heads=4, n_kv_heads=4, n_experts=8, tied=False),
    "more experts": dict(arch="llama", n_layers=17, n_heads=4, n_kv_heads=2, n_experts=16),
    "falcon": dict(arch="falcon", n_layers=34, n_heads=4, n_kv_heads=1, tied=False, fused=True),
    "odd widths": dict(arch="llama", n_layers=10, n_heads=3, n_kv_heads=3, dim=288, ffn=320),
    "very odd widths": dict(arch="llama", n_layers=8, n_heads=2, n_kv_heads=2, dim=80, ffn=100, tied=False),
}


def main():
    rows = weights()
    blocks = [{"label": label, "weights": row.tobytes().hex(), "encoded": {name: encode(name, row) for name in TYPES}}
              for label, row in rows.items()]
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in MODELS.items():
            path = Path(folder) / "model.gguf"
            models[name] = model(path, **shape)
            order = [tensor for tensor, _ in models[name]["tensors"]]
            models[name]["types"] = {}  # for each tensor the place of its type in TYPES, as a digit to the base 16
            for level, ftype in LEVELS.items():
                chosen = types(path, ftype)
                models[name]["types"][level] = "".join(f"{TYPES.index(chosen[tensor]):x}" for tensor in order)
    Path(sys.argv[1]).write_text(json.dumps({"types": TYPES, "blocks": blocks, "models": models}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
