#!/usr/bin/env python3
"""Write tiny checkpoints in Hugging Face's format, with the weights and vocabularies of the tiny GGUF models.

usage: make_checkpoints.py TINY_DIR OUT_DIR    one folder for each of CHECKPOINTS

Needs `gguf`, `numpy`, `safetensors` and `tokenizers`: files are written by the libraries that write real ones. Importing
a folder must give the model that it was made from; kernels-tests/imported.rs compares them.
"""
import json
import math
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors import TensorSpec, serialize_file
from tokenizers import Tokenizer

sys.dont_write_bytecode = True
from tiny_tokenizers import BYTE, CONTROL, UNKNOWN, UNUSED, USER  # noqa: E402

DTYPE = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD = r"[^\r\n\p{L}\p{N}]?"
# The patterns of the models' own tokenizer.json, and whether words that are entries are taken whole.
PRE = {
    "llama-bpe": (LLAMA3, True),
    "qwen2": (LLAMA3.replace("{1,3}", ""), False),
    "tekken": (f"{WORD}{UPPER}*{LOWER}+|{WORD}{UPPER}+{LOWER}*|\\p{{N}}{REST}", True),
    "gpt-4o": (f"{WORD}{UPPER}*{LOWER}+{SHORT}|{WORD}{UPPER}+{LOWER}*{SHORT}|\\p{{N}}{{1,3}}{REST}", False),
    "smollm": (None, False),
}


