//! Decoders with linear biases of attention in the place of positions: BLOOM, MPT, Refact, Jais,
//! Baichuan 13B.

use super::super::keys::Keys;
use super::super::{Config, Error, Ffn, Norm};
use super::gpt::layer_normed;
use super::{common, llama};
use crate::backend::Activation;

/// The largest of the linear biases, where the file does not say it.
pub(super) const MAX_ALIBI_BIAS: f32 = 8.0;

/// Layers of the larger Baichuan, the one with linear biases.
const BAICHUAN_13B_LAYERS: usize = 40;

/// BLOOM: the embedding is normed too.
pub(super) fn bloom(keys: &Keys) -> Result<Config, Error> {
    let mut config = layer_normed(keys, None)?;
    config.alibi = Some(MAX_ALIBI_BIAS);
    config.required.extend([
        "token_embd_norm.weight",
        "token_embd_norm.bias",
        "blk.*.attn_qkv.weight",
        "blk.*.attn_qkv.bias",
        "blk.*.attn_output.bias",
        "blk.*.ffn_up.bias",
        "blk.*.ffn_down.bias",
    ]);
    Ok(config)
}

/// MPT: layer norms without biases; some have learned positions instead of linear biases.
pub(super) fn mpt(keys: &Keys) -> Result<Config, Error> {
    if let Some(bound) = keys.optional_positive("attention.clamp_kqv")? {
        return Err(Error::Unsupported(format!(
            "queries, keys and values clamped to {bound}"
        )));
    }
    let mut config = layer_normed(keys, None)?;
    config.required.retain(|name| !name.ends_with(".bias"));
    config.required.push("blk.*.attn_qkv.weight");
    config.alibi = keys.optional_positive("attention.max_alibi_bias")?;
    Ok(config)
}

/// Refact 1.6B: Llama without rotary embedding.
pub(super) fn refact(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, None)?;
    config.alibi = Some(MAX_ALIBI_BIAS);
    Ok(config)
}

/// Jais: a gated block with SiLU, scores divided by the head's width and not by its root.
pub(super) fn jais(keys: &Keys) -> Result<Config, Error> {
    let mut config = layer_normed(keys, None)?;
    config.ffn = Ffn::Gated;
    config.activation = Activation::Silu;
    config.attention_scale = 1.0 / config.head_dim as f32;
    config.alibi = keys.optional_positive("attention.max_alibi_bias")?;
    config.required.extend([
        "output.weight",
        "blk.*.attn_qkv.weight",
        "blk.*.attn_qkv.bias",
        "blk.*.attn_output.bias",
        "blk.*.ffn_gate.bias",
        "blk.*.ffn_up.bias",
        "blk.*.ffn_down.bias",
    ]);
    Ok(config)
}

/// Baichuan 1 and 2: the one of 7B is Llama, the one of 13B has linear biases instead of rotary
/// embedding.
pub(super) fn baichuan(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama::llama(keys)?;
    config.required.push("output.weight");
    if config.layers.len() == BAICHUAN_13B_LAYERS {
        config.alibi = Some(MAX_ALIBI_BIAS);
        config.remove_rope(std::iter::repeat(true));
    }
    Ok(config)
}
