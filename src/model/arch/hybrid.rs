//! LFM 2, Qwen 3 Next and Qwen 3.5: recurrent layers, and attention in some.

use super::super::keys::Keys;
use super::super::{Config, Error, Mixer, Norm};
use super::{moe, with_kv_heads};
use crate::backend::{DeltaHeads, Gating, MAX_DELTA_HEAD, MAX_KERNEL, RopeOrder};

const HEADS: &str = "attention.head_count_kv";

/// The key heads of the layers that have any, where recurrent ones have zero.
fn one_beside_zeros(keys: &Keys, heads: &[usize]) -> Result<Option<usize>, Error> {
    let n_kv_heads = heads.iter().copied().find(|&n| n > 0);
    match heads.iter().any(|&n| n > 0 && Some(n) != n_kv_heads) {
        true => Err(keys.bad(HEADS, "zero and one other number are accepted")),
        false => Ok(n_kv_heads),
    }
}

/// LFM 2: short convolutions; layers with key heads are attention instead. The norm after the last
/// layer has the name of one before the first.
pub(super) fn lfm2(keys: &Keys) -> Result<Config, Error> {
    let heads = keys.per_layer(HEADS)?;
    let n_kv_heads = one_beside_zeros(keys, &heads)?;
    let mut config = with_kv_heads(keys, Norm::Rms, RopeOrder::Neox, n_kv_heads)?;
    config.output_norm = "token_embd_norm";
    for name in &mut config.required {
        if *name == "output_norm.weight" {
            *name = "token_embd_norm.weight";
        }
    }
    if heads.len() != config.layers.len() {
        return Err(keys.bad(HEADS, "a number for each layer is needed"));
    }
    let kernel = kernel(keys, "shortconv.l_cache")?;
    let window = keys.optional_extent("attention.sliding_window")?;
    for (layer, n) in config.layers.iter_mut().zip(heads) {
        match n {
            0 => layer.mixer = Mixer::ShortConv { kernel },
            _ => layer.window = window,
        }
    }
    Ok(config)
}

/// LFM 2 with experts in all but the first layers.
pub(super) fn lfm2moe(keys: &Keys) -> Result<Config, Error> {
    let mut config = lfm2(keys)?;
    let mut experts = moe::read(keys, keys.extent("expert_feed_forward_length")?, true)?;
    experts.routing.gating = moe::gating(keys, Gating::Sigmoid)?;
    experts.n_dense = moe::n_dense(keys, &config)?;
    config.moe = Some(experts);
    Ok(config)
}

/// Taps of a convolution along the sequence.
fn kernel(keys: &Keys, name: &str) -> Result<usize, Error> {
    let kernel = keys.extent(name)?;
    match (2..=MAX_KERNEL).contains(&kernel) {
        true => Ok(kernel),
        false => Err(Error::Unsupported(format!(
            "a convolution over {kernel} tokens"
        ))),
    }
}

/// Qwen 3.5.
pub(super) fn qwen35(keys: &Keys) -> Result<Config, Error> {
    delta_net(keys, false)
}

/// Qwen 3.5 with experts.
pub(super) fn qwen35moe(keys: &Keys) -> Result<Config, Error> {
    let mut config = delta_net(keys, false)?;
    moe::with_gated_shared(keys, &mut config, true)?;
    Ok(config)
}

/// Qwen 3 Next, whose neighbouring value heads share a key head.
pub(super) fn qwen3next(keys: &Keys) -> Result<Config, Error> {
    let mut config = delta_net(keys, true)?;
    moe::with_gated_shared(keys, &mut config, true)?;
    Ok(config)
}

/// Gated delta nets, and gated attention in each fourth layer. Layers that predict further tokens
/// follow in some files and are not run.
fn delta_net(keys: &Keys, grouped: bool) -> Result<Config, Error> {
    const REORDERED: &str = "ssm.v_head_reordered";
    if keys.optional_bool(REORDERED)? == Some(false) {
        return Err(keys.bad(REORDERED, "false is not supported"));
    }
    let n_kv_heads = match keys.is_array(HEADS) {
        false => keys.optional_extent(HEADS)?,
        true => one_beside_zeros(keys, &keys.per_layer(HEADS)?)?,
    };
    let mut config = with_kv_heads(keys, Norm::Rms, RopeOrder::Neox, n_kv_heads)?;
    if config.head_dim != config.value_dim {
        return Err(Error::Unsupported(
            "gated attention whose keys and values differ in length".into(),
        ));
    }
    config.gated_attention = true;
    config.ffn_norm = "post_attention_norm";
    for name in &mut config.required {
        if *name == "blk.*.ffn_norm.weight" {
            *name = "blk.*.post_attention_norm.weight";
        }
    }
    skip_predictors(keys, &mut config)?;
    let heads = delta_heads(keys, grouped)?;
    let kernel = kernel(keys, "ssm.conv_kernel")?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        if is_recurrent(keys, i)? {
            layer.mixer = Mixer::DeltaNet { kernel, heads };
        }
    }
    Ok(config)
}

/// Takes the layers that predict further tokens, the last ones, out of the model.
pub(super) fn skip_predictors(keys: &Keys, config: &mut Config) -> Result<(), Error> {
    const KEY: &str = "nextn_predict_layers";
    let n_skipped = keys.optional_positive(KEY)?.map_or(0, |n| n as usize);
    match config.layers.len().checked_sub(n_skipped) {
        None | Some(0) => Err(keys.bad(KEY, "fewer than all layers are accepted")),
        Some(n_layers) => {
            config.n_skipped_layers = n_skipped;
            config.layers.truncate(n_layers);
            Ok(())
        }
    }
}

fn delta_heads(keys: &Keys, grouped: bool) -> Result<DeltaHeads, Error> {
    let heads = DeltaHeads {
        n_heads: keys.extent("ssm.time_step_rank")?,
        n_key_heads: keys.extent("ssm.group_count")?,
        head_dim: keys.extent("ssm.state_size")?,
        grouped,
    };
    let fits = heads.head_dim.is_multiple_of(16) && heads.head_dim <= MAX_DELTA_HEAD;
    if !fits || !heads.n_heads.is_multiple_of(heads.n_key_heads) {
        return Err(Error::Unsupported(format!(
            "a delta rule with {} heads of {} columns over {} key heads",
            heads.n_heads, heads.head_dim, heads.n_key_heads
        )));
    }
    match keys.extent("ssm.inner_size")? == heads.out_dim() {
        true => Ok(heads),
        false => Err(keys.bad(
            "ssm.inner_size",
            format!("{} is needed, as its heads have", heads.out_dim()),
        )),
    }
}

/// Whether layer `i` is a delta net: all but each fourth one are, where the file does not say it.
fn is_recurrent(keys: &Keys, i: usize) -> Result<bool, Error> {
    const KEY: &str = "attention.recurrent_layers";
    if let Some(layers) = keys.optional_bools(KEY)? {
        let layer = layers.get(i).copied();
        return layer.ok_or_else(|| keys.bad(KEY, "one for each layer is needed"));
    }
    let interval = keys.optional_extent("full_attention_interval")?;
    Ok(!(i + 1).is_multiple_of(interval.unwrap_or(4)))
}
