//! The table of architectures, and how their tensors are called.

use super::metadata::{bert, decoder, gemma, gemma2, gemma3, mixtral, qwen2, qwen3_moe};
use super::{Architecture, Change, TensorRow};

const fn row(from: &'static str, to: &'static str) -> TensorRow {
    TensorRow {
        from,
        to,
        change: Change::None,
    }
}

const fn changed(from: &'static str, to: &'static str, change: Change) -> TensorRow {
    TensorRow {
        change,
        ..row(from, to)
    }
}

const OUTER: &[TensorRow] = &[
    row("model.embed_tokens", "token_embd"),
    row("lm_head", "output"),
];
const NORMS: &[TensorRow] = &[
    row("model.norm", "output_norm"),
    row("model.layers.*.input_layernorm", "blk.*.attn_norm"),
    row("model.layers.*.post_attention_layernorm", "blk.*.ffn_norm"),
];
const GEMMA1_NORMS: &[TensorRow] = &[
    changed("model.norm", "output_norm", Change::PlusOne),
    changed(
        "model.layers.*.input_layernorm",
        "blk.*.attn_norm",
        Change::PlusOne,
    ),
    changed(
        "model.layers.*.post_attention_layernorm",
        "blk.*.ffn_norm",
        Change::PlusOne,
    ),
];
const GEMMA_NORMS: &[TensorRow] = &[
    changed("model.norm", "output_norm", Change::PlusOne),
    changed(
        "model.layers.*.input_layernorm",
        "blk.*.attn_norm",
        Change::PlusOne,
    ),
    changed(
        "model.layers.*.post_attention_layernorm",
        "blk.*.post_attention_norm",
        Change::PlusOne,
    ),
    changed(
        "model.layers.*.pre_feedforward_layernorm",
        "blk.*.ffn_norm",
        Change::PlusOne,
    ),
    changed(
        "model.layers.*.post_feedforward_layernorm",
        "blk.*.post_ffw_norm",
        Change::PlusOne,
    ),
];
const GEMMA_HEAD_NORMS: &[TensorRow] = &[
    changed(
        "model.layers.*.self_attn.q_norm",
        "blk.*.attn_q_norm",
        Change::PlusOne,
    ),
    changed(
        "model.layers.*.self_attn.k_norm",
        "blk.*.attn_k_norm",
        Change::PlusOne,
    ),
];
const HEAD_NORMS: &[TensorRow] = &[
    row("model.layers.*.self_attn.q_norm", "blk.*.attn_q_norm"),
    row("model.layers.*.self_attn.k_norm", "blk.*.attn_k_norm"),
];
const ATTENTION: &[TensorRow] = &[
    row("model.layers.*.self_attn.q_proj", "blk.*.attn_q"),
    row("model.layers.*.self_attn.k_proj", "blk.*.attn_k"),
    row("model.layers.*.self_attn.v_proj", "blk.*.attn_v"),
    row("model.layers.*.self_attn.o_proj", "blk.*.attn_output"),
];
/// Llama's pairs are neighbours in GGUF files, and half a head apart in checkpoints.
const LLAMA_ATTENTION: &[TensorRow] = &[
    changed(
        "model.layers.*.self_attn.q_proj",
        "blk.*.attn_q",
        Change::QueryHeads,
    ),
    changed(
        "model.layers.*.self_attn.k_proj",
        "blk.*.attn_k",
        Change::KeyHeads,
    ),
    row("model.layers.*.self_attn.v_proj", "blk.*.attn_v"),
    row("model.layers.*.self_attn.o_proj", "blk.*.attn_output"),
];
const FFN: &[TensorRow] = &[
    row("model.layers.*.mlp.gate_proj", "blk.*.ffn_gate"),
    row("model.layers.*.mlp.up_proj", "blk.*.ffn_up"),
    row("model.layers.*.mlp.down_proj", "blk.*.ffn_down"),
];
const MIXTRAL_FFN: &[TensorRow] = &[
    row("model.layers.*.block_sparse_moe.gate", "blk.*.ffn_gate_inp"),
    row(
        "model.layers.*.block_sparse_moe.experts.*.w1",
        "blk.*.ffn_gate_exps",
    ),
    row(
        "model.layers.*.block_sparse_moe.experts.*.w2",
        "blk.*.ffn_down_exps",
    ),
    row(
        "model.layers.*.block_sparse_moe.experts.*.w3",
        "blk.*.ffn_up_exps",
    ),
];
const QWEN_EXPERTS: &[TensorRow] = &[
    row("model.layers.*.mlp.gate", "blk.*.ffn_gate_inp"),
    row(
        "model.layers.*.mlp.experts.*.gate_proj",
        "blk.*.ffn_gate_exps",
    ),
    row(
        "model.layers.*.mlp.experts.*.down_proj",
        "blk.*.ffn_down_exps",
    ),
    row("model.layers.*.mlp.experts.*.up_proj", "blk.*.ffn_up_exps"),
];
const PHI3: &[TensorRow] = &[
    row("model.layers.*.self_attn.qkv_proj", "blk.*.attn_qkv"),
    row("model.layers.*.self_attn.o_proj", "blk.*.attn_output"),
    row("model.layers.*.mlp.gate_up_proj", "blk.*.ffn_up"),
    row("model.layers.*.mlp.down_proj", "blk.*.ffn_down"),
];
const BERT: &[TensorRow] = &[
    row("embeddings.word_embeddings", "token_embd"),
    row("embeddings.position_embeddings", "position_embd"),
    row("embeddings.token_type_embeddings", "token_types"),
    row("embeddings.LayerNorm", "token_embd_norm"),
    row("encoder.layer.*.attention.self.query", "blk.*.attn_q"),
    row("encoder.layer.*.attention.self.key", "blk.*.attn_k"),
    row("encoder.layer.*.attention.self.value", "blk.*.attn_v"),
    row(
        "encoder.layer.*.attention.output.dense",
        "blk.*.attn_output",
    ),
    row(
        "encoder.layer.*.attention.output.LayerNorm",
        "blk.*.attn_output_norm",
    ),
    row("encoder.layer.*.intermediate.dense", "blk.*.ffn_up"),
    row("encoder.layer.*.output.dense", "blk.*.ffn_down"),
    row(
        "encoder.layer.*.output.LayerNorm",
        "blk.*.layer_output_norm",
    ),
];

