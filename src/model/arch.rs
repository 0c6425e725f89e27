//! The table of architectures: one function from metadata to a [`Config`] each.

use super::keys::Keys;
use super::{Config, Error, Layer};
use crate::backend::{Activation, RopeOrder, RopeScaling, RopeTable};
use crate::gguf::Gguf;

type Family = fn(&Keys) -> Result<Config, Error>;

const TABLE: &[(&str, Family)] = &[
    ("llama", llama),
    ("qwen2", qwen2),
    ("qwen3", qwen2),
    ("gemma2", gemma2),
    ("gemma3", gemma3),
];

/// Layers of the largest Gemma models, whose attention scale is that of the residual width.
const GEMMA2_27B_LAYERS: usize = 46;
const GEMMA3_27B_LAYERS: usize = 62;

/// Widest head that the backends take: keys of multi-head latent attention have 576 columns.
const MAX_HEAD_DIM: usize = 640;

/// Names of the architectures that can be run.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The configuration of a file.
pub(super) fn config(gguf: &Gguf) -> Result<Config, Error> {
    let arch = gguf.architecture();
    let family = TABLE.iter().find(|(name, _)| *name == arch);
    let (_, family) = family.ok_or_else(|| Error::Architecture {
        name: arch.into(),
        supported: architectures().collect::<Vec<_>>().join(", "),
    })?;
    let config = family(&Keys { gguf, arch })?;
    check(&config)?;
    Ok(config)
}

fn check(config: &Config) -> Result<(), Error> {
    if !config.n_heads.is_multiple_of(config.n_kv_heads) {
        return Err(Error::Unsupported(format!(
            "{} query heads over {} key heads",
            config.n_heads, config.n_kv_heads
        )));
    }
    for n in [config.head_dim, config.value_dim] {
        if !n.is_multiple_of(2) || n > MAX_HEAD_DIM {
            return Err(Error::Unsupported(format!("a head of {n} columns")));
        }
    }
    Ok(())
}

/// What decoders of the llama type have in common.
fn common(keys: &Keys, rope_order: RopeOrder) -> Result<Config, Error> {
    refuse_experts(keys)?;
    let dim = keys.extent("embedding_length")?;
    let n_heads = keys.extent("attention.head_count")?;
    let head_dim = match keys.optional_extent("attention.key_length")? {
        Some(n) => n,
        None => dim / n_heads,
    };
    let value_dim = keys.optional_extent("attention.value_length")?;
    let eps = keys.optional_positive("attention.layer_norm_rms_epsilon")?;
    let n_layers = keys.extent("block_count")?;
    if n_layers > 1024 {
        return Err(keys.bad("block_count", "at most 1024 layers are accepted"));
    }
    let table = rope_table(keys, head_dim, None)?;
    Ok(Config {
        arch: keys.arch.into(),
        dim,
        n_heads,
        n_kv_heads: keys
            .optional_extent("attention.head_count_kv")?
            .unwrap_or(n_heads),
        head_dim,
        value_dim: value_dim.unwrap_or(dim / n_heads),
        ffn_dim: keys.extent("feed_forward_length")?,
        vocab_size: vocab_size(keys)?,
        n_ctx_train: keys.extent("context_length")?,
        norm_eps: eps.ok_or_else(|| {
            keys.bad(
                "attention.layer_norm_rms_epsilon",
                "a positive number is needed",
            )
        })?,
        embed_scale: 1.0,
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        attention_soft_cap: None,
        final_soft_cap: None,
        activation: Activation::Silu,
        rope_order,
        rope_tables: vec![table],
        layers: vec![
            Layer {
                window: None,
                rope_table: 0
            };
            n_layers
        ],
    })
}

fn refuse_experts(keys: &Keys) -> Result<(), Error> {
    match keys.optional_positive("expert_count")? {
        None => Ok(()),
        Some(n) => Err(Error::Unsupported(format!("a mixture of {n} experts"))),
    }
}

/// Rows of the embedding matrix; files need not say it otherwise.
fn vocab_size(keys: &Keys) -> Result<usize, Error> {
    let tensor = keys.gguf.tensor("token_embd.weight");
    match tensor.map(|t| t.shape.as_slice()) {
        Some(&[_, rows]) if rows <= 1 << 24 => Ok(rows as usize),
        Some(shape) => Err(Error::Tensor(format!(
            "tensor token_embd.weight has shape {shape:?}, two extents are needed"
        ))),
        None => Err(Error::Tensor("tensor token_embd.weight is missing".into())),
    }
}

