//! DeepSeek 2 and 3 and their kin: multi-head latent attention over mixtures of experts.

use super::super::keys::Keys;
use super::super::{Config, Error, Latent, Norm};
use super::hybrid::skip_predictors;
use super::rope::{Rope, yarn_amplitude};
use super::{common, moe};
use crate::backend::{Gating, RopeOrder, RopeScaling};

/// Models with keys of this length store the matrices that expand the compressed vector head by
/// head, so that attention can read that vector itself.
pub(super) fn deepseek2(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, RopeOrder::Norm)?;
    skip_predictors(keys, &mut config)?;
    let absorbed = keys.has("attention.key_length_mla");
    let (key_length, value_length) = match absorbed {
        true => ("attention.key_length_mla", "attention.value_length_mla"),
        false => ("attention.key_length", "attention.value_length"),
    };
    let head_dim = keys.extent(key_length)?;
    let rope_dim = keys.extent("rope.dimension_count")?;
    if rope_dim >= head_dim {
        let what = format!("a number below {head_dim} is needed");
        return Err(keys.bad("rope.dimension_count", what));
    }
    let latent = Latent {
        q_rank: keys.optional_extent("attention.q_lora_rank")?,
        kv_rank: keys.extent("attention.kv_lora_rank")?,
        nope_dim: head_dim - rope_dim,
        rope_dim,
        value_dim: keys.extent(value_length)?,
        absorbed,
    };
    if absorbed {
        config.n_kv_heads = 1;
        config.head_dim = latent.kv_rank + rope_dim;
        config.value_dim = latent.kv_rank;
    } else {
        config.n_kv_heads = config.n_heads;
        config.head_dim = head_dim;
        config.value_dim = latent.value_dim;
    }
    set_rope(keys, &mut config, &latent)?;
    let temperature = keys.optional_f32("attention.temperature_scale")?;
    if temperature.is_some_and(|scale| scale != 0.0) {
        return Err(keys.bad("attention.temperature_scale", "is not supported"));
    }
    config.latent = Some(latent);
    let ffn_dim = keys.extent("expert_feed_forward_length")?;
    let mut moe = moe::read(keys, ffn_dim, false)?;
    moe::read_weighting(keys, &mut moe, Gating::Softmax)?;
    moe.shared_dim = ffn_dim * keys.optional_extent("expert_shared_count")?.unwrap_or(0);
    moe.n_dense = moe::n_dense(keys, &config)?;
    config.moe = Some(moe);
    Ok(config)
}

/// Only the last columns of a head turn. YaRN's growth goes into the scale of attention, since the
/// other columns need it too.
fn set_rope(keys: &Keys, config: &mut Config, latent: &Latent) -> Result<(), Error> {
    let mut rope = Rope::read(keys, latent.rope_dim, config.n_ctx_train)?;
    let weight = keys.optional_f32("rope.scaling.yarn_log_multiplier")?;
    let mut growth = rope.amplitude;
    if let RopeScaling::Yarn { factor, .. } = rope.scaling {
        let stretch = 1.0 / factor;
        if let Some(weight) = weight.filter(|weight| *weight != 0.0) {
            // The file's weight has the 0.1 of YaRN's formula in it.
            rope.amplitude /= yarn_amplitude(stretch, 1.0);
            growth = rope.amplitude * yarn_amplitude(stretch, f64::from(weight) / 0.1);
        }
    }
    let head_dim = (latent.nope_dim + latent.rope_dim) as f64;
    config.attention_scale = (growth * growth / head_dim.sqrt()) as f32;
    config.rope_tables = vec![rope.table(None)?];
    Ok(())
}
