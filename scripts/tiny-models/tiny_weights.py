"""Random weights that are the same on every machine, and the GGUF file that they go into."""
import hashlib
import math
from dataclasses import dataclass, field
from functools import lru_cache

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

from tiny_tokenizers import TOKENIZERS, vocabulary


@dataclass(frozen=True)
class Spec:
    name: str
    arch: str
    tok: str = "llama-bpe"
    wt: T = T.F16                              # type of the weight matrices; vectors and routers stay F32
    mix: dict = field(default_factory=dict)    # name part -> type, overrides wt
    seed: str = ""                             # default: the name
    n_layer: int = 2
    n_embd: int = 256
    n_head: int = 4
    n_kv: int = 2
    hd: int = 64
    n_ff: int = 512
    vocab: int = 512
    eps: float = 1e-5
    base: float = 10000.0
    opt: dict = field(default_factory=dict)    # structural options for the builder
    kv: dict = field(default_factory=dict)     # further metadata, below "<arch>."


FILE_TYPE = {T.F32: 0, T.F16: 1, T.Q4_0: 2, T.Q4_1: 3, T.Q8_0: 7, T.Q5_0: 8, T.Q5_1: 9, T.Q2_K: 10, T.Q3_K: 12, T.Q4_K: 15, T.Q5_K: 17,
             T.Q6_K: 18, T.IQ2_XXS: 19, T.IQ2_XS: 20, T.IQ3_XXS: 23, T.IQ1_S: 24, T.IQ4_NL: 25, T.IQ3_S: 26, T.IQ2_S: 28, T.IQ4_XS: 30,
             T.IQ1_M: 31, T.BF16: 32, T.TQ1_0: 36, T.TQ2_0: 37, T.MXFP4: 38, T.NVFP4: 39}
# Types without a quantiser in gguf-py are filled with random bits and sane scales: offset of the f16 scale in the
# block, offset of the f16 minimum, and the ratio minimum/scale that centres the weights.
RANDOM_FILL = {T.Q2_K: (80, 82, 1.5), T.Q3_K: (108, None, 0), T.Q4_K: (0, 2, 7.5), T.Q5_K: (0, 2, 15.5), T.Q6_K: (208, None, 0),
               T.IQ1_S: (0, None, 0), T.IQ1_M: (None, None, 0), T.IQ2_XXS: (0, None, 0), T.IQ2_XS: (0, None, 0), T.IQ2_S: (0, None, 0),
               T.IQ3_XXS: (0, None, 0), T.IQ3_S: (0, None, 0), T.IQ4_NL: (0, None, 0), T.IQ4_XS: (0, None, 0), T.NVFP4: (None, None, 0)}


