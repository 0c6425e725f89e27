//! Encoders with norms behind the sums: BERT and its kin.

use super::super::keys::Keys;
use super::super::{Config, Error, Ffn, Norm};
use super::alibi::MAX_ALIBI_BIAS;
use super::{common, moe};
use crate::backend::{Activation, RopeOrder};

/// What all have: layer norms behind the sums, every token sees the whole text.
fn encoder(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Layer, RopeOrder::Neox)?;
    config.post_norm = true;
    config.causal = false;
    config.ffn = Ffn::Plain;
    config.activation = Activation::GeluTanh;
    config.required = vec![
        "token_embd_norm.weight",
        "token_embd_norm.bias",
        "blk.*.attn_output_norm.weight",
        "blk.*.attn_output_norm.bias",
        "blk.*.layer_output_norm.weight",
        "blk.*.layer_output_norm.bias",
    ];
    Ok(config)
}

/// BERT, MiniLM, E5, BGE, Snowflake: learned positions. The original GELU is that of the error
/// function; llama.cpp and thereby everyone's vectors have the approximation.
pub(super) fn bert(keys: &Keys) -> Result<Config, Error> {
    let mut config = encoder(keys)?;
    config.required.push("position_embd.weight");
    config.remove_rope(std::iter::repeat(true));
    Ok(config)
}

/// Nomic Embed: rotary embedding and a gate with SiLU.
pub(super) fn nomic_bert(keys: &Keys) -> Result<Config, Error> {
    let mut config = encoder(keys)?;
    config.ffn = Ffn::Gated;
    config.activation = Activation::Silu;
    Ok(config)
}

/// Nomic Embed 2: plain blocks, in each second layer experts without gates.
pub(super) fn nomic_bert_moe(keys: &Keys) -> Result<Config, Error> {
    const PERIOD: &str = "moe_every_n_layers";
    let mut config = encoder(keys)?;
    let mut experts = moe::read(keys, config.ffn_dim, false)?;
    experts.n_dense = 1;
    experts.period = keys.extent(PERIOD)?;
    if experts.period < 2 {
        return Err(keys.bad(PERIOD, "a number from 2 on is needed"));
    }
    config.moe = Some(experts);
    Ok(config)
}

/// Jina 2: linear biases in place of positions; the gate is a matrix of its own, or the first half
/// of one with the rest, or there is none.
pub(super) fn jina_bert_v2(keys: &Keys) -> Result<Config, Error> {
    let mut config = encoder(keys)?;
    config.alibi = Some(MAX_ALIBI_BIAS);
    config.remove_rope(std::iter::repeat(true));
    let up = keys.gguf.tensor("blk.0.ffn_up.weight");
    let up_rows = up.and_then(|t| t.shape.get(1)).copied();
    config.ffn = match keys.gguf.tensor("blk.0.ffn_gate.weight") {
        Some(_) => Ffn::Gated,
        None if up_rows == Some(2 * config.ffn_dim as u64) => Ffn::GatedFused,
        None => Ffn::Plain,
    };
    Ok(config)
}

/// Jina 3: rotary embedding, as BERT otherwise. Its adapters for tasks are not among the tensors.
pub(super) fn jina_bert_v3(keys: &Keys) -> Result<Config, Error> {
    encoder(keys)
}