/// What most rows have: frequencies are computed anew.
const DECODER: Architecture = Architecture {
    names: &[],
    arch: "",
    tensors: &[],
    prefixes: &[],
    left_out: &[".rotary_emb.inv_freq"],
    is_tied: Some(false),
    defaults: &[],
    write: |config, keys| decoder(config, keys, "silu"),
};

/// All of them.
pub const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        names: &["LlamaForCausalLM", "MistralForCausalLM"],
        arch: "llama",
        tensors: &[OUTER, NORMS, LLAMA_ATTENTION, FFN],
        ..DECODER
    },
    Architecture {
        names: &["MixtralForCausalLM"],
        arch: "llama",
        tensors: &[OUTER, NORMS, LLAMA_ATTENTION, MIXTRAL_FFN],
        write: mixtral,
        ..DECODER
    },
    Architecture {
        names: &["Qwen2ForCausalLM"],
        arch: "qwen2",
        tensors: &[OUTER, NORMS, ATTENTION, FFN],
        write: qwen2,
        ..DECODER
    },
    Architecture {
        names: &["Qwen3ForCausalLM"],
        arch: "qwen3",
        tensors: &[OUTER, NORMS, HEAD_NORMS, ATTENTION, FFN],
        write: qwen2,
        ..DECODER
    },
    Architecture {
        names: &["Qwen3MoeForCausalLM"],
        arch: "qwen3moe",
        tensors: &[OUTER, NORMS, HEAD_NORMS, ATTENTION, QWEN_EXPERTS],
        write: qwen3_moe,
        ..DECODER
    },
    Architecture {
        names: &["GemmaForCausalLM"],
        arch: "gemma",
        tensors: &[OUTER, GEMMA1_NORMS, ATTENTION, FFN],
        is_tied: Some(true),
        write: gemma,
        ..DECODER
    },
    Architecture {
        names: &["Gemma2ForCausalLM"],
        arch: "gemma2",
        tensors: &[OUTER, GEMMA_NORMS, ATTENTION, FFN],
        is_tied: Some(true),
        write: gemma2,
        ..DECODER
    },
    Architecture {
        names: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        arch: "gemma3",
        tensors: &[OUTER, GEMMA_NORMS, GEMMA_HEAD_NORMS, ATTENTION, FFN],
        // Where the model sees images, the text model has a name of its own, before or behind the usual one.
        prefixes: &["language_model.", "model.language_model."],
        left_out: &[
            ".rotary_emb.inv_freq",
            "vision_tower.",
            "model.vision_tower.",
            "multi_modal_projector.",
            "model.multi_modal_projector.",
        ],
        is_tied: Some(true),
        defaults: &[
            ("head_dim", 256.0),
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("vocab_size", 262_208.0),
            ("max_position_embeddings", 131_072.0),
            ("rms_norm_eps", 1e-6),
        ],
        write: gemma3,
    },
    Architecture {
        names: &["Phi3ForCausalLM"],
        arch: "phi3",
        tensors: &[OUTER, NORMS, PHI3],
        ..DECODER
    },
    Architecture {
        names: &["BertModel"],
        arch: "bert",
        tensors: &[BERT],
        prefixes: &["bert."],
        // Sentence vectors are pooled without the dense layer of the first token.
        left_out: &["embeddings.position_ids", "pooler."],
        is_tied: None,
        defaults: &[],
        write: bert,
    },
];
