//! Families with mixtures of experts.

use super::super::keys::Keys;
use super::super::{Config, Error, LayerRope, Moe, Norm};
use super::hybrid::skip_predictors;
use super::rope::Rope;
use super::{common, llama, windowed_layers};
use crate::backend::{Activation, Gating, MAX_EXPERTS, RopeOrder, Routing};

/// The mixture that the metadata describes, with experts of `ffn_dim` columns: softmax over all
/// experts, none shared, in every layer.
pub(super) fn read(keys: &Keys, ffn_dim: usize, normalise: bool) -> Result<Moe, Error> {
    let n_experts = keys.extent("expert_count")?;
    if n_experts > MAX_EXPERTS {
        let what = format!("at most {MAX_EXPERTS} experts are accepted");
        return Err(keys.bad("expert_count", what));
    }
    let n_used = keys.extent("expert_used_count")?;
    if n_used > n_experts {
        return Err(keys.bad("expert_used_count", format!("is more than {n_experts}")));
    }
    let mut routing = Routing::softmax(n_used, normalise);
    let n_groups = keys.optional_positive("expert_group_count")?;
    if n_groups.is_some_and(|n| n > 1.0) {
        routing.n_groups = keys.extent("expert_group_count")?;
        routing.n_groups_used = keys.extent("expert_group_used_count")?;
        let fits = n_experts.is_multiple_of(routing.n_groups)
            && routing.n_groups_used <= routing.n_groups
            && n_used <= n_experts / routing.n_groups * routing.n_groups_used;
        if !fits {
            let what = format!(
                "{} groups, {} used, do not fit {n_used} of {n_experts} experts",
                routing.n_groups, routing.n_groups_used
            );
            return Err(keys.bad("expert_group_count", what));
        }
    }
    Ok(Moe {
        n_experts,
        ffn_dim,
        routing,
        n_dense: 0,
        period: 1,
        shared_dim: 0,
        beside: false,
    })
}

/// Whether the file has experts at all.
pub(super) fn has_experts(keys: &Keys) -> Result<bool, Error> {
    Ok(keys.optional_positive("expert_count")?.is_some())
}

/// Width of an expert where the file may leave it to the width of all used ones together.
fn expert_dim(keys: &Keys, config: &Config) -> Result<usize, Error> {
    match keys.optional_positive("expert_feed_forward_length")? {
        Some(_) => keys.extent("expert_feed_forward_length"),
        None => Ok(config.ffn_dim / keys.extent("expert_used_count")?),
    }
}

/// Width of the experts that every token goes through; zero for none.
fn shared_dim(keys: &Keys) -> Result<usize, Error> {
    const KEY: &str = "expert_shared_feed_forward_length";
    match keys.optional_positive(KEY)? {
        Some(_) => keys.extent(KEY),
        None => Ok(0),
    }
}

/// How scores become weights, by the file's number.
pub(super) fn gating(keys: &Keys, default: Gating) -> Result<Gating, Error> {
    const KEY: &str = "expert_gating_func";
    match keys.optional_positive(KEY)? {
        None => Ok(default),
        Some(1.0) => Ok(Gating::Softmax),
        Some(2.0) => Ok(Gating::Sigmoid),
        Some(3.0) => Ok(Gating::SoftmaxOfChosen),
        Some(other) => Err(keys.bad(KEY, format!("{other} is not known, 1 to 3 are"))),
    }
}

/// Qwen 1.5 and 2 MoE: an expert for every token, behind a gate of its own.
pub(super) fn qwen2moe(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama::qwen2(keys)?;
    with_gated_shared(keys, &mut config, false)?;
    config.required.push("output.weight");
    Ok(config)
}

/// Puts experts in the place of the feed-forward block, one of which is for every token and has a
/// gate of its own.
pub(super) fn with_gated_shared(
    keys: &Keys,
    config: &mut Config,
    normalise: bool,
) -> Result<(), Error> {
    let mut moe = read(keys, expert_dim(keys, config)?, normalise)?;
    moe.shared_dim = match shared_dim(keys)? {
        0 => config.ffn_dim,
        n => n,
    };
    config.moe = Some(moe);
    config.required.push("blk.*.ffn_gate_inp_shexp.weight");
    Ok(())
}

