"""The tensors and keys of every architecture, as its converter writes them."""
import math

import numpy as np
from gguf import GGMLQuantizationType as T

from tiny_weights import Model


def common_kv(m):
    s = m.spec
    m.kv(context_length=4096, embedding_length=s.n_embd, block_count=s.n_layer, feed_forward_length=s.n_ff, vocab_size=s.vocab,
         attention__head_count=s.n_head, attention__head_count_kv=s.n_kv)
    m.kv(**{"attention__layer_norm_epsilon" if s.opt.get("ln") else "attention__layer_norm_rms_epsilon": s.eps})
    if not s.opt.get("no_rope"):
        m.kv(rope__freq_base=s.base, rope__dimension_count=s.opt.get("n_rot", s.hd))
    if s.hd * s.n_head != s.n_embd or s.opt.get("key_length"):
        m.kv(attention__key_length=s.hd, attention__value_length=s.hd)
    m.kv(**s.kv)


def attention(m, b):
    """Projections, biases and q/k norms of ordinary (grouped-query) attention."""
    s, o = m.spec, m.spec.opt
    q, k = s.n_head * s.hd, s.n_kv * s.hd
    if o.get("fused_qkv"):
        m.mat(b + "attn_qkv.weight", q + 2 * k, s.n_embd, gain=o.get("qk_gain", 1.4))
        if o.get("qkv_bias"):
            m.vec(b + "attn_qkv.bias", q + 2 * k, std=0.7)
    else:
        for name, rows, gain in (("q", q, 1.6), ("k", k, 1.6), ("v", k, 1.0)):
            m.mat(f"{b}attn_{name}.weight", rows * (2 if name == "q" and o.get("gated") else 1), s.n_embd, gain=gain)
            if o.get("qkv_bias"):
                m.vec(f"{b}attn_{name}.bias", rows, std=0.7)
    m.mat(b + "attn_output.weight", s.n_embd, q, gain=1.6)
    if o.get("o_bias"):
        m.vec(b + "attn_output.bias", s.n_embd)
    if o.get("qk_norm") == "head":      # one weight vector shared by all heads
        m.norm(b + "attn_q_norm", s.hd, 1.4)
        m.norm(b + "attn_k_norm", s.hd, 1.4)
    elif o.get("qk_norm") == "full":    # over all heads together
        m.norm(b + "attn_q_norm", q, 1.4, bias=bool(o.get("qk_norm_bias")))
        m.norm(b + "attn_k_norm", k, 1.4, bias=bool(o.get("qk_norm_bias")))
    elif o.get("qk_norm") == "heads":   # a weight vector for each head
        for name, heads in (("q", s.n_head), ("k", s.n_kv)):
            weight = m.stream(f"{b}attn_{name}_norm").uniform(heads * s.hd, 0.7, 2.1)
            m.raw(f"{b}attn_{name}_norm.weight", weight.reshape(heads, s.hd))
    if o.get("sinks"):
        m.vec(b + "attn_sinks.weight", s.n_head, std=1.5, mean=1.5)


def dense_ffn(m, b, n_ff, suffix=""):
    s, o = m.spec, m.spec.opt
    kind = o.get("ffn", "glu")
    if kind == "glu":
        m.mat(f"{b}ffn_gate{suffix}.weight", n_ff, s.n_embd, gain=1.6)
    m.mat(f"{b}ffn_up{suffix}.weight", n_ff * (2 if kind == "fused" else 1), s.n_embd, gain=1.5)
    m.mat(f"{b}ffn_down{suffix}.weight", s.n_embd, n_ff, gain=o.get("down_gain", 1.5))
    if o.get("ffn_bias"):
        if kind != "fused":
            m.vec(f"{b}ffn_up.bias", n_ff)
        if o.get("gate_bias"):
            m.vec(f"{b}ffn_gate.bias", n_ff)
        m.vec(f"{b}ffn_down.bias", s.n_embd)


