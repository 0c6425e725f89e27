//! The table of architectures: one function from metadata to a [`Config`] each.
//!
//! What each computes and which keys it reads was learned from llama.cpp
//! (<https://github.com/ggml-org/llama.cpp>, `src/models/`), whose files these are.

mod alibi;
mod bert;
mod cohere;
mod deepseek;
mod gemma;
mod gemma4;
mod gpt;
mod hybrid;
mod llama;
mod moe;
mod olmo;
mod phi;
mod rope;

use super::keys::Keys;
use super::{Config, Error, Ffn, Layer, LayerRope, LongRope, Mixer, Norm, Pooling};
use crate::backend::{Activation, RopeOrder, RopeTable};
use crate::gguf::Gguf;
use rope::Rope;

type Family = fn(&Keys) -> Result<Config, Error>;

const TABLE: &[(&str, Family)] = &[
    ("arcee", llama::arcee),
    ("baichuan", alibi::baichuan),
    ("bert", bert::bert),
    ("bloom", alibi::bloom),
    ("chatglm", llama::chatglm),
    ("codeshell", gpt::starcoder2),
    ("command-r", cohere::command_r),
    ("cohere2", cohere::cohere2),
    ("deepseek2", deepseek::deepseek2),
    ("ernie4_5", llama::llama),
    ("ernie4_5-moe", moe::ernie4_5_moe),
    ("exaone", llama::qwen2),
    ("exaone4", olmo::exaone4),
    ("falcon", gpt::falcon),
    ("gemma", gemma::gemma),
    ("gemma-embedding", gemma::gemma_embedding),
    ("gemma2", gemma::gemma2),
    ("gemma3", gemma::gemma3),
    ("gemma4", gemma4::gemma4),
    ("glm4", llama::glm4),
    ("glm4moe", moe::glm4moe),
    ("gpt-oss", moe::gpt_oss),
    ("gpt2", gpt::gpt2),
    ("gptneox", gpt::gptneox),
    ("granite", llama::granite),
    ("granitemoe", moe::granitemoe),
    ("hunyuan-dense", llama::hunyuan),
    ("internlm2", llama::llama),
    ("jais", alibi::jais),
    ("jina-bert-v2", bert::jina_bert_v2),
    ("jina-bert-v3", bert::jina_bert_v3),
    ("lfm2", hybrid::lfm2),
    ("lfm2moe", hybrid::lfm2moe),
    ("llama", llama::mixtral),
    ("minicpm", llama::minicpm),
    ("mistral3", llama::mistral3),
    ("mpt", alibi::mpt),
    ("nemotron", gpt::nemotron),
    ("nomic-bert", bert::nomic_bert),
    ("nomic-bert-moe", bert::nomic_bert_moe),
    ("olmo", olmo::olmo),
    ("olmo2", olmo::olmo2),
    ("olmoe", moe::olmoe),
    ("orion", gpt::orion),
    ("phi2", phi::phi2),
    ("phi3", phi::phi3),
    ("phimoe", moe::phimoe),
    ("qwen", llama::qwen),
    ("qwen2", llama::qwen2),
    ("qwen2moe", moe::qwen2moe),
    ("qwen2vl", llama::qwen2),
    ("qwen3", llama::qwen3),
    ("qwen35", hybrid::qwen35),
    ("qwen35moe", hybrid::qwen35moe),
    ("qwen3moe", moe::qwen3moe),
    ("qwen3next", hybrid::qwen3next),
    ("qwen3vl", llama::qwen3),
    ("qwen3vlmoe", moe::qwen3moe),
    ("refact", alibi::refact),
    ("seed_oss", llama::seed_oss),
    ("smollm3", llama::smollm3),
    ("stablelm", gpt::stablelm),
    ("starcoder", gpt::gpt2),
    ("starcoder2", gpt::starcoder2),
    ("xverse", llama::llama),
];

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
    let keys = Keys { gguf, arch };
    let config = family(&keys)?;
    check(&config)?;
    if config.moe.is_none() && moe::has_experts(&keys)? {
        return Err(keys.bad("expert_count", "this family has no experts"));
    }
    Ok(config)
}

