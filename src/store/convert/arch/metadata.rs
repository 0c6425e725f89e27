//! What `config.json` says, as metadata of a GGUF file.

use super::super::Error;
use super::super::config::Config;
use super::super::rope::{self, Factors};
use super::Keys;

/// Query heads and heads of keys and values.
pub fn heads(config: &Config) -> Result<(u32, u32), Error> {
    let n_heads = config.u32("num_attention_heads")?;
    let n_kv_heads = config.optional_u32("num_key_value_heads")?;
    Ok((n_heads, n_kv_heads.unwrap_or(n_heads)))
}

/// What all models have.
fn extents(config: &Config, keys: &mut Keys) -> Result<(), Error> {
    let (n_heads, n_kv_heads) = heads(config)?;
    keys.u32("context_length", config.u32("max_position_embeddings")?);
    keys.u32("embedding_length", config.u32("hidden_size")?);
    keys.u32("block_count", config.n_layers()?);
    keys.u32("feed_forward_length", config.u32("intermediate_size")?);
    keys.u32("vocab_size", config.u32("vocab_size")?);
    keys.u32("attention.head_count", n_heads);
    keys.u32("attention.head_count_kv", n_kv_heads);
    Ok(())
}

/// Decoders with rotary embedding and one kind of layer.
pub fn decoder(config: &Config, keys: &mut Keys, activation: &str) -> Result<Factors, Error> {
    config.only("hidden_act", &[activation])?;
    extents(config, keys)?;
    keys.f32(
        "attention.layer_norm_rms_epsilon",
        config.f64("rms_norm_eps")?,
    );
    let head_dim = head_dim(config, keys)?;
    let turning = config.optional_f64("partial_rotary_factor")?.unwrap_or(1.0);
    if turning > 1.0 {
        return Err(config.bad("partial_rotary_factor", "must be at most 1"));
    }
    let n_dims = (f64::from(head_dim) * turning) as u32;
    rope::write(config, keys, n_dims, 10000.0)
}

/// Columns of a head, which newer files name.
fn head_dim(config: &Config, keys: &mut Keys) -> Result<u32, Error> {
    let Some(head_dim) = config.optional_u32("head_dim")? else {
        let (dim, n_heads) = (
            config.u32("hidden_size")?,
            config.u32("num_attention_heads")?,
        );
        return match dim.is_multiple_of(n_heads) {
            true => Ok(dim / n_heads),
            false => Err(config.bad("hidden_size", format!("is no multiple of {n_heads} heads"))),
        };
    };
    keys.u32("attention.key_length", head_dim);
    keys.u32("attention.value_length", head_dim);
    Ok(head_dim)
}

/// Qwen 2, 2.5 and 3.
pub fn qwen2(config: &Config, keys: &mut Keys) -> Result<Factors, Error> {
    if config.optional_bool("use_sliding_window")? == Some(true) {
        return Err(config.bad("use_sliding_window", "true is not supported"));
    }
    decoder(config, keys, "silu")
}

/// Experts of a layer, of each of which a token uses some.
pub fn n_experts(config: &Config) -> Result<u32, Error> {
    match config.optional_u32("num_local_experts")? {
        Some(n) => Ok(n),
        None => config.u32("num_experts"),
    }
}

fn experts(config: &Config, keys: &mut Keys) -> Result<(), Error> {
    let (n, n_used) = (n_experts(config)?, config.u32("num_experts_per_tok")?);
    if n_used > n {
        return Err(config.bad(
            "num_experts_per_tok",
            format!("is more than the {n} there are"),
        ));
    }
    keys.u32("expert_count", n);
    keys.u32("expert_used_count", n_used);
    Ok(())
}

pub fn mixtral(config: &Config, keys: &mut Keys) -> Result<Factors, Error> {
    experts(config, keys)?;
    decoder(config, keys, "silu")
}

pub fn qwen3_moe(config: &Config, keys: &mut Keys) -> Result<Factors, Error> {
    experts(config, keys)?;
    keys.u32(
        "expert_feed_forward_length",
        config.u32("moe_intermediate_size")?,
    );
    // Readers of GGUF let all layers have experts, and the weights of those that are used sum to one.
    config.unset(&["mlp_only_layers"])?;
    if config.optional_u32("decoder_sparse_step")?.unwrap_or(1) != 1 {
        return Err(config.bad("decoder_sparse_step", "other than 1 is not supported"));
    }
    if config.optional_bool("norm_topk_prob")? != Some(true) {
        return Err(config.bad("norm_topk_prob", "other than true is not supported"));
    }
    qwen2(config, keys)
}