def moe_ffn(m, b, n, n_ff, gain=2.0, bias=False, probs_bias=False, plain=False, layout=None, **_):
    s = m.spec
    m.mat(b + "ffn_gate_inp.weight", n, s.n_embd, gain=2.0, wt=T.F32)
    for name, rows, cols in (("gate", n_ff, s.n_embd), ("up", n_ff, s.n_embd), ("down", s.n_embd, n_ff)):
        if name == "gate" and plain:
            continue
        m.mat(f"{b}ffn_{name}_exps.weight", n, rows, cols, gain=gain)
        if bias:
            m.raw(f"{b}ffn_{name}_exps.bias", m.stream(f"{b}{name}_exps.bias").normal(n * rows).reshape(n, rows))
    if layout == "fused":               # gate and up of an expert one after the other
        (gate, qtype), (up, _) = (m.tensors.pop(f"{b}ffn_{name}_exps.weight") for name in ("gate", "up"))
        m.tensors[b + "ffn_gate_up_exps.weight"] = (np.concatenate([gate, up], axis=1), qtype)
    if layout == "separate":            # a tensor for each expert
        for name in ("gate", "up", "down"):
            data, qtype = m.tensors.pop(f"{b}ffn_{name}_exps.weight")
            m.tensors.update({f"{b}ffn_{name}.{i}.weight": (data[i], qtype) for i in range(n)})
    if bias:
        m.vec(b + "ffn_gate_inp.bias", n, std=1.0)
    if probs_bias:
        m.vec(b + "exp_probs_b.bias", n, std=0.2)


def moe_kv(m):
    moe = m.spec.opt["moe"]
    m.kv(expert_count=moe["n"], expert_used_count=moe["used"])
    if m.spec.arch not in ("llama", "nomic-bert-moe"):
        m.kv(expert_feed_forward_length=moe["n_ff"])


def embeddings(m, final="output_norm"):
    s, o = m.spec, m.spec.opt
    m.mat("token_embd.weight", s.vocab, s.n_embd, std=o.get("emb_std", 1.0))
    if o.get("embed_norm"):
        m.norm("token_embd_norm", s.n_embd, bias=True)
    if o.get("positions"):
        m.mat("position_embd.weight", o["positions"], s.n_embd, std=0.7)
    if not o.get("no_norms"):
        m.norm(final, s.n_embd, signed=bool(o.get("tied")), bias=bool(o.get("norm_bias")))
    if not o.get("tied"):
        m.mat("output.weight", s.vocab, s.n_embd, gain=o.get("out_gain", 2.0))
    if o.get("out_bias"):
        m.vec("output.bias", s.vocab, std=1.0)