fn check(config: &Config) -> Result<(), Error> {
    let mut mixers = config.layers.iter().map(|layer| layer.mixer);
    if config.pooling.is_some() && !mixers.all(|mixer| mixer == Mixer::Attention) {
        let text = "a recurrent model that makes embeddings";
        return Err(Error::Unsupported(text.into()));
    }
    if config.pooling.is_none() && (config.post_norm || !config.causal) {
        let text = "a text encoder without a pooling_type to make embeddings with";
        return Err(Error::Unsupported(text.into()));
    }
    for heads in (0..config.layers.len()).map(|i| config.heads(i)) {
        if !heads.n.is_multiple_of(heads.n_kv) {
            return Err(Error::Unsupported(format!(
                "{} query heads over {} key heads",
                heads.n, heads.n_kv
            )));
        }
        for n in [heads.key_dim, heads.value_dim] {
            if !n.is_multiple_of(2) || n > MAX_HEAD_DIM {
                return Err(Error::Unsupported(format!("a head of {n} columns")));
            }
        }
    }
    Ok(())
}

/// What decoders have in common: norms before both blocks, a gated feed-forward block with SiLU,
/// no windows. Keys about rotary embedding are read for families that have it alone.
fn common(
    keys: &Keys,
    norm: Norm,
    rope_order: impl Into<Option<RopeOrder>>,
) -> Result<Config, Error> {
    let n_kv_heads = keys.optional_extent("attention.head_count_kv")?;
    with_kv_heads(keys, norm, rope_order, n_kv_heads)
}

/// As [`common`], for files that give the number of key heads in their own way.
fn with_kv_heads(
    keys: &Keys,
    norm: Norm,
    rope_order: impl Into<Option<RopeOrder>>,
    n_kv_heads: Option<usize>,
) -> Result<Config, Error> {
    let rope_order = rope_order.into();
    let dim = keys.extent("embedding_length")?;
    let n_heads = keys.extent("attention.head_count")?;
    let head_dim = match keys.optional_extent("attention.key_length")? {
        Some(n) => n,
        None => dim / n_heads,
    };
    let value_dim = keys.optional_extent("attention.value_length")?;
    let n_layers = n_layers(keys)?;
    let ffn_dims = keys.extents("feed_forward_length", n_layers)?;
    let n_ctx_train = keys.extent("context_length")?;
    let layer = |ffn_dim: usize| Layer {
        window: None,
        rope: rope_order.map(|_| LayerRope { q: 0, k: 0 }),
        mixer: Mixer::Attention,
        heads: None,
        ffn_dim: (ffn_dim != ffn_dims[0]).then_some(ffn_dim),
        cache_of: None,
    };
    let (rope_tables, long_rope) = match rope_order {
        Some(_) => rope_tables(keys, head_dim, n_ctx_train)?,
        None => (vec![], None),
    };
    Ok(Config {
        arch: keys.arch.into(),
        dim,
        n_heads,
        n_kv_heads: n_kv_heads.unwrap_or(n_heads),
        head_dim,
        value_dim: value_dim.unwrap_or(dim / n_heads),
        ffn_dim: ffn_dims[0],
        vocab_size: vocab_size(keys)?,
        n_ctx_train,
        norm,
        norm_eps: norm_eps(keys, norm)?,
        required: required(norm),
        embed_scale: 1.0,
        residual_scale: 1.0,
        logit_scale: 1.0,
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        attention_soft_cap: None,
        causal: keys.optional_bool("attention.causal")?.unwrap_or(true),
        alibi: None,
        pooling: pooling(keys)?,
        post_norm: false,
        final_soft_cap: None,
        parallel: false,
        ffn: Ffn::Gated,
        ffn_norm: "ffn_norm",
        moe: None,
        latent: None,
        activation: Activation::Silu,
        rope_order: rope_order.unwrap_or(RopeOrder::Norm),
        value_norms: false,
        layer_embed_dim: None,
        head_norms_last: false,
        gated_attention: false,
        output_norm: "output_norm",
        rope_tables,
        long_rope,
        layers: ffn_dims.iter().map(|&dim| layer(dim)).collect(),
        n_skipped_layers: 0,
    })
}

/// Number of layers.
fn n_layers(keys: &Keys) -> Result<usize, Error> {
    match keys.extent("block_count")? {
        n @ 1..=1024 => Ok(n),
        _ => Err(keys.bad("block_count", "at most 1024 layers are accepted")),
    }
}

/// How the file wants embeddings to be made; none where it is to write texts.
fn pooling(keys: &Keys) -> Result<Option<Pooling>, Error> {
    const KEY: &str = "pooling_type";
    if !keys.has(KEY) {
        return Ok(None);
    }
    // The numbers of llama.cpp's `llama_pooling_type`.
    match keys.optional_f32(KEY)? {
        Some(0.0) => Err(Error::Unsupported("pooling_type 0 (none)".into())),
        Some(1.0) => Ok(Some(Pooling::Mean)),
        Some(2.0) => Ok(Some(Pooling::First)),
        Some(3.0) => Ok(Some(Pooling::Last)),
        Some(4.0) => Err(Error::Unsupported("pooling_type 4 (rank)".into())),
        _ => Err(keys.bad(KEY, "a number from 0 to 4 is needed")),
    }
}