class Stream:
    """Portable random numbers: only the raw 64-bit outputs of PCG64 and exact arithmetic."""

    def __init__(self, key):
        self.bits = np.random.PCG64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))

    def normal(self, n):
        raw = self.bits.random_raw(n)
        total = sum(((raw >> np.uint64(s)) & np.uint64(0xFFFF)).astype(np.float64) for s in (0, 16, 32, 48))
        return (total - 131070.0) / 37837.2     # sum of four uniforms: nearly normal, unit variance

    def uniform(self, n, lo=0.0, hi=1.0):
        return lo + (hi - lo) * ((self.bits.random_raw(n) >> np.uint64(40)).astype(np.float64) / 2.0**24)

    def bytes(self, n):
        raw = self.bits.random_raw((n + 7) // 8)
        return np.stack([(raw >> np.uint64(8 * i)).astype(np.uint8) for i in range(8)], axis=-1).reshape(-1)[:n]


def put_scale(blocks, qtype, d):
    """Write the scale (and minimum) of every block; d has one float per block."""
    d_at, min_at, ratio = RANDOM_FILL[qtype]
    half = d.astype(np.float16)
    if qtype == T.NVFP4:        # four UE4M3 scales per block: keep the mantissa, set the exponent to 2^-6 or 2^-5
        blocks[:, :4] = (blocks[:, :4] & 7) | ((1 + (blocks[:, :4] >> 3) % 2) << 3)
    elif qtype == T.IQ1_M:      # the f16 is spread over the top nibbles of four 16-bit words
        word = half.view(np.uint16)
        for i in range(4):
            blocks[:, 49 + 2 * i] = (blocks[:, 49 + 2 * i] & 0x0F) | (((word >> (4 * i)) & 0xF) << 4).astype(np.uint8)
    else:
        blocks[:, d_at:d_at + 2] = half.view(np.uint8).reshape(-1, 2)
        if min_at is not None:
            blocks[:, min_at:min_at + 2] = (half.astype(np.float32) * ratio).astype(np.float16).view(np.uint8).reshape(-1, 2)


@lru_cache
def unit_std(qtype):
    """Standard deviation of dequantised random blocks with scale 1."""
    _, size = gguf.GGML_QUANT_SIZES[qtype]
    blocks = Stream("unit").bytes(512 * size).reshape(512, size).copy()
    put_scale(blocks, qtype, np.ones(512))
    return float(np.std(gguf.quants.dequantize(blocks, qtype), dtype=np.float64))


def random_blocks(stream, qtype, n_blocks, std):
    _, size = gguf.GGML_QUANT_SIZES[qtype]
    blocks = stream.bytes(n_blocks * size).reshape(n_blocks, size).copy()
    d = std / unit_std(qtype) * stream.uniform(n_blocks, 0.5, 1.5) * np.where(stream.uniform(n_blocks) < 0.125, -1.0, 1.0)
    put_scale(blocks, qtype, d)
    return blocks


class Model:
    def __init__(self, spec):
        self.spec, self.meta, self.tensors, self.arch = spec, {}, {}, spec.arch

    def stream(self, name):
        return Stream(f"{self.spec.seed or self.spec.name}/{name}")

    def kv(self, **values):
        self.meta.update({f"{self.spec.arch}.{k.replace('__', '.')}": v for k, v in values.items()})

    def vec(self, name, n, std=0.3, mean=0.0):
        self.raw(name, mean + std * self.stream(name).normal(n))

    def norm(self, name, n, scale=1.0, signed=False, bias=False):
        """Norm weights well away from 1; random signs keep tied embeddings from just repeating the input token."""
        w = self.stream(name).uniform(n, 0.5, 1.5) * scale
        if signed:
            w *= np.where(self.stream(name + "/sign").uniform(n) < 0.5, -1.0, 1.0)
        self.raw(name + ".weight", w)
        if bias:
            self.vec(name + ".bias", n)

    def raw(self, name, values):
        self.tensors[name] = (np.asarray(values, dtype=np.float64).astype(np.float32), T.F32)

    def mat(self, name, *shape, gain=1.0, std=None, wt=None):
        """Random matrix with rows of length shape[-1]; gain keeps gain * rms(input) as the rms of the output."""
        qtype = next((t for part, t in self.spec.mix.items() if part in name), self.spec.wt) if wt is None else wt
        std = std or gain / math.sqrt(shape[-1])
        block, size = gguf.GGML_QUANT_SIZES[qtype]
        if shape[-1] % block:                   # what real converters do with rows that no block fits
            qtype, (block, size) = T.F16, gguf.GGML_QUANT_SIZES[T.F16]
        count, stream = int(np.prod(shape)), self.stream(name)
        if qtype in RANDOM_FILL:
            data = random_blocks(stream, qtype, count // block, std).reshape(*shape[:-1], shape[-1] // block * size)
        else:
            data = (stream.normal(count) * std).astype(np.float32).reshape(shape)
            if qtype == T.F16:
                data = data.astype(np.float16)
            elif qtype != T.F32:
                data = gguf.quants.quantize(data, qtype)
        self.tensors[name] = (data, qtype)

    def write(self, path, f32=False):
        s = self.spec
        w = gguf.GGUFWriter(path, self.arch)
        # "phi3" in a model's name switches on a tokenizer workaround in llama.cpp; stay clear of it
        w.add_name(s.name.replace("-", " ").replace("phi3", "phi 3"))
        w.add_file_type(0 if f32 else FILE_TYPE[s.wt])
        w.add_quantization_version(2)
        for key, value in self.meta.items():
            if isinstance(value, list):
                w.add_array(key, value)
            else:
                {bool: w.add_bool, int: w.add_uint32, float: w.add_float32, str: w.add_string}[type(value)](key, value)
        self.write_tokenizer(w)
        for name, (data, qtype) in self.tensors.items():
            if f32 and qtype != T.F32:
                data, qtype = gguf.quants.dequantize(data, qtype), T.F32
            w.add_tensor(name, np.ascontiguousarray(data), raw_dtype=qtype)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()

    def write_tokenizer(self, w):
        kind, pre, _, _, special, add_bos, template = TOKENIZERS[self.spec.tok]
        tokens, merges = vocabulary(self.spec.tok, self.spec.vocab)
        assert len(tokens) == self.spec.vocab == len({t[0] for t in tokens}), (self.spec.tok, len(tokens))
        w.add_tokenizer_model({"bpe": "gpt2", "wordpiece": "bert"}.get(kind, "llama"))
        if pre:
            w.add_tokenizer_pre(pre)
        w.add_token_list([t[0] for t in tokens])
        w.add_token_types([t[1] for t in tokens])
        if kind in ("spm", "gemma"):
            w.add_token_scores([t[2] for t in tokens])
            w.add_add_space_prefix(kind == "spm")
        if merges is not None:
            w.add_token_merges(merges)
        ids = {t[0]: i for i, t in enumerate(tokens)}
        for role, text in special.items():
            w.add_uint32(f"tokenizer.ggml.{role}_token_id", ids[text])
        if kind == "wordpiece":
            w.add_token_type_count(2)
        else:
            w.add_add_bos_token(add_bos)
            w.add_add_eos_token(False)
            w.add_chat_template(template)
