//! Gemma 4: layers with windows and layers without have heads of different widths,
//! the last layers read the keys and values of earlier ones, and each may have an embedding of its
//! own. Where there are experts, they stand beside the feed-forward block.

use super::super::keys::Keys;
use super::super::{Config, Error, Heads, LayerRope, Norm};
use super::rope::Rope;
use super::{moe, n_layers, windowed_layers, with_kv_heads};
use crate::backend::{Activation, RopeOrder};

/// Of so many layers the last has no window, where the file does not say which have.
const PERIOD: usize = 6;

/// The cap of logits, where the file does not say it.
const FINAL_SOFT_CAP: f32 = 30.0;

/// The text part.
pub(super) fn gemma4(keys: &Keys) -> Result<Config, Error> {
    let n_layers = n_layers(keys)?;
    let n_kv_heads = keys.extents("attention.head_count_kv", n_layers)?;
    let mut config = with_kv_heads(keys, Norm::Rms, RopeOrder::Neox, Some(n_kv_heads[0]))?;
    config.embed_scale = (config.dim as f32).sqrt();
    config.activation = Activation::GeluTanh;
    config.attention_scale = 1.0;
    config.value_norms = true;
    let cap = keys.optional_f32("final_logit_softcapping")?;
    config.final_soft_cap = Some(cap.unwrap_or(FINAL_SOFT_CAP)).filter(|&cap| cap > 0.0);
    config.layer_embed_dim = keys.optional_nonzero("embedding_length_per_layer_input")?;
    config.required.extend([
        "blk.*.attn_q_norm.weight",
        "blk.*.post_attention_norm.weight",
        "blk.*.post_ffw_norm.weight",
    ]);
    let windowed = windowed_layers(keys, n_layers, PERIOD)?;
    config.set_windows(keys.extent("attention.sliding_window")?, &windowed);
    let local_dim = keys.extent("attention.key_length_swa")?;
    let local_values = keys.extent("attention.value_length_swa")?;
    if config.head_dim != config.value_dim || local_dim != local_values {
        let text = "Gemma 4 whose keys and values differ in length";
        return Err(Error::Unsupported(text.into()));
    }
    let local = config.add_rope_table(local_rope(keys, &config, local_dim)?);
    for ((layer, n_kv), windowed) in config.layers.iter_mut().zip(n_kv_heads).zip(windowed) {
        let dim = if windowed { local_dim } else { config.head_dim };
        layer.heads = Some(Heads {
            n: config.n_heads,
            n_kv,
            key_dim: dim,
            value_dim: dim,
        });
        if windowed {
            layer.rope = Some(LayerRope { q: local, k: local });
        }
    }
    share_caches(keys, &mut config, 0)?;
    if moe::has_experts(keys)? {
        let ffn_dim = keys.extent("expert_feed_forward_length")?;
        let mut experts = moe::read(keys, ffn_dim, true)?;
        experts.beside = true;
        config.moe = Some(experts);
    }
    Ok(config)
}

/// How heads of layers with windows turn: in a context that is not stretched.
fn local_rope(
    keys: &Keys,
    config: &Config,
    head_dim: usize,
) -> Result<crate::backend::RopeTable, Error> {
    const DIM: &str = "rope.dimension_count_swa";
    let rotary_dim = keys.optional_extent(DIM)?.unwrap_or(head_dim);
    if rotary_dim > head_dim || rotary_dim % 2 != 0 {
        return Err(keys.bad(DIM, format!("an even number up to {head_dim} is needed")));
    }
    let base = keys.optional_positive("rope.freq_base_swa")?;
    let rope = Rope::read(keys, config.head_dim, config.n_ctx_train)?;
    Rope { rotary_dim, ..rope }.unscaled(base.unwrap_or(10000.0))
}

/// The last layers read the keys and values of the last one before them that has a window too, or
/// has none; so many where the file does not say it.
pub(super) fn share_caches(keys: &Keys, config: &mut Config, default: usize) -> Result<(), Error> {
    const KEY: &str = "attention.shared_kv_layers";
    let n_shared = match keys.has(KEY) {
        true => keys.optional_nonzero(KEY)?.unwrap_or(0),
        false => default,
    };
    let n_layers = config.layers.len();
    let Some(n_own) = n_layers.checked_sub(n_shared) else {
        return Err(keys.bad(KEY, format!("is more than {n_layers}")));
    };
    let (own, shared) = config.layers.split_at_mut(n_own);
    for layer in shared {
        let same = |other: &super::Layer| {
            other.window.is_some() == layer.window.is_some() && other.heads == layer.heads
        };
        layer.cache_of = own.iter().rposition(same);
        if layer.cache_of.is_none() {
            return Err(keys.bad(KEY, "no layer before has heads of the same kind"));
        }
    }
    Ok(())
}
