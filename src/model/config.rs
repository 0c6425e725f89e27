//! What distinguishes one model from another, as data.

use crate::backend::{Activation, KvDims, RopeOrder, RopeTable, Routing};

/// The numbers of a decoder. An optional tensor that the file has is applied without a flag
/// here; a flag is for what no tensor shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `general.architecture`.
    pub arch: String,
    /// Width of the residual stream.
    pub dim: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// Columns of a query and of a key.
    pub head_dim: usize,
    /// Columns of a value.
    pub value_dim: usize,
    /// Width of the feed-forward block.
    pub ffn_dim: usize,
    pub vocab_size: usize,
    /// Tokens of context the model was trained for.
    pub n_ctx_train: usize,
    pub norm: Norm,
    pub norm_eps: f32,
    /// Optional tensors that this family cannot do without; `*` stands for every layer.
    pub required: Vec<&'static str>,
    /// Factor on the rows of the embedding matrix.
    pub embed_scale: f32,
    /// Factor on what a block adds to the residual stream.
    pub residual_scale: f32,
    /// Factor on logits.
    pub logit_scale: f32,
    /// Factor on query times key.
    pub attention_scale: f32,
    /// Cap of attention scores.
    pub attention_soft_cap: Option<f32>,
    /// Cap of logits.
    pub final_soft_cap: Option<f32>,
    /// Whether the feed-forward block reads the layer's input, as attention does, instead of
    /// what attention made of it.
    pub parallel: bool,
    pub ffn: Ffn,
    /// The tensor that norms what the feed-forward block reads: `ffn_norm`, or another name that
    /// some families give it.
    pub ffn_norm: &'static str,
    /// Where experts stand in the place of the feed-forward block.
    pub moe: Option<Moe>,
    /// Where keys and values of all heads come from one compressed vector.
    pub latent: Option<Latent>,
    pub activation: Activation,
    pub rope_order: RopeOrder,
    /// Whether the norms of queries and keys come after rotary embedding instead of before.
    pub head_norms_last: bool,
    /// The kinds of rotary embedding that layers choose from.
    pub rope_tables: Vec<RopeTable>,
    /// Tables that stand in for `rope_tables` where the context is longer than this.
    pub long_rope: Option<LongRope>,
    pub layers: Vec<Layer>,
    /// Blocks after the layers that predict further tokens and are not run.
    pub n_predict_layers: usize,
}

/// The norm of the residual stream, and of queries and keys where they have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    Rms,
    Layer,
    /// A layer norm without weights, which therefore no tensor shows.
    PlainLayer,
}

/// The matrices of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ffn {
    /// `down(activation(gate(x)) * up(x))`
    Gated,
    /// The same, with the rows of gate and up in one tensor, `ffn_up`.
    GatedFused,
    /// `down(activation(up(x)))`
    Plain,
}

/// A mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moe {
    pub n_experts: usize,
    /// Width of an expert.
    pub ffn_dim: usize,
    pub routing: Routing,
    /// Leading layers that have a feed-forward block instead.
    pub n_dense: usize,
    /// Width of the experts that every token goes through; zero for none.
    pub shared_dim: usize,
}

/// Multi-head latent attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latent {
    /// Columns of a compressed query, where queries are compressed.
    pub q_rank: Option<usize>,
    /// Columns of the compressed vector that keys and values come from.
    pub kv_rank: usize,
    /// Columns of a query that do not turn.
    pub nope_dim: usize,
    /// Columns that turn; those of a key are the same for all heads.
    pub rope_dim: usize,
    /// Columns of a head's result. [`Config::value_dim`] is what the cache holds.
    pub value_dim: usize,
    /// Whether attention reads the compressed vectors themselves, as if all heads shared one key
    /// and one value: the file then has matrices that do a head's part before and after.
    pub absorbed: bool,
}

/// Rotary embedding by the size of the context, whatever the prompt's length.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// The largest context that uses [`Config::rope_tables`].
    pub n_ctx_orig: usize,
    /// As many as there.
    pub tables: Vec<RopeTable>,
}

/// What may differ from layer to layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Positions a token sees, itself included; none for all.
    pub window: Option<usize>,
    /// None where queries and keys do not turn.
    pub rope: Option<LayerRope>,
}

/// Indices into [`Config::rope_tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerRope {
    pub q: usize,
    pub k: usize,
}

impl Config {
    /// Columns of all query heads.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Columns of all key heads, and of all value heads.
    pub fn kv_dims(&self) -> KvDims {
        KvDims {
            keys: self.n_kv_heads * self.head_dim,
            values: self.n_kv_heads * self.value_dim,
        }
    }

    /// The experts of layer `i`.
    pub fn moe(&self, i: usize) -> Option<&Moe> {
        self.moe.as_ref().filter(|moe| i >= moe.n_dense)
    }

    /// Columns of all heads' results.
    pub fn mixed_dim(&self) -> usize {
        self.n_heads
            * self
                .latent
                .map_or(self.value_dim, |latent| latent.value_dim)
    }

    /// The rotary tables for a context of `n_ctx` tokens.
    pub fn rope_tables(&self, n_ctx: usize) -> &[RopeTable] {
        match &self.long_rope {
            Some(long) if n_ctx > long.n_ctx_orig => &long.tables,
            _ => &self.rope_tables,
        }
    }
}
