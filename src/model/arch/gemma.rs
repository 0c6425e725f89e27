//! Gemma: GELU, scaled embeddings, norms around both blocks from the second generation on.

use super::super::keys::Keys;
use super::super::{Config, Error, LayerRope, Norm};
use super::rope::Rope;
use super::{common, windowed_layers};
use crate::backend::{Activation, RopeOrder};

/// Layers of the largest models, whose attention scale is that of the residual width.
const GEMMA2_27B_LAYERS: usize = 46;
const GEMMA3_27B_LAYERS: usize = 62;

/// The first generation.
pub(super) fn gemma(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    config.embed_scale = (config.dim as f32).sqrt();
    config.activation = Activation::GeluTanh;
    Ok(config)
}

/// What the second and third generation share.
fn later(keys: &Keys, layers_of_27b: usize) -> Result<Config, Error> {
    let mut config = gemma(keys)?;
    config.required.extend([
        "blk.*.post_attention_norm.weight",
        "blk.*.post_ffw_norm.weight",
    ]);
    if config.layers.len() == layers_of_27b {
        config.attention_scale = 1.0 / ((config.dim / config.n_heads) as f32).sqrt();
    }
    Ok(config)
}

/// Gemma 2: every other layer sees a window, beginning with the first; scores and logits are capped.
pub(super) fn gemma2(keys: &Keys) -> Result<Config, Error> {
    let mut config = later(keys, GEMMA2_27B_LAYERS)?;
    config.attention_soft_cap = Some(
        keys.optional_positive("attn_logit_softcapping")?
            .unwrap_or(50.0),
    );
    config.final_soft_cap = Some(
        keys.optional_positive("final_logit_softcapping")?
            .unwrap_or(30.0),
    );
    let window = keys.optional_nonzero("attention.sliding_window")?;
    let windowed = windowed_layers(keys, config.layers.len(), 2)?;
    config.set_windows(window.unwrap_or(4096), &windowed);
    Ok(config)
}

/// Gemma 3: norms on the heads of q and k; all but each sixth layer see a window and turn with a
/// base of their own.
pub(super) fn gemma3(keys: &Keys) -> Result<Config, Error> {
    let mut config = later(keys, GEMMA3_27B_LAYERS)?;
    let norms = ["blk.*.attn_q_norm.weight", "blk.*.attn_k_norm.weight"];
    config.required.extend(norms);
    config.final_soft_cap = keys.optional_positive("final_logit_softcapping")?;
    let Some(window) = keys.optional_nonzero("attention.sliding_window")? else {
        return Ok(config);
    };
    let base = keys.optional_positive("rope.freq_base_swa")?;
    let rope = Rope::read(keys, config.head_dim, config.n_ctx_train)?;
    let local = config.add_rope_table(rope.unscaled(base.unwrap_or(10000.0))?);
    let windowed = windowed_layers(keys, config.layers.len(), 6)?;
    config.set_windows(window, &windowed);
    for layer in config.layers.iter_mut().filter(|l| l.window.is_some()) {
        layer.rope = Some(LayerRope { q: local, k: local });
    }
    Ok(config)
}

/// EmbeddingGemma: Gemma 3 whose tokens see the text in both directions.
pub(super) fn gemma_embedding(keys: &Keys) -> Result<Config, Error> {
    let mut config = gemma3(keys)?;
    config.causal = false;
    Ok(config)
}