/// The rotary table with the file's base and scaling, or a table of another base and none.
fn rope_table(keys: &Keys, head_dim: usize, base: Option<f32>) -> Result<RopeTable, Error> {
    let rotary = keys.optional_extent("rope.dimension_count")?;
    let rotary = rotary.unwrap_or(head_dim);
    if rotary > head_dim || rotary % 2 != 0 {
        return Err(keys.bad(
            "rope.dimension_count",
            format!("an even number up to {head_dim} is needed"),
        ));
    }
    let scaling = match base {
        None => rope_scaling(keys)?,
        Some(_) => RopeScaling::Linear { factor: 1.0 },
    };
    let base = match base {
        Some(base) => base,
        None => keys.optional_positive("rope.freq_base")?.unwrap_or(10000.0),
    };
    let factors = rope_factors(keys)?;
    RopeTable::new(f64::from(base), rotary, &scaling, factors.as_deref()).map_err(Error::Tensor)
}

fn rope_scaling(keys: &Keys) -> Result<RopeScaling, Error> {
    let factor = match keys.optional_positive("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        // The name that files before 2024 use.
        None => keys.optional_positive("rope.scale_linear")?,
    };
    match keys.optional_str("rope.scaling.type") {
        Some("none") => Ok(RopeScaling::Linear { factor: 1.0 }),
        None | Some("linear") => Ok(RopeScaling::Linear {
            factor: 1.0 / f64::from(factor.unwrap_or(1.0)),
        }),
        Some(other) => Err(Error::Unsupported(format!("rope scaling of type {other}"))),
    }
}

/// The divisors of `rope_freqs.weight`, which Llama 3.1 and later have.
fn rope_factors(keys: &Keys) -> Result<Option<Vec<f32>>, Error> {
    let Some(tensor) = keys.gguf.tensor("rope_freqs.weight") else {
        return Ok(None);
    };
    let quant = tensor.quant().filter(|q| q.is_float());
    let quant = quant
        .ok_or_else(|| Error::Tensor("tensor rope_freqs.weight must hold plain floats".into()))?;
    let mut factors = vec![0.0; tensor.n_elements() as usize];
    quant.decode(keys.gguf.data(tensor), &mut factors);
    if factors.iter().any(|f| !f.is_finite() || *f <= 0.0) {
        return Err(Error::Tensor(
            "tensor rope_freqs.weight must hold positive numbers".into(),
        ));
    }
    Ok(Some(factors))
}

/// Llama 1 to 3, Mistral, SmolLM and their kin.
fn llama(keys: &Keys) -> Result<Config, Error> {
    common(keys, RopeOrder::Norm)
}

/// Qwen 2 and 2.5 (biases on q, k, v) and Qwen 3 (norms on q and k).
fn qwen2(keys: &Keys) -> Result<Config, Error> {
    common(keys, RopeOrder::Neox)
}

/// What both generations of Gemma share.
fn gemma(keys: &Keys, layers_of_27b: usize) -> Result<Config, Error> {
    let mut config = common(keys, RopeOrder::Neox)?;
    config.embed_scale = (config.dim as f32).sqrt();
    config.activation = Activation::GeluTanh;
    if config.layers.len() == layers_of_27b {
        config.attention_scale = 1.0 / ((config.dim / config.n_heads) as f32).sqrt();
    }
    Ok(config)
}

/// Gemma 2: every other layer sees a window, beginning with the first; scores and logits are capped.
fn gemma2(keys: &Keys) -> Result<Config, Error> {
    let mut config = gemma(keys, GEMMA2_27B_LAYERS)?;
    config.attention_soft_cap = Some(
        keys.optional_positive("attn_logit_softcapping")?
            .unwrap_or(50.0),
    );
    config.final_soft_cap = Some(
        keys.optional_positive("final_logit_softcapping")?
            .unwrap_or(30.0),
    );
    let window = keys.optional_extent("attention.sliding_window")?;
    for layer in config.layers.iter_mut().step_by(2) {
        layer.window = Some(window.unwrap_or(4096));
    }
    Ok(config)
}

/// Gemma 3: all but each sixth layer see a window and turn with a base of their own.
fn gemma3(keys: &Keys) -> Result<Config, Error> {
    let mut config = gemma(keys, GEMMA3_27B_LAYERS)?;
    config.final_soft_cap = keys.optional_positive("final_logit_softcapping")?;
    let Some(window) = keys.optional_extent("attention.sliding_window")? else {
        return Ok(config);
    };
    let base = keys.optional_positive("rope.freq_base_swa")?;
    let local = rope_table(keys, config.head_dim, Some(base.unwrap_or(10000.0)))?;
    config.rope_tables.push(local);
    for (i, layer) in config.layers.iter_mut().enumerate() {
        if i % 6 != 5 {
            layer.window = Some(window);
            layer.rope_table = 1;
        }
    }
    Ok(config)
}
