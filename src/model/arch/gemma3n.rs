//! Gemma 3n: several residual streams, an embedding of its own for each layer, sparse gates in the
//! first layers, and last layers that read the keys and values of earlier ones.

use super::super::config::AltUp;
use super::super::keys::Keys;
use super::super::{Config, Error, LayerRope, Norm};
use super::gemma4::share_caches;
use super::rope::Rope;
use super::{common, windowed_layers};
use crate::backend::{Activation, RopeOrder};

/// Of so many layers the last has no window, where the file does not say which have.
const PERIOD: usize = 5;

/// Where the file does not say it: streams, layers with keys and values of their own, the cap of
/// logits, and how many layers keep of their gates what is how far above the mean (19 of 20 numbers
/// are below, if they are normally distributed).
const N_STREAMS: usize = 4;
const N_OWN_CACHES: usize = 20;
const FINAL_SOFT_CAP: f32 = 30.0;
const N_SPARSE: usize = 10;
const CUTOFF: f32 = 1.644_853_5;

/// The text part.
pub(super) fn gemma3n(keys: &Keys) -> Result<Config, Error> {
    const SOFT_CAP: &str = "final_logit_softcapping";
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    let n_layers = config.layers.len();
    config.embed_scale = (config.dim as f32).sqrt();
    config.activation = Activation::GeluTanh;
    config.attention_scale = 1.0;
    config.value_norms = true;
    let cap = keys.optional_f32(SOFT_CAP)?.unwrap_or(FINAL_SOFT_CAP);
    config.final_soft_cap = Some(cap).filter(|&cap| cap > 0.0);
    config.layer_embed_dim = Some(keys.extent("embedding_length_per_layer_input")?);
    config.required.extend([
        "blk.*.attn_q_norm.weight",
        "blk.*.post_attention_norm.weight",
        "blk.*.post_ffw_norm.weight",
    ]);
    let base = keys.optional_positive("rope.freq_base_swa")?;
    let rope = Rope::read(keys, config.head_dim, config.n_ctx_train)?;
    let local = config.add_rope_table(rope.unscaled(base.unwrap_or(10000.0))?);
    let windowed = windowed_layers(keys, n_layers, PERIOD)?;
    config.set_windows(keys.extent("attention.sliding_window")?, &windowed);
    for layer in config.layers.iter_mut().filter(|l| l.window.is_some()) {
        layer.rope = Some(LayerRope { q: local, k: local });
    }
    share_caches(keys, &mut config, n_layers.saturating_sub(N_OWN_CACHES))?;
    config.altup = Some(altup(keys, n_layers)?);
    Ok(config)
}

fn altup(keys: &Keys, n_layers: usize) -> Result<AltUp, Error> {
    const ACTIVE: &str = "altup.active_idx";
    const STREAMS: &str = "altup.num_inputs";
    const CUTOFFS: &str = "activation_sparsity_scale";
    if keys.optional_nonzero(ACTIVE)?.is_some() {
        return Err(keys.bad(ACTIVE, "only the first stream can be the active one"));
    }
    let n_streams = keys.optional_extent(STREAMS)?.unwrap_or(N_STREAMS);
    if !(2..=16).contains(&n_streams) {
        return Err(keys.bad(STREAMS, "a number from 2 to 16 is needed"));
    }
    let gate_cutoffs = match keys.optional_f32s(CUTOFFS)? {
        // Minus infinity keeps all numbers as they are.
        Some(cutoffs) if cutoffs.len() == n_layers => {
            let finite = cutoffs.into_iter().map(Some);
            finite.map(|c| c.filter(|c| c.is_finite())).collect()
        }
        Some(_) => return Err(keys.bad(CUTOFFS, "a number for each layer is needed")),
        None => (0..n_layers)
            .map(|i| (i < N_SPARSE).then_some(CUTOFF))
            .collect(),
    };
    Ok(AltUp {
        n_streams,
        gate_cutoffs,
    })
}
