//! Decoders with layer norms: GPT 2, GPT-NeoX, Falcon, StarCoder, Nemotron, Orion, StableLM.

use super::super::keys::Keys;
use super::super::{Config, Error, Ffn, Norm};
use super::common;
use crate::backend::{Activation, RopeOrder};

const NEOX: Option<RopeOrder> = Some(RopeOrder::Neox);

/// Layer norms with biases, a feed-forward block without a gate, GELU.
pub(super) fn layer_normed(keys: &Keys, rope: Option<RopeOrder>) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Layer, rope)?;
    config.ffn = Ffn::Plain;
    config.activation = Activation::GeluTanh;
    config.required.extend([
        "output_norm.bias",
        "blk.*.attn_norm.bias",
        "blk.*.ffn_norm.bias",
    ]);
    Ok(config)
}

/// StarCoder 2, CodeShell.
pub(super) fn starcoder2(keys: &Keys) -> Result<Config, Error> {
    biased(keys, NEOX)
}

/// As [`layer_normed`], with biases on all matrices of a layer that do not make q, k, v.
fn biased(keys: &Keys, rope: Option<RopeOrder>) -> Result<Config, Error> {
    let mut config = layer_normed(keys, rope)?;
    config.required.extend([
        "blk.*.attn_output.bias",
        "blk.*.ffn_up.bias",
        "blk.*.ffn_down.bias",
    ]);
    Ok(config)
}

/// GPT 2 and the first StarCoder: learned positions instead of rotary embedding.
pub(super) fn gpt2(keys: &Keys) -> Result<Config, Error> {
    let mut config = biased(keys, None)?;
    config.required.extend([
        "position_embd.weight",
        "blk.*.attn_qkv.weight",
        "blk.*.attn_qkv.bias",
    ]);
    Ok(config)
}

/// GPT-NeoX and Pythia: both blocks side by side, each with its norm, where the file says so.
pub(super) fn gptneox(keys: &Keys) -> Result<Config, Error> {
    const PARALLEL: &str = "use_parallel_residual";
    let mut config = biased(keys, NEOX)?;
    let fused = ["blk.*.attn_qkv.weight", "blk.*.attn_qkv.bias"];
    config.required.extend(fused);
    let parallel = keys.optional_bool(PARALLEL)?;
    config.parallel = parallel.ok_or_else(|| keys.bad(PARALLEL, "is missing"))?;
    Ok(config)
}

/// Falcon: both blocks side by side, on one norm or (40B) each with its own; no biases.
pub(super) fn falcon(keys: &Keys) -> Result<Config, Error> {
    let mut config = layer_normed(keys, NEOX)?;
    config.required.retain(|name| !name.contains("ffn_norm"));
    config.required.push("blk.*.attn_qkv.weight");
    config.parallel = true;
    Ok(config)
}

/// Nemotron 3 and 4: squared ReLU.
pub(super) fn nemotron(keys: &Keys) -> Result<Config, Error> {
    let mut config = layer_normed(keys, NEOX)?;
    config.activation = Activation::ReluSquared;
    Ok(config)
}

/// Orion: Llama with layer norms.
pub(super) fn orion(keys: &Keys) -> Result<Config, Error> {
    let mut config = layer_normed(keys, NEOX)?;
    config.ffn = Ffn::Gated;
    config.activation = Activation::Silu;
    Ok(config)
}

/// StableLM: a gated block; the one with norms on the heads of q and k (12B) has both blocks side by
/// side on one norm.
pub(super) fn stablelm(keys: &Keys) -> Result<Config, Error> {
    let mut config = orion(keys)?;
    config.required.push("output.weight");
    if keys.gguf.tensor("blk.0.ffn_norm.weight").is_none() {
        config.required.retain(|name| !name.contains("ffn_norm"));
        config.parallel = true;
    }
    Ok(config)
}