/// The first generation of Gemma.
pub fn gemma(config: &Config, keys: &mut Keys) -> Result<Factors, Error> {
    any_gemma(config, keys, 10000.0)
}

/// What all generations of Gemma share. Older files name GELU where its approximation is meant.
fn any_gemma(config: &Config, keys: &mut Keys, default_base: f64) -> Result<Factors, Error> {
    config.only("hidden_activation", &["gelu_pytorch_tanh"])?;
    config.only("hidden_act", &["gelu_pytorch_tanh", "gelu"])?;
    extents(config, keys)?;
    keys.f32(
        "attention.layer_norm_rms_epsilon",
        config.f64("rms_norm_eps")?,
    );
    let head_dim = head_dim(config, keys)?;
    // Readers of GGUF tell the models whose attention is scaled otherwise by their layers.
    let scale = config.optional_u32("query_pre_attn_scalar")?;
    let of_residual = config.u32("hidden_size")? / config.u32("num_attention_heads")?;
    let known = match (keys.arch(), config.n_layers()?) {
        ("gemma2", 46) | ("gemma3", 62) => of_residual,
        _ => head_dim,
    };
    if let Some(scale) = scale.filter(|scale| *scale != known) {
        let text = format!("{scale} is not supported, {known} is for this size");
        return Err(config.bad("query_pre_attn_scalar", text));
    }
    if let Some(window) = config.optional_u32("sliding_window")? {
        keys.u32("attention.sliding_window", window);
    }
    rope::write(config, keys, head_dim, default_base)
}

pub fn gemma2(config: &Config, keys: &mut Keys) -> Result<Factors, Error> {
    let factors = any_gemma(config, keys, 10000.0)?;
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        keys.f32(key, config.f64(key)?);
    }
    windows(config, keys, 2)?;
    Ok(factors)
}

pub fn gemma3(config: &Config, keys: &mut Keys) -> Result<Factors, Error> {
    if config.has("attn_logit_softcapping") {
        return Err(config.bad("attn_logit_softcapping", "is not supported"));
    }
    let factors = any_gemma(config, keys, 1e6)?;
    if let Some(cap) = config.optional_f64("final_logit_softcapping")? {
        keys.f32("final_logit_softcapping", cap);
    }
    let local = match config.optional_f64("rope_local_base_freq")? {
        Some(base) => Some(base),
        None => match rope::parameters(config, "sliding_attention")? {
            Some(parameters) => parameters.optional_f64("rope_theta")?,
            None => None,
        },
    };
    if let Some(base) = local {
        keys.f32("rope.freq_base_swa", base);
    }
    windows(config, keys, 6)?;
    Ok(factors)
}

/// Which layers see a window, where that is not all but the last of every `usual` layers.
fn windows(config: &Config, keys: &mut Keys, usual: usize) -> Result<(), Error> {
    let n_layers = config.n_layers()? as usize;
    let period = config
        .optional_u32("sliding_window_pattern")?
        .map_or(usual, |n| n as usize);
    let by_period =
        |period: usize| -> Vec<bool> { (0..n_layers).map(|i| i % period != period - 1).collect() };
    let windowed = match config.optional_strs("layer_types")? {
        Some(types) if types.len() != n_layers => {
            return Err(config.bad(
                "layer_types",
                format!("names {} layers of {n_layers}", types.len()),
            ));
        }
        Some(types) => types
            .into_iter()
            .map(|layer| match layer {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                other => Err(config.bad("layer_types", format!("has the unknown type {other:?}"))),
            })
            .collect::<Result<_, _>>()?,
        None => by_period(period),
    };
    if windowed != by_period(usual) {
        keys.bools("attention.sliding_window_pattern", &windowed);
    }
    Ok(())
}

/// BERT and its kin, which embed texts; how vectors are pooled is written where the checkpoint's modules are read.
pub fn bert(config: &Config, keys: &mut Keys) -> Result<Factors, Error> {
    config.only("hidden_act", &["gelu", "gelu_new", "gelu_pytorch_tanh"])?;
    config.only("position_embedding_type", &["absolute"])?;
    extents(config, keys)?;
    keys.f32(
        "attention.layer_norm_epsilon",
        config.f64("layer_norm_eps")?,
    );
    keys.bool("attention.causal", false);
    Ok(Vec::new())
}
