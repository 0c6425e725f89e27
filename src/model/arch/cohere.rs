//! Cohere's Command: layer norms without bias, both blocks side by side on one norm.

use super::super::keys::Keys;
use super::super::{Config, Error, Norm};
use super::{common, windowed_layers};
use crate::backend::RopeOrder;

/// Models of at least so many layers have norms on q and k (Command R+).
const R_PLUS_LAYERS: usize = 64;

fn command(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Layer, RopeOrder::Norm)?;
    config.required = vec!["output_norm.weight", "blk.*.attn_norm.weight"];
    config.parallel = true;
    config.logit_scale = keys.optional_positive("logit_scale")?.unwrap_or(1.0);
    Ok(config)
}

/// Command R and R+.
pub(super) fn command_r(keys: &Keys) -> Result<Config, Error> {
    let mut config = command(keys)?;
    if config.layers.len() >= R_PLUS_LAYERS {
        let norms = ["blk.*.attn_q_norm.weight", "blk.*.attn_k_norm.weight"];
        config.required.extend(norms);
    }
    Ok(config)
}

/// Command R7B and A: windows in all but each fourth layer, and rotary embedding only there.
pub(super) fn cohere2(keys: &Keys) -> Result<Config, Error> {
    let mut config = command(keys)?;
    let window = keys.extent("attention.sliding_window")?;
    let windowed = windowed_layers(keys, config.layers.len(), 4)?;
    config.set_windows(window, &windowed);
    config.remove_rope(windowed.iter().map(|windowed| !windowed));
    Ok(config)
}