fn norm_eps(keys: &Keys, norm: Norm) -> Result<f32, Error> {
    let key = match norm {
        Norm::Rms => "attention.layer_norm_rms_epsilon",
        Norm::Layer | Norm::PlainLayer => "attention.layer_norm_epsilon",
    };
    let eps = keys.optional_positive(key)?;
    eps.ok_or_else(|| keys.bad(key, "a positive number is needed"))
}

/// The norms of the usual layer.
fn required(norm: Norm) -> Vec<&'static str> {
    match norm {
        Norm::PlainLayer => vec![],
        Norm::Rms | Norm::Layer => vec![
            "output_norm.weight",
            "blk.*.attn_norm.weight",
            "blk.*.ffn_norm.weight",
        ],
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

/// The table with the file's base, scaling and factors, and the one for long contexts where the
/// file has factors for both.
fn rope_tables(
    keys: &Keys,
    head_dim: usize,
    n_ctx_train: usize,
) -> Result<(Vec<RopeTable>, Option<LongRope>), Error> {
    let rope = Rope::read(keys, head_dim, n_ctx_train)?;
    let factors = |name| rope::factors(keys, name);
    let long = factors("rope_factors_long.weight")?;
    let short = factors("rope_factors_short.weight")?;
    match (factors("rope_freqs.weight")?, short, long) {
        (None, Some(short), Some(long)) => {
            let long_rope = LongRope {
                n_ctx_orig: rope.n_ctx_orig,
                tables: vec![rope.table(Some(&long))?],
            };
            Ok((vec![rope.table(Some(&short))?], Some(long_rope)))
        }
        (None, Some(_), None) | (None, None, Some(_)) => Err(Error::Tensor(
            "one of the tensors rope_factors_short.weight and rope_factors_long.weight is missing"
                .into(),
        )),
        (factors, _, _) => Ok((vec![rope.table(factors.as_deref())?], None)),
    }
}

/// Which layers see a window: what the file says for each, or all but the last of every
/// `period` layers, by its own period or the family's.
fn windowed_layers(keys: &Keys, n_layers: usize, period: usize) -> Result<Vec<bool>, Error> {
    const KEY: &str = "attention.sliding_window_pattern";
    if let Some(layers) = keys.optional_bools(KEY)? {
        return match layers.len() {
            n if n == n_layers => Ok(layers),
            n => Err(keys.bad(KEY, format!("{n} layers are named of {n_layers}"))),
        };
    }
    let period = keys.optional_extent(KEY)?.unwrap_or(period);
    Ok((0..n_layers).map(|i| i % period != period - 1).collect())
}

impl Config {
    /// Adds a rotary table for contexts of any length and returns its index.
    fn add_rope_table(&mut self, table: RopeTable) -> usize {
        if let Some(long) = &mut self.long_rope {
            long.tables.push(table.clone());
        }
        self.rope_tables.push(table);
        self.rope_tables.len() - 1
    }

    /// Gives the layers that are marked a window.
    fn set_windows(&mut self, window: usize, windowed: &[bool]) {
        for (layer, _) in self.layers.iter_mut().zip(windowed).filter(|(_, w)| **w) {
            layer.window = Some(window);
        }
    }

    /// Takes rotary embedding from the layers that are marked.
    fn remove_rope(&mut self, marked: impl IntoIterator<Item = bool>) {
        for (layer, _) in self.layers.iter_mut().zip(marked).filter(|(_, m)| *m) {
            layer.rope = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::architectures;

    /// What stands between backticks in the first column of the README's table.
    fn documented() -> Vec<String> {
        let readme = include_str!("../../../README.md");
        let rows = readme
            .lines()
            .skip_while(|l| !l.starts_with("| architecture |"));
        let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
        let names = rows.flat_map(|row| {
            let column = row.split('|').nth(1).unwrap_or_default();
            column.split('`').skip(1).step_by(2).map(String::from)
        });
        names.collect()
    }

    #[test]
    fn the_readme_names_every_architecture() {
        let mut known: Vec<&str> = architectures().collect();
        let mut documented = documented();
        known.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, known);
    }
}