/// Qwen 3 MoE.
pub(super) fn qwen3moe(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama::qwen3(keys)?;
    config.moe = Some(read(keys, expert_dim(keys, &config)?, true)?);
    Ok(config)
}

/// OLMoE: norms over all heads of q and of k together.
pub(super) fn olmoe(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    config.moe = Some(read(keys, config.ffn_dim, false)?);
    config.required.extend([
        "output.weight",
        "blk.*.attn_q_norm.weight",
        "blk.*.attn_k_norm.weight",
    ]);
    Ok(config)
}

/// Phi 3.5 MoE: root-mean-square norms with biases, as llama.cpp reads them; frequencies by the
/// context's size.
pub(super) fn phimoe(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    config.moe = Some(read(keys, config.ffn_dim, true)?);
    config.required.extend([
        "output_norm.bias",
        "output.weight",
        "output.bias",
        "blk.*.attn_norm.bias",
        "blk.*.attn_output.bias",
        "blk.*.ffn_norm.bias",
    ]);
    Ok(config)
}

/// Granite 3 and 4 MoE, with shared experts where the file says so.
pub(super) fn granitemoe(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama::granite(keys)?;
    let mut moe = read(keys, config.ffn_dim, true)?;
    moe.shared_dim = shared_dim(keys)?;
    config.moe = Some(moe);
    Ok(config)
}

/// ERNIE 4.5 MoE.
pub(super) fn ernie4_5_moe(keys: &Keys) -> Result<Config, Error> {
    const STEP: &str = "interleave_moe_layer_step";
    let mut config = llama::llama(keys)?;
    let step = keys.extent(STEP)?;
    if step != 1 {
        return Err(keys.bad(STEP, format!("{step} is not supported, 1 is")));
    }
    let mut moe = read(keys, keys.extent("expert_feed_forward_length")?, true)?;
    moe.shared_dim = shared_dim(keys)?;
    moe.n_dense = n_dense(keys, &config)?;
    config.moe = Some(moe);
    Ok(config)
}

/// DeepSeek MoE, the first: experts beside shared ones in all but the first layers.
pub(super) fn deepseek(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama::llama(keys)?;
    let mut moe = with_shared(keys, &config)?;
    let scale = keys.optional_positive("expert_weights_scale")?;
    moe.routing.scale = scale.unwrap_or(1.0);
    config.moe = Some(moe);
    Ok(config)
}

/// dots.llm1: as DeepSeek's, with norms on the heads of q and k.
pub(super) fn dots1(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama::qwen3(keys)?;
    let mut moe = with_shared(keys, &config)?;
    read_weighting(keys, &mut moe, Gating::Sigmoid)?;
    config.moe = Some(moe);
    config.required.push("output.weight");
    Ok(config)
}

/// So many shared experts of the width of the others, behind leading layers without any.
fn with_shared(keys: &Keys, config: &Config) -> Result<Moe, Error> {
    let ffn_dim = keys.extent("expert_feed_forward_length")?;
    let mut moe = read(keys, ffn_dim, false)?;
    moe.shared_dim = ffn_dim * keys.extent("expert_shared_count")?;
    moe.n_dense = n_dense(keys, config)?;
    Ok(moe)
}

/// HunYuan with experts, beside one for every token.
pub(super) fn hunyuan(keys: &Keys) -> Result<Config, Error> {
    let mut config = llama::hunyuan(keys)?;
    let mut moe = read(keys, config.ffn_dim, true)?;
    moe.shared_dim = match shared_dim(keys)? {
        0 => config.ffn_dim,
        n => n,
    };
    config.moe = Some(moe);
    Ok(config)
}