def decoder(m):
    s, o = m.spec, m.spec.opt
    common_kv(m)
    embeddings(m)
    if "moe" in o:
        moe_kv(m)
    for i in range(s.n_layer):
        b = f"blk.{i}."
        if not o.get("post_only") and not o.get("no_norms"):
            m.norm(b + "attn_norm", s.n_embd, bias=bool(o.get("norm_bias")))
        if o.get("attn_norm_2"):
            m.norm(b + "attn_norm_2", s.n_embd, bias=bool(o.get("norm_bias")))
        attention(m, b)
        if o.get("post_norm"):          # norms on the outputs, before the residual additions
            m.norm(b + "post_attention_norm", s.n_embd)
            m.norm(b + "post_ffw_norm", s.n_embd)
        if o.get("ffn_norm", "ffn_norm") and not o.get("post_only"):
            m.norm(b + o.get("ffn_norm", "ffn_norm"), s.n_embd, bias=bool(o.get("norm_bias")))
        if "moe" in o and i >= o.get("dense_lead", 0):
            moe_ffn(m, b, **o["moe"])
            if o.get("shared_dim"):
                dense_ffn(m, b, o["shared_dim"], "_shexp")
            if o.get("shared_gate"):
                m.mat(b + "ffn_gate_inp_shexp.weight", s.n_embd, gain=2.0, wt=T.F32)
        else:
            dense_ffn(m, b, s.n_ff)
    half = o.get("n_rot", s.hd) // 2
    if o.get("rope_freqs"):             # like llama 3.1: high frequencies kept, low ones divided by 8, a ramp between
        ramp = np.clip((np.arange(half) - half // 4) / (half // 2), 0.0, 1.0)
        m.raw("rope_freqs.weight", 1.0 + 7.0 * ramp)
    if o.get("longrope"):
        m.raw("rope_factors_long.weight", 1.0 + 0.75 * np.arange(half))
        m.raw("rope_factors_short.weight", 1.0 + 0.05 * np.arange(half))
    for name, feat_in, feat_out in o.get("dense", ()):
        m.mat(name + ".weight", feat_out, feat_in, gain=1.0)


def deepseek2(m):
    """Multi-head latent attention; the key/value up-projection is split per head, or fused in the older layout."""
    s, o = m.spec, m.spec.opt
    nope, rope, v, kv_rank, q_rank = (o[k] for k in ("nope", "rope", "v", "kv_rank", "q_rank"))
    split, moe = o.get("split", True), o["moe"]
    common_kv(m)
    moe_kv(m)
    m.kv(attention__kv_lora_rank=kv_rank, leading_dense_block_count=o["dense_lead"], expert_shared_count=moe["shared"],
         rope__dimension_count=rope, attention__key_length=kv_rank + rope if split else nope + rope,
         attention__value_length=kv_rank if split else v)
    if split:
        m.kv(attention__key_length_mla=nope + rope, attention__value_length_mla=v)
    if q_rank:
        m.kv(attention__q_lora_rank=q_rank)
    embeddings(m)
    for i in range(s.n_layer):
        b = f"blk.{i}."
        m.norm(b + "attn_norm", s.n_embd)
        if q_rank:
            m.mat(b + "attn_q_a.weight", q_rank, s.n_embd)
            m.norm(b + "attn_q_a_norm", q_rank)
        m.mat(b + ("attn_q_b.weight" if q_rank else "attn_q.weight"), s.n_head * (nope + rope), q_rank or s.n_embd, gain=1.6)
        m.mat(b + "attn_kv_a_mqa.weight", kv_rank + rope, s.n_embd, gain=1.4)
        m.norm(b + "attn_kv_a_norm", kv_rank)
        if split:
            m.mat(b + "attn_k_b.weight", s.n_head, kv_rank, nope, std=1.6 / math.sqrt(kv_rank))
            m.mat(b + "attn_v_b.weight", s.n_head, v, kv_rank)
        else:
            m.mat(b + "attn_kv_b.weight", s.n_head * (nope + v), kv_rank, gain=1.4)
        m.mat(b + "attn_output.weight", s.n_embd, s.n_head * v, gain=o.get("down_gain", 1.6))
        m.norm(b + "ffn_norm", s.n_embd)
        if i < o["dense_lead"]:
            dense_ffn(m, b, s.n_ff)
        else:
            moe_ffn(m, b, **moe)
            dense_ffn(m, b, moe["n_ff"] * moe["shared"], "_shexp")


def gated_ffn(m, b):
    """A feed-forward block, or experts and one for every token behind a gate of its own."""
    s, o = m.spec, m.spec.opt
    if "moe" not in o:
        return dense_ffn(m, b, s.n_ff)
    moe_ffn(m, b, **o["moe"])
    dense_ffn(m, b, o["shared_dim"], "_shexp")
    m.mat(b + "ffn_gate_inp_shexp.weight", s.n_embd, gain=2.0, wt=T.F32)


def qwen35(m):
    """Three gated delta net layers, then one gated full-attention layer with partial RoPE (interleaved multi-section in Qwen 3.5)."""
    s, o = m.spec, m.spec.opt
    common_kv(m)
    embeddings(m)
    if "moe" in o:
        moe_kv(m)
        m.kv(expert_shared_feed_forward_length=o["shared_dim"])
    k_heads, v_heads, d = o["k_heads"], o["v_heads"], o["state"]
    m.kv(ssm__conv_kernel=4, ssm__state_size=d, ssm__group_count=k_heads, ssm__time_step_rank=v_heads, ssm__inner_size=v_heads * d,
         full_attention_interval=o["interval"])
    if o.get("sections"):
        m.kv(rope__dimension_sections=o["sections"])
    channels = 2 * k_heads * d + v_heads * d
    for i in range(s.n_layer):
        b = f"blk.{i}."
        m.norm(b + "attn_norm", s.n_embd)
        if (i + 1) % o["interval"] == 0:
            attention(m, b)
        else:
            if o.get("fused_in"):
                m.mat(b + "ssm_in.weight", channels + v_heads * d, s.n_embd, gain=1.4)
            else:
                m.mat(b + "attn_qkv.weight", channels, s.n_embd, gain=1.4)
                m.mat(b + "attn_gate.weight", v_heads * d, s.n_embd, gain=1.4)
            m.raw(b + "ssm_conv1d.weight", 0.6 * m.stream(b + "conv").normal(channels * 4).reshape(channels, 4))
            m.vec(b + "ssm_dt.bias", v_heads, std=0.5, mean=-1.0)
            m.raw(b + "ssm_a", -m.stream(b + "a").uniform(v_heads, 0.05, 1.0))
            if s.arch == "qwen3next":
                m.mat(b + "ssm_ba.weight", 2 * v_heads, s.n_embd, gain=1.3)
            else:
                m.mat(b + "ssm_beta.weight", v_heads, s.n_embd, gain=1.5)
                m.mat(b + "ssm_alpha.weight", v_heads, s.n_embd)
            m.norm(b + "ssm_norm", d)
            m.mat(b + "ssm_out.weight", s.n_embd, v_heads * d, gain=1.6)
        m.norm(b + "post_attention_norm", s.n_embd)
        gated_ffn(m, b)


def lfm2(m):
    """Short gated convolutions and attention layers; a layer with 0 key/value heads is a convolution."""
    s, o = m.spec, m.spec.opt
    common_kv(m)
    m.kv(attention__head_count_kv=o["kv_heads"], shortconv__l_cache=3)
    embeddings(m, final="token_embd_norm")
    if "moe" in o:
        moe_kv(m)
    for i in range(s.n_layer):
        b = f"blk.{i}."
        m.norm(b + "attn_norm", s.n_embd)
        if o["kv_heads"][i]:
            attention(m, b)
        else:
            m.raw(b + "shortconv.conv.weight", 0.8 * m.stream(b + "conv").normal(s.n_embd * 3).reshape(s.n_embd, 3))
            m.mat(b + "shortconv.in_proj.weight", 3 * s.n_embd, s.n_embd, gain=1.2)
            m.mat(b + "shortconv.out_proj.weight", s.n_embd, s.n_embd, gain=1.2)
        m.norm(b + "ffn_norm", s.n_embd)
        if "moe" in o and i >= o["dense_lead"]:
            moe_ffn(m, b, **o["moe"])
        else:
            dense_ffn(m, b, s.n_ff)


def gemma3n(m):
    """Four residual streams, low-rank residuals, sparse gates in ten layers, keys and values of 20 layers, an embedding for each layer."""
    s = m.spec
    streams, width, rank = 4, 256, 64   # llama.cpp reads none of them
    common_kv(m)
    windowed = [(i + 1) % 5 != 0 for i in range(s.n_layer)]
    m.kv(attention__sliding_window_pattern=windowed, attention__sliding_window=8, attention__shared_kv_layers=s.n_layer - 20,
         altup__active_idx=0, altup__num_inputs=streams, embedding_length_per_layer_input=width, attention__key_length=s.hd,
         attention__value_length=s.hd, activation_sparsity_scale=[1.6448533535003662] * 10 + [-math.inf] * (s.n_layer - 10))
    m.mat("token_embd.weight", s.vocab, s.n_embd, std=1.0 / math.sqrt(s.n_embd))
    m.norm("output_norm", s.n_embd, signed=True)
    m.mat("per_layer_token_embd.weight", s.vocab, width * s.n_layer, std=1.0 / math.sqrt(width))
    m.mat("per_layer_model_proj.weight", width * s.n_layer, s.n_embd, gain=8.0)
    m.norm("per_layer_proj_norm", width)
    m.mat("altup_proj.weight", streams - 1, s.n_embd, s.n_embd)
    m.mat("altup_unembd_proj.weight", streams - 1, s.n_embd, s.n_embd)
    for i in range(s.n_layer):
        b = f"blk.{i}."
        m.norm(b + "attn_norm", s.n_embd)
        attention(m, b)
        m.norm(b + "attn_q_norm", s.hd, 0.5)
        m.norm(b + "attn_k_norm", s.hd, 0.5)
        m.norm(b + "ffn_norm", s.n_embd)
        m.norm(b + "altup_router_norm", s.n_embd)
        # small steps: a difference would grow from layer to layer
        for name in ("post_attention_norm", "post_ffw_norm", "laurel_post_norm", "post_norm"):
            m.norm(b + name, s.n_embd, 0.3)
        dense_ffn(m, b, s.n_ff)
        m.mat(b + "inp_gate.weight", width, s.n_embd, gain=1.5)
        m.mat(b + "proj.weight", s.n_embd, width, gain=1.5)
        # the router looks at a mean of 64 numbers
        m.mat(b + "altup_router.weight", streams, s.n_embd, gain=64.0, wt=T.F32)
        m.mat(b + "altup_predict_coef.weight", streams * streams, streams, gain=0.1, wt=T.F32)
        m.mat(b + "altup_correct_coef.weight", streams, streams, gain=0.2, wt=T.F32)
        m.vec(b + "altup_correct_scale.weight", s.n_embd, std=0.3, mean=1.0)
        m.mat(b + "laurel_l.weight", rank, s.n_embd)
        m.mat(b + "laurel_r.weight", s.n_embd, rank)


def gemma4(m):
    """Heads of two widths, values that may be the keys, shared keys and values, an embedding for each layer."""
    s, o = m.spec, m.spec.opt
    wide, width = o["wide"], o.get("layer_embed", 0)
    common_kv(m)
    if "moe" in o:
        moe_kv(m)
    embeddings(m)
    windowed = [(i + 1) % 3 != 0 for i in range(s.n_layer)]
    n_kv = [s.n_kv if w else 1 for w in windowed]
    m.kv(attention__head_count_kv=n_kv, feed_forward_length=o["n_ff"], attention__sliding_window_pattern=windowed, attention__sliding_window=8,
         attention__shared_kv_layers=o["shared"], embedding_length_per_layer_input=width, attention__key_length=wide,
         attention__value_length=wide, attention__key_length_swa=s.hd, attention__value_length_swa=s.hd, rope__dimension_count=wide,
         rope__dimension_count_swa=s.hd, rope__freq_base_swa=10000.0)
    if width:
        m.mat("per_layer_token_embd.weight", s.vocab, width * s.n_layer, std=1.0 / math.sqrt(width))
        m.mat("per_layer_model_proj.weight", width * s.n_layer, s.n_embd, gain=8.0)
        m.norm("per_layer_proj_norm", width)
    # half of the columns do not turn
    m.raw("rope_freqs.weight", np.where(np.arange(wide // 2) < wide // 4, 1.0, 1e30))
    for i in range(s.n_layer):
        b = f"blk.{i}."
        hd = s.hd if windowed[i] else wide
        m.norm(b + "attn_norm", s.n_embd)
        m.mat(b + "attn_q.weight", s.n_head * hd, s.n_embd, gain=1.6)
        m.norm(b + "attn_q_norm", hd, 0.5)
        if i < s.n_layer - o["shared"] or o.get("unread"):
            m.mat(b + "attn_k.weight", n_kv[i] * hd, s.n_embd, gain=1.6)
            m.norm(b + "attn_k_norm", hd, 0.5)
            if windowed[i] or not o.get("keys_are_values"):
                m.mat(b + "attn_v.weight", n_kv[i] * hd, s.n_embd)
        m.mat(b + "attn_output.weight", s.n_embd, s.n_head * hd, gain=1.6)
        for name in ("post_attention_norm", "ffn_norm", "post_ffw_norm"):
            m.norm(b + name, s.n_embd)
        dense_ffn(m, b, o["n_ff"][i])
        if "moe" in o:
            moe_ffn(m, b, **o["moe"])
            m.norm(b + "ffn_gate_inp", s.n_embd, 4.0)
            m.tensors[b + "ffn_gate_inp.scale"] = m.tensors[b + "ffn_gate_inp.weight"]
            m.mat(b + "ffn_gate_inp.weight", o["moe"]["n"], s.n_embd, gain=6.0, wt=T.F32)
            m.raw(b + "ffn_down_exps.scale", m.stream(b + "factors").uniform(o["moe"]["n"], 0.5, 1.5))
            for name in ("post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"):
                m.norm(b + name, s.n_embd)
        if width:
            m.mat(b + "inp_gate.weight", width, s.n_embd, gain=1.5)
            m.mat(b + "proj.weight", s.n_embd, width, gain=1.5)
            m.norm(b + "post_norm", s.n_embd)
        m.raw(b + "layer_output_scale.weight", [0.5 + 0.25 * i])


def bert(m):
    """Post-norm encoders: bert (learned positions, GELU), nomic-bert (RoPE, SwiGLU, fused qkv, no biases), jina-bert (ALiBi, GEGLU)."""
    s, o = m.spec, m.spec.opt
    common_kv(m)
    m.kv(context_length=o["n_ctx"], attention__causal=False, pooling_type=o["pooling"])
    if "moe" in o:
        moe_kv(m)
        m.kv(moe_every_n_layers=2)
    m.mat("token_embd.weight", s.vocab, s.n_embd, std=1.0)
    m.raw("token_types.weight", 0.5 * m.stream("types").normal(2 * s.n_embd).reshape(2, s.n_embd))
    if s.arch == "bert":
        m.raw("position_embd.weight", 0.5 * m.stream("positions").normal(o["n_ctx"] * s.n_embd).reshape(-1, s.n_embd))
    m.norm("token_embd_norm", s.n_embd, bias=True)
    for i in range(s.n_layer):
        b = f"blk.{i}."
        attention(m, b)
        m.norm(b + "attn_output_norm", s.n_embd, bias=True)
        if o.get("attn_norm_2"):
            m.norm(b + "attn_norm_2", s.n_embd, bias=True)
        if "moe" in o and i % 2:
            moe_ffn(m, b, **o["moe"])
        else:
            dense_ffn(m, b, s.n_ff)
        m.norm(b + "layer_output_norm", s.n_embd, bias=True)


FAMILY = {deepseek2: ["deepseek2"], qwen35: ["qwen35", "qwen35moe", "qwen3next"], lfm2: ["lfm2", "lfm2moe"], gemma3n: ["gemma3n"],
          gemma4: ["gemma4"],
          bert: ["bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"]}
BUILDER = {arch: builder for builder, archs in FAMILY.items() for arch in archs}


# How Ollama's converter named things: architecture, keys, tensors, and keys that it left out.
OLLAMA = {
    "gpt-oss": ("gptoss", {}, {".attn_output.": ".attn_out.", ".attn_sinks.weight": ".attn_sinks", ".post_attention_norm.": ".ffn_norm."},
                ["expert_feed_forward_length", "rope.scaling.type"]),
    "gemma3": ("gemma3", {"rope.freq_base": "rope.global.freq_base"}, {},
               ["attention.layer_norm_rms_epsilon", "rope.scaling.type", "rope.scaling.factor"]),
    "qwen2vl": ("qwen25vl", {}, {}, []),
    "lfm2": ("lfm2", {}, {"token_embd_norm.": "output_norm."}, []),
}


def as_ollama_wrote(m):
    """The names of Ollama's converter; Gemma 3 also with what encodes images, and a context that is stretched without a word."""
    arch, keys, tensors, missing = OLLAMA[m.spec.arch]
    below = {k.split(".", 1)[1]: v for k, v in m.meta.items()}
    m.meta = {f"{arch}.{keys.get(k, k)}": v for k, v in below.items() if k not in missing}
    if arch == "gemma3":
        m.meta |= {"gemma3.rope.local.freq_base": 10000.0, "gemma3.mm.tokens_per_image": 256, "gemma3.context_length": 131072}
        m.mat("v.blk.0.attn_q.weight", 64, 64)
        m.mat("mm.mm_input_projection.weight", 64, 160)
    for old, new in tensors.items():
        m.tensors = {k.replace(old, new): v for k, v in m.tensors.items()}
    m.arch = arch


def build(spec):
    m = Model(spec)
    BUILDER.get(spec.arch, decoder)(m)
    if spec.opt.get("ollama"):
        as_ollama_wrote(m)
    return m