class Source:
    """A tiny GGUF model: its numbers, entries and tensors."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.arch = self.get("general.architecture")
        self.tokens = self.get("tokenizer.ggml.tokens")
        self.types = self.get("tokenizer.ggml.token_type")

    def get(self, key, default=None):
        field = self.reader.get_field(key)
        return default if field is None else field.contents()

    def kv(self, key, default=None):
        return self.get(f"{self.arch}.{key}", default)

    def token(self, role):
        id = self.get(f"tokenizer.ggml.{role}_token_id")
        return None if id is None else self.tokens[id]

    def tensors(self):
        for t in self.reader.tensors:
            shape = [int(n) for n in reversed(t.shape)]
            yield t.name, t.tensor_type.name, np.asarray(t.data).reshape(*shape[:-1], -1)


# ---------------------------------------------------------------------------------------------------------------
# weights
# ---------------------------------------------------------------------------------------------------------------
LAYER = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_qkv": "self_attn.qkv_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
GEMMA = LAYER | {"ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm",
                 "post_ffw_norm": "post_feedforward_layernorm"}
PHI3 = LAYER | {"ffn_up": "mlp.gate_up_proj"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BERT = {"attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value",
        "attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm",
        "ffn_up": "intermediate.dense", "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm"}
BERT_TOP = {"token_embd": "embeddings.word_embeddings", "position_embd": "embeddings.position_embeddings",
            "token_types": "embeddings.token_type_embeddings", "token_embd_norm": "embeddings.LayerNorm"}


def checkpoint_name(arch, name):
    stem, kind = name.rsplit(".", 1)
    top = BERT_TOP if arch == "bert" else TOP
    if stem in top:
        return f"{top[stem]}.{kind}"
    _, layer, part = stem.split(".", 2)
    if arch == "bert":
        return f"encoder.layer.{layer}.{BERT[part]}.{kind}"
    names = GEMMA if arch in ("gemma2", "gemma3") else PHI3 if arch == "phi3" else LAYER
    return f"model.layers.{layer}.{names[part]}.{kind}"


def halves(data, heads):
    """Rows of each head with pairs half a head apart, where the GGUF file has them side by side."""
    rows = data.reshape(heads, data.shape[0] // heads // 2, 2, -1)
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(data.shape)


def weights(source, prefix="", wide=False, bare=False, **_):
    """Name -> (dtype, shape, bytes)."""
    found = {}
    for name, dtype, data in source.tensors():
        if name.startswith("rope_f"):       # from the configuration
            continue
        if source.arch in ("llama", "xverse"):
            heads = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}.get(name.split(".")[-2])
            data = halves(data, source.kv(heads)) if heads else data
        if source.arch.startswith("gemma") and "norm" in name:
            data = data - np.float32(1)
        if wide and dtype == "F16":
            data, dtype = data.astype(np.float32), "F32"
        shape = list(data.shape)
        if dtype == "BF16":                 # read as bytes
            shape[-1] //= 2
        own = checkpoint_name(source.arch, name)
        found[prefix + (own.removeprefix("model.") if bare else own)] = (dtype, shape, np.ascontiguousarray(data).tobytes())
    return found


def save(path, tensors):
    held = {name: (dtype, shape, np.frombuffer(data, np.uint8)) for name, (dtype, shape, data) in tensors.items()}
    serialize_file({name: TensorSpec(dtype=DTYPE.get(dtype, dtype), shape=shape, data_ptr=data.ctypes.data, data_len=data.nbytes)
                    for name, (dtype, shape, data) in held.items()}, path, {"format": "pt"})


def save_weights(out, tensors, n_files):
    if n_files == 1:
        return save(out / "model.safetensors", tensors)
    names, places = sorted(tensors), {}
    for i in range(n_files):
        file = f"model-{i + 1:05}-of-{n_files:05}.safetensors"
        part = names[i::n_files]
        save(out / file, {name: tensors[name] for name in part})
        places |= {name: file for name in part}
    total = sum(len(data) for _, _, data in tensors.values())
    write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


# ---------------------------------------------------------------------------------------------------------------
# vocabularies
# ---------------------------------------------------------------------------------------------------------------
def added(source, ids):
    return [{"id": i, "content": source.tokens[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": source.types[i] in (CONTROL, UNKNOWN)} for i in ids]


def post_processor(source):
    bos = source.token("bos")
    if not source.get("tokenizer.ggml.add_bos_token"):
        return None
    special = {"SpecialToken": {"id": bos, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [special, text], "pair": [special, text, special, text],
            "special_tokens": {bos: {"id": bos, "ids": [source.tokens.index(bos)], "tokens": [bos]}}}


def byte_level(source):
    pattern, whole = PRE[source.get("tokenizer.ggml.pre")]
    byte = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pattern is None}
    first = ({"type": "Digits", "individual_digits": True} if pattern is None else
             {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False})
    normal = [i for i, t in enumerate(source.types) if t not in (CONTROL, USER)]
    return {"version": "1.0", "added_tokens": added(source, range(len(normal), len(source.tokens))),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [first, byte]},
            "post_processor": post_processor(source), "decoder": byte,
            "model": {"type": "BPE", "vocab": {source.tokens[i]: i for i in normal}, "ignore_merges": whole,
                      "merges": source.get("tokenizer.ggml.merges")}}


def of_scores(source):
    """What converters make of SentencePiece's BPE: every pair of entries that make one, by that one's score."""
    scores = source.get("tokenizer.ggml.scores")
    ids = {t: i for i, t in enumerate(source.tokens)}
    pairs = []
    for text, i in ids.items():
        if source.types[i] in (BYTE, CONTROL, UNKNOWN):
            continue
        pairs += [(-scores[i], i, text[:n], text[n:]) for n in range(1, len(text)) if text[:n] in ids and text[n:] in ids]
    space = "\u2581"
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": space}
    if source.get("tokenizer.ggml.add_space_prefix"):
        steps = {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": space}, replace]}}
    else:
        steps = {"normalizer": replace, "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                                                          "behavior": "MergedWithPrevious", "invert": False}}
    special = [i for i, t in enumerate(source.types) if t in (CONTROL, UNKNOWN, USER)]
    return steps | {"version": "1.0", "added_tokens": added(source, special), "post_processor": post_processor(source),
                    "model": {"type": "BPE", "vocab": ids, "merges": [[a, b] for _, _, a, b in sorted(pairs)], "byte_fallback": True,
                              "fuse_unk": True, "unk_token": source.token("unknown")}}


def wordpiece(source):
    def text(i):
        token = source.tokens[i]
        if source.types[i] in (CONTROL, UNUSED):
            return token
        return token[1:] if token.startswith("\u2581") else "##" + token

    special = [i for i, t in enumerate(source.types) if t == CONTROL]
    cls, sep = (source.tokens.index(t) for t in ("[CLS]", "[SEP]"))
    return {"version": "1.0", "added_tokens": added(source, special),
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", sep], "cls": ["[CLS]", cls]},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                      "vocab": {text(i): i for i in range(len(source.tokens))}}}


def varint(n):
    return bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80]) + varint(n >> 7)


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def sentencepiece(source):
    """tokenizer.model: entries, then the settings that matter, of which BPE is a model of type 2."""
    out = b""
    for text, score, kind in zip(source.tokens, source.get("tokenizer.ggml.scores"), source.types):
        out += field(1, field(1, text.encode()) + b"\x15" + np.float32(score).tobytes() + b"\x18" + varint(kind))
    return out + field(2, b"\x18\x02") + field(3, b"\x18\x01")


def save_vocabulary(out, source, model_file=False):
    kind = source.get("tokenizer.ggml.model")
    if model_file:
        (out / "tokenizer.model").write_bytes(sentencepiece(source))
    else:
        maker = {"gpt2": byte_level, "llama": of_scores, "bert": wordpiece}[kind]
        Tokenizer.from_str(json.dumps(maker(source))).save(str(out / "tokenizer.json"))
    tokens = {f"{role}_token": source.token(key) for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}
    if kind == "bert":
        tokens |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        tokens.pop("bos_token"), tokens.pop("eos_token")
    # both ways in which tokens are written
    if tokens.get("eos_token"):
        tokens["eos_token"] = {"__type": "AddedToken", "content": tokens["eos_token"], "special": True}
    template = source.get("tokenizer.chat_template")
    write_json(out / "tokenizer_config.json", tokens | ({"chat_template": template} if template else {}))


# ---------------------------------------------------------------------------------------------------------------
# configurations
# ---------------------------------------------------------------------------------------------------------------
def write_json(path, value):
    path.write_text(json.dumps(value, indent=1))


def config(source, name):
    kv = source.kv
    out = {"architectures": [name], "hidden_size": kv("embedding_length"), "num_hidden_layers": kv("block_count"),
           "intermediate_size": kv("feed_forward_length"), "num_attention_heads": kv("attention.head_count"),
           "num_key_value_heads": kv("attention.head_count_kv"), "vocab_size": kv("vocab_size"),
           "max_position_embeddings": kv("context_length"), "torch_dtype": "float16"}
    if source.arch == "bert":
        return out | {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "position_embedding_type": "absolute"}
    out |= {"rms_norm_eps": float(f"{kv('attention.layer_norm_rms_epsilon'):.3g}"), "rope_theta": kv("rope.freq_base"), "hidden_act": "silu"}
    if kv("attention.key_length"):
        out["head_dim"] = kv("attention.key_length")
    if not any(t.name == "output.weight" for t in source.reader.tensors):
        out["tie_word_embeddings"] = True
    if source.token("bos"):
        out["bos_token_id"] = source.tokens.index(source.token("bos"))
    return out


def rope(source):
    kv = source.kv
    kind, factor = kv("rope.scaling.type"), kv("rope.scaling.factor")
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        attention = kv("rope.scaling.attn_factor") * (1 + 0.1 * math.log(factor))
        return {"type": "yarn", "factor": factor, "attention_factor": attention,
                "original_max_position_embeddings": kv("rope.scaling.original_context_length")}
    tensors = {name: data.tolist() for name, _, data in source.tensors() if name.startswith("rope_factors")}
    return {"type": "longrope", "long_factor": tensors["rope_factors_long.weight"], "short_factor": tensors["rope_factors_short.weight"],
            "attention_factor": kv("rope.scaling.attn_factor")}


def llama(source):
    return config(source, "LlamaForCausalLM")


def stretched(source):
    return llama(source) | {"rope_scaling": rope(source)}


def phi3(source):
    rotary = source.kv("rope.dimension_count") / (source.kv("embedding_length") / source.kv("attention.head_count"))
    partial = {} if rotary == 1 else {"partial_rotary_factor": rotary}
    return config(source, "Phi3ForCausalLM") | partial | {
        "rope_scaling": rope(source), "original_max_position_embeddings": source.kv("rope.scaling.original_context_length")}


def gemma(source):
    """The first: GELU where its approximation is meant, and nothing of tied matrices."""
    out = config(source, "GemmaForCausalLM") | {"hidden_act": "gelu", "hidden_activation": None}
    out.pop("tie_word_embeddings")
    return out


def gemma2(source):
    out = config(source, "Gemma2ForCausalLM") | {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}
    out.pop("tie_word_embeddings")      # what such files mean by nothing
    return out | {"query_pre_attn_scalar": source.kv("attention.key_length"), "sliding_window": source.kv("attention.sliding_window"),
                  "attn_logit_softcapping": source.kv("attn_logit_softcapping"), "final_logit_softcapping": source.kv("final_logit_softcapping")}


def gemma3(source):
    text = gemma2(source) | {"rope_scaling": rope(source), "rope_local_base_freq": 10000.0}
    text.pop("hidden_act"), text.pop("architectures")
    text |= {"attn_logit_softcapping": None, "final_logit_softcapping": None,
             "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(source.kv("block_count"))]}
    return {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "vision_config": {"hidden_size": 8}}


def gemma3_text(source):
    """As newer files have it: what turns is in one place, for each kind of layer."""
    text = gemma3(source)["text_config"]
    scaling, base, local = (text.pop(key) for key in ("rope_scaling", "rope_theta", "rope_local_base_freq"))
    return text | {"architectures": ["Gemma3ForCausalLM"], "rope_parameters": {
        "full_attention": scaling | {"rope_theta": base}, "sliding_attention": {"rope_type": "default", "rope_theta": local}}}


def of(name):
    return lambda source: config(source, name)


# folder -> (tiny model, configuration, options)
CHECKPOINTS = {
    "llama": ("tiny-llama", llama, dict(n_files=2)),
    "llama-tied": ("tiny-llama-odd", llama, {}),
    "llama-bf16": ("tiny-llama-bf16", llama, {}),
    "llama-yarn": ("tiny-llama-yarn", stretched, {}),
    "llama-linear": ("tiny-llama-linear", stretched, {}),
    "llama-sentencepiece": ("tiny-xverse", llama, dict(model_file=True)),
    "mistral": ("tiny-mistral-nemo", of("MistralForCausalLM"), {}),
    "qwen2": ("tiny-qwen2", of("Qwen2ForCausalLM"), {}),
    "qwen3": ("tiny-qwen3", of("Qwen3ForCausalLM"), dict(wide=True)),
    "qwen3-embedding": ("tiny-qwen3-embedding", of("Qwen3ForCausalLM"), dict(bare=True)),
    "gemma": ("tiny-gemma", gemma, {}),
    "gemma2": ("tiny-gemma2", gemma2, {}),
    "gemma3": ("tiny-gemma3", gemma3, dict(prefix="language_model.", extra={"vision_tower.x.weight": ("F16", [2, 2], bytes(8))})),
    "gemma3-text": ("tiny-gemma3", gemma3_text, {}),
    "phi3": ("tiny-phi3", phi3, {}),
    "phi4": ("tiny-phi4-mini", phi3, {}),
    "bert": ("tiny-bert", of("BertModel"), dict(extra={"embeddings.position_ids": ("int64", [1, 4], bytes(32)),
                                                       "pooler.dense.weight": ("F32", [2, 2], bytes(16))})),
    "bert-cls": ("tiny-bert-cls", of("BertModel"), dict(prefix="bert.")),
}


def save_pooling(out, source):
    write_json(out / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}])
    (out / "1_Pooling").mkdir()
    mode = source.kv("pooling_type")
    write_json(out / "1_Pooling/config.json", {
        "word_embedding_dimension": source.kv("embedding_length"), "pooling_mode_cls_token": mode == 2, "pooling_mode_mean_tokens": mode == 1,
        "pooling_mode_lasttoken": mode == 3, "pooling_mode_max_tokens": False})


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    tiny, folder = map(Path, sys.argv[1:])
    for name, (model, configuration, options) in CHECKPOINTS.items():
        source, out = Source(tiny / f"{model}.gguf"), folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        tensors = weights(source, **options) | options.get("extra", {})
        save_weights(out, tensors, options.get("n_files", 1))
        write_json(out / "config.json", configuration(source))
        save_vocabulary(out, source, options.get("model_file", False))
        if source.kv("pooling_type"):
            save_pooling(out, source)
        elif name == "llama":
            ends = [source.tokens.index(t) for t in ("<|eot_id|>", "<|end_of_text|>", "<|python_tag|>")]
            write_json(out / "generation_config.json", {"bos_token_id": source.tokens.index("<|begin_of_text|>"), "eos_token_id": ends})
        print(name)


if __name__ == "__main__":
    main()