/// MiniMax M2: norms over all heads of q and of k together, experts chosen by sigmoids.
pub(super) fn minimax_m2(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    let mut moe = read(keys, config.ffn_dim, true)?;
    moe.routing.gating = gating(keys, Gating::Sigmoid)?;
    config.moe = Some(moe);
    config.required.extend([
        "output.weight",
        "blk.*.attn_q_norm.weight",
        "blk.*.attn_k_norm.weight",
        "blk.*.exp_probs_b.bias",
    ]);
    Ok(config)
}

/// GLM 4.5 and 4.6: experts chosen by sigmoids, the norm before the block named as that after
/// attention.
pub(super) fn glm4moe(keys: &Keys) -> Result<Config, Error> {
    if keys.has("rope.dimension_sections") {
        return Err(Error::Unsupported("rotary embedding by sections".into()));
    }
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    skip_predictors(keys, &mut config)?;
    name_ffn_norm(&mut config);
    let ffn_dim = keys.extent("expert_feed_forward_length")?;
    let mut moe = read(keys, ffn_dim, false)?;
    read_weighting(keys, &mut moe, Gating::Sigmoid)?;
    moe.shared_dim = ffn_dim * keys.optional_extent("expert_shared_count")?.unwrap_or(0);
    moe.n_dense = n_dense(keys, &config)?;
    config.moe = Some(moe);
    Ok(config)
}

/// gpt-oss: sinks in attention, windows in all but each second layer, biases everywhere, clamped
/// activations, softmax over the chosen experts.
pub(super) fn gpt_oss(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    name_ffn_norm(&mut config);
    config.activation = Activation::ClampedSwish;
    let mut moe = read(keys, keys.extent("expert_feed_forward_length")?, false)?;
    moe.routing.gating = Gating::SoftmaxOfChosen;
    config.moe = Some(moe);
    let window = keys.extent("attention.sliding_window")?;
    let windowed = windowed_layers(keys, config.layers.len(), 2)?;
    config.set_windows(window, &windowed);
    if let Some(base) = keys.optional_positive("rope.freq_base_swa")? {
        let rope = Rope::read(keys, config.head_dim, config.n_ctx_train)?;
        let local = config.add_rope_table(Rope { base, ..rope }.table(None)?);
        for layer in config.layers.iter_mut().filter(|l| l.window.is_some()) {
            layer.rope = Some(LayerRope { q: local, k: local });
        }
    }
    config.required.extend([
        "output.weight",
        "blk.*.attn_sinks.weight",
        "blk.*.attn_output.bias",
        "blk.*.ffn_gate_inp.bias",
        "blk.*.ffn_gate_exps.bias",
        "blk.*.ffn_up_exps.bias",
        "blk.*.ffn_down_exps.bias",
    ]);
    Ok(config)
}

/// The norm before the feed-forward block goes by the name of the one after attention.
fn name_ffn_norm(config: &mut Config) {
    config.ffn_norm = "post_attention_norm";
    config.required.retain(|name| !name.contains("ffn_norm"));
    config.required.push("blk.*.post_attention_norm.weight");
}

/// Gating, normalisation and scale as the file says.
pub(super) fn read_weighting(keys: &Keys, moe: &mut Moe, default: Gating) -> Result<(), Error> {
    moe.routing.gating = gating(keys, default)?;
    moe.routing.normalise = keys.optional_bool("expert_weights_norm")?.unwrap_or(false);
    let scale = keys.optional_positive("expert_weights_scale")?;
    moe.routing.scale = scale.unwrap_or(1.0);
    Ok(())
}

/// Leading layers without experts.
pub(super) fn n_dense(keys: &Keys, config: &Config) -> Result<usize, Error> {
    const KEY: &str = "leading_dense_block_count";
    let n = match keys.optional_positive(KEY)? {
        Some(_) => keys.extent(KEY)?,
        None => 0,
    };
    match n <= config.layers.len() {
        true => Ok(n),
        false => Err(keys.bad(KEY, format!("is more than {}", config.layers.len()))),
    }
}
