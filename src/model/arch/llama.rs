//! Llama and what differs from it in a few numbers.

use super::super::keys::Keys;
use super::super::{Config, Error, Ffn, Norm};
use super::rope::{Rope, yarn_amplitude};
use super::{common, moe};
use crate::backend::{RopeOrder, RopeScaling, Temperature};

/// Llama 1 to 3, Mistral, SmolLM 1 and 2, InternLM 2, ERNIE 4.5 and their kin.
pub(super) fn llama(keys: &Keys) -> Result<Config, Error> {
    common(keys, Norm::Rms, RopeOrder::Norm)
}

/// Llama itself, which may have experts: Mixtral.
pub(super) fn mixtral(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama(keys)?;
    if moe::has_experts(keys)? {
        config.moe = Some(moe::read(keys, config.ffn_dim, true)?);
    }
    Ok(config)
}

/// Qwen 2 and 2.5: biases on q, k, v.
pub(super) fn qwen2(keys: &Keys) -> Result<Config, Error> {
    common(keys, Norm::Rms, RopeOrder::Neox)
}

/// Qwen 3: norms on the heads of q and k.
pub(super) fn qwen3(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    let norms = ["blk.*.attn_q_norm.weight", "blk.*.attn_k_norm.weight"];
    config.required.extend(norms);
    Ok(config)
}

/// Mistral Small 3.x and Ministral 3: YaRN whose amplitude may be divided by that of another
/// weight, and queries that grow with the position.
pub(super) fn mistral3(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama(keys)?;
    let rope = Rope::read(keys, config.head_dim, config.n_ctx_train)?;
    if let RopeScaling::Yarn { factor, .. } = rope.scaling {
        let weight = keys.optional_f32("rope.scaling.yarn_log_multiplier")?;
        let other = yarn_amplitude(1.0 / factor, f64::from(weight.unwrap_or(0.0)));
        config.rope_tables = config
            .rope_tables
            .into_iter()
            .map(|t| t.amplified(1.0 / other))
            .collect();
    }
    let scale = keys.optional_f32("attention.temperature_scale")?;
    if let Some(scale) = scale.filter(|scale| *scale != 0.0) {
        if rope.rotary_dim != config.head_dim || config.long_rope.is_some() {
            return Err(keys.bad(
                "attention.temperature_scale",
                "is accepted where whole heads turn, by one table",
            ));
        }
        let queries = config.rope_tables[0].clone().with_temperature(Temperature {
            scale: f64::from(scale),
            n_ctx: rope.n_ctx_orig as f64,
        });
        let q = config.add_rope_table(queries);
        for rope in config.layers.iter_mut().filter_map(|l| l.rope.as_mut()) {
            rope.q = q;
        }
    }
    Ok(config)
}

/// SmolLM 3: no rotary embedding in each fourth layer.
pub(super) fn smollm3(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama(keys)?;
    config.remove_rope((0..).map(|i| i % 4 == 3));
    Ok(config)
}

/// Granite 3 and 4: factors on embeddings, residuals, attention and logits.
pub(super) fn granite(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama(keys)?;
    let factor = |name| keys.optional_positive(name);
    config.embed_scale = factor("embedding_scale")?.unwrap_or(1.0);
    config.residual_scale = factor("residual_scale")?.unwrap_or(1.0);
    if let Some(scale) = factor("attention.scale")? {
        config.attention_scale = scale;
    }
    let logits = factor("logit_scale")?;
    let logits = logits.ok_or_else(|| keys.bad("logit_scale", "a positive number is needed"))?;
    config.logit_scale = 1.0 / logits;
    // Granite says by this key whether queries and keys turn at all.
    if keys.optional_bool("rope.scaling.finetuned")? == Some(false) {
        config.remove_rope(std::iter::repeat(true));
    }
    Ok(config)
}

/// GLM 4: norms before and after both blocks, gate and up in one tensor, half of a head turns.
pub(super) fn glm4(keys: &Keys) -> Result<Config, Error> {
    if keys.has("rope.dimension_sections") {
        return Err(Error::Unsupported("rotary embedding by sections".into()));
    }
    let mut config = llama(keys)?;
    config.ffn = Ffn::GatedFused;
    config.required.extend([
        "blk.*.post_attention_norm.weight",
        "blk.*.post_ffw_norm.weight",
    ]);
    Ok(config)
}
