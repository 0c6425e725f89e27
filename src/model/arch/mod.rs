//! The table of architectures: one function from metadata to a [`Config`] each.
//!
//! What each computes and which keys it reads was learned from llama.cpp
//! (<https://github.com/ggml-org/llama.cpp>, `src/models/`), whose files these are.

mod alibi;
mod bert;
mod cohere;
mod deepseek;
mod gemma;
mod gemma3n;
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

/// `general.architecture`, its function and the models that have it.
const TABLE: &[(&str, Family, &str)] = &[
    ("arcee", llama::arcee, "AFM 4.5B"),
    ("baichuan", alibi::baichuan, "Baichuan 1 and 2"),
    (
        "bert",
        bert::bert,
        "MiniLM, E5, BGE, Arctic Embed and other sentence encoders",
    ),
    ("bloom", alibi::bloom, "BLOOM"),
    ("chatglm", llama::chatglm, "ChatGLM 3, GLM 4 9B"),
    ("codeshell", gpt::starcoder2, "CodeShell"),
    ("cohere2", cohere::cohere2, "Command R7B, Command A"),
    ("command-r", cohere::command_r, "Command R, Command R+"),
    ("deepseek", moe::deepseek, "DeepSeek MoE 16B"),
    (
        "deepseek2",
        deepseek::deepseek2,
        "DeepSeek 2, 2.5, 3 and R1, their lite variants, Kimi K2",
    ),
    ("dots1", moe::dots1, "dots.llm1"),
    ("ernie4_5", llama::llama, "ERNIE 4.5"),
    ("ernie4_5-moe", moe::ernie4_5_moe, "ERNIE 4.5 with experts"),
    ("exaone", llama::qwen2, "EXAONE 3 and 3.5"),
    ("exaone4", olmo::exaone4, "EXAONE 4"),
    ("falcon", gpt::falcon, "Falcon 7B, 40B"),
    ("gemma", gemma::gemma, "Gemma 1"),
    ("gemma-embedding", gemma::gemma_embedding, "EmbeddingGemma"),
    ("gemma2", gemma::gemma2, "Gemma 2"),
    ("gemma3", gemma::gemma3, "Gemma 3, text"),
    ("gemma3n", gemma3n::gemma3n, "Gemma 3n, text"),
    ("gemma4", gemma4::gemma4, "Gemma 4, text"),
    ("glm4", llama::glm4, "GLM 4 9B and 32B of 2025"),
    ("glm4moe", moe::glm4moe, "GLM 4.5, 4.6"),
    ("gpt-oss", moe::gpt_oss, "gpt-oss 20B, 120B"),
    ("gpt2", gpt::gpt2, "GPT-2 and its kin"),
    ("gptneox", gpt::gptneox, "GPT-NeoX, Pythia"),
    ("granite", llama::granite, "Granite 3 and 4"),
    (
        "granitemoe",
        moe::granitemoe,
        "Granite 3 and 4 with experts",
    ),
    ("hunyuan-dense", llama::hunyuan, "HunYuan 0.5B to 7B"),
    ("hunyuan-moe", moe::hunyuan, "HunYuan A13B"),
    ("internlm2", llama::llama, "InternLM 2"),
    ("jais", alibi::jais, "Jais"),
    ("jina-bert-v2", bert::jina_bert_v2, "Jina Embeddings 2"),
    ("jina-bert-v3", bert::jina_bert_v3, "Jina Embeddings 3"),
    ("lfm2", hybrid::lfm2, "LFM 2"),
    ("lfm2moe", hybrid::lfm2moe, "LFM 2 with experts"),
    (
        "llama",
        llama::mixtral,
        "Llama 1 to 3, Mistral, Mixtral, SmolLM 1 and 2, Yi, Cogito, DeepSeek distilled",
    ),
    ("minicpm", llama::minicpm, "MiniCPM 1 and 2"),
    ("minimax-m2", moe::minimax_m2, "MiniMax M2"),
    (
        "mistral3",
        llama::mistral3,
        "Ministral 3, Mistral Small, text",
    ),
    ("mpt", alibi::mpt, "MPT"),
    ("nemotron", gpt::nemotron, "Nemotron 3 and 4, Nemotron Mini"),
    ("nomic-bert", bert::nomic_bert, "Nomic Embed Text 1 and 1.5"),
    ("nomic-bert-moe", bert::nomic_bert_moe, "Nomic Embed Text 2"),
    ("olmo", olmo::olmo, "OLMo 1"),
    ("olmo2", olmo::olmo2, "OLMo 2 and 3"),
    ("olmoe", moe::olmoe, "OLMoE"),
    ("orion", gpt::orion, "Orion"),
    ("phi2", phi::phi2, "Phi 2"),
    ("phi3", phi::phi3, "Phi 3 and 4, Phi 4 mini"),
    ("phimoe", moe::phimoe, "Phi 3.5 MoE"),
    ("qwen", llama::qwen, "Qwen 1"),
    ("qwen2", llama::qwen2, "Qwen 1.5 to 2.5"),
    ("qwen2moe", moe::qwen2moe, "Qwen 1.5 and 2 MoE"),
    ("qwen2vl", llama::qwen2, "Qwen 2 VL and 2.5 VL, text"),
    ("qwen3", llama::qwen3, "Qwen 3, Qwen 3 Embedding"),
    ("qwen35", hybrid::qwen35, "Qwen 3.5 without experts, text"),
    (
        "qwen35moe",
        hybrid::qwen35moe,
        "Qwen 3.5 with experts, text",
    ),
    ("qwen3moe", moe::qwen3moe, "Qwen 3 MoE"),
    ("qwen3next", hybrid::qwen3next, "Qwen 3 Next"),
    ("qwen3vl", llama::qwen3, "Qwen 3 VL, text"),
    ("qwen3vlmoe", moe::qwen3moe, "Qwen 3 VL MoE, text"),
    ("refact", alibi::refact, "Refact 1.6B"),
    ("seed_oss", llama::seed_oss, "Seed OSS"),
    ("smollm3", llama::smollm3, "SmolLM 3"),
    ("stablelm", gpt::stablelm, "StableLM, StableLM 2"),
    ("starcoder", gpt::gpt2, "StarCoder 1"),
    ("starcoder2", gpt::starcoder2, "StarCoder 2"),
    ("xverse", llama::llama, "XVERSE"),
];

/// Widest head that the backends take: keys of multi-head latent attention have 576 columns.
const MAX_HEAD_DIM: usize = 640;

/// The architectures that can be run: `general.architecture`, and the models that have it.
pub fn architectures() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().map(|&(name, _, models)| (name, models))
}

/// The configuration of a file.
pub(super) fn config(gguf: &Gguf) -> Result<Config, Error> {
    let arch = gguf.architecture();
    let family = TABLE.iter().find(|(name, ..)| *name == arch);
    let (_, family, _) = family.ok_or_else(|| Error::Architecture {
        name: arch.into(),
        supported: TABLE.iter().map(|row| row.0).collect::<Vec<_>>().join(", "),
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
        altup: None,
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
