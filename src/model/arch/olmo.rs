//! OLMo, and EXAONE 4, which like OLMo 2 norms what its blocks add instead of what they read.

use super::super::keys::Keys;
use super::super::{Config, Error, LayerRope, Norm};
use super::rope::Rope;
use super::{common, windowed_layers};
use crate::backend::RopeOrder;

/// Layers of EXAONE 4 32B, the one with windows.
const EXAONE4_32B_LAYERS: usize = 64;

/// OLMo 1: layer norms without weights.
pub(super) fn olmo(keys: &Keys) -> Result<Config, Error> {
    if let Some(bound) = keys.optional_positive("attention.clamp_kqv")? {
        return Err(Error::Unsupported(format!(
            "queries, keys and values clamped to {bound}"
        )));
    }
    common(keys, Norm::PlainLayer, RopeOrder::Norm)
}

/// Norms after both blocks and on q and k, none before.
fn post_normed(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    config.required = vec![
        "output_norm.weight",
        "blk.*.attn_q_norm.weight",
        "blk.*.attn_k_norm.weight",
        "blk.*.post_attention_norm.weight",
        "blk.*.post_ffw_norm.weight",
    ];
    Ok(config)
}

/// OLMo 2 and 3. The third has windows in all but each fourth layer, which turn as if the context
/// were not stretched.
pub(super) fn olmo2(keys: &Keys) -> Result<Config, Error> {
    let mut config = post_normed(keys)?;
    let Some(window) = keys.optional_nonzero("attention.sliding_window")? else {
        return Ok(config);
    };
    let rope = Rope::read(keys, config.head_dim, config.n_ctx_train)?;
    let local = config.add_rope_table(rope.unscaled(rope.base)?);
    let windowed = windowed_layers(keys, config.layers.len(), 4)?;
    config.set_windows(window, &windowed);
    for layer in config.layers.iter_mut().filter(|l| l.window.is_some()) {
        layer.rope = Some(LayerRope { q: local, k: local });
    }
    Ok(config)
}

/// EXAONE 4. The largest has windows in all but each fourth layer, and rotary embedding only there.
pub(super) fn exaone4(keys: &Keys) -> Result<Config, Error> {
    let mut config = post_normed(keys)?;
    if config.layers.len() == EXAONE4_32B_LAYERS {
        let window = keys.optional_nonzero("attention.sliding_window")?;
        let windowed = windowed_layers(keys, config.layers.len(), 4)?;
        config.set_windows(window.unwrap_or(4096), &windowed);
        config.remove_rope(windowed.iter().map(|windowed| !windowed));
    }
    Ok(config)
}
