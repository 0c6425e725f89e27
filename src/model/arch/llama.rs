//! Llama and what differs from it in a few numbers.

use super::super::keys::Keys;
use super::super::{Config, Error, Ffn, Norm};
use super::rope::{Rope, yarn_amplitude};
use super::{common, moe};
use crate::backend::{Activation, RopeOrder, RopeScaling, Temperature};

/// Llama 1 to 3, Mistral, SmolLM 1 and 2, InternLM 2, ERNIE 4.5, XVERSE and their kin.
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

/// Qwen 1: q, k, v in one tensor; the file's width is that of gate and up together.
pub(super) fn qwen(keys: &Keys) -> Result<Config, Error> {
    let mut config = qwen2(keys)?;
    let fused = ["blk.*.attn_qkv.weight", "blk.*.attn_qkv.bias"];
    config.required.extend(fused);
    config.ffn_dim /= 2;
    Ok(config)
}

/// Qwen 2 and 2.5, EXAONE 3. Qwen 2 VL and 3 VL turn parts of a head by the time, row and column of
/// an image, which for text are all the position.
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

/// Arcee: squared ReLU without a gate.
pub(super) fn arcee(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama(keys)?;
    config.ffn = Ffn::Plain;
    config.activation = Activation::ReluSquared;
    Ok(config)
}

/// Seed OSS: the norm before the feed-forward block has the name of one after attention.
pub(super) fn seed_oss(keys: &Keys) -> Result<Config, Error> {
    let mut config = qwen2(keys)?;
    config.ffn_norm = "post_attention_norm";
    config.required.retain(|name| !name.contains("ffn_norm"));
    config.required.push("blk.*.post_attention_norm.weight");
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

/// MiniCPM 1 and 2: Granite's factors, which older files leave out.
pub(super) fn minicpm(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama(keys)?;
    let or = |name, default| Ok::<_, Error>(keys.optional_positive(name)?.unwrap_or(default));
    config.embed_scale = or("embedding_scale", 12.0)?;
    let n_layers = config.layers.len() as f32;
    config.residual_scale = or("residual_scale", 1.4 / n_layers.sqrt())?;
    config.logit_scale = 1.0 / or("logit_scale", 256.0 / config.dim as f32)?;
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

/// HunYuan without experts: norms on the heads of q and k after they turned.
pub(super) fn hunyuan(keys: &Keys) -> Result<Config, Error> {
    let mut config = qwen3(keys)?;
    config.head_norms_last = true;
    if let Some(alpha) = keys.optional_positive("rope.scaling.alpha")? {
        let mut rope = Rope::read(keys, config.head_dim, config.n_ctx_train)?;
        let dim = config.head_dim as f32;
        rope.base *= alpha.powf(dim / (dim - 2.0).max(1.0));
        config.rope_tables = vec![rope.table(None)?];
    }
    Ok(config)
}

/// ChatGLM 3, GLM 4 9B of 2024: gate and up in one tensor, half of a head turns.
pub(super) fn chatglm(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama(keys)?;
    config.ffn = Ffn::GatedFused;
    Ok(config)
}

/// GLM 4 of 2025: norms before and after both blocks, gate and up in one tensor, half of a head turns.
pub(super) fn glm4(keys: &Keys) -> Result<Config, Error> {
    if keys.has("rope.dimension_sections") {
        return Err(Error::Unsupported("rotary embedding by sections".into()));
    }
    let mut config = chatglm(keys)?;
    config.required.extend([
        "blk.*.post_attention_norm.weight",
        "blk.*.post_ffw_norm.weight",
    ]);
    Ok(config)
}
