//! What distinguishes one model from another, as data.

use crate::backend::{Activation, KvDims, RopeOrder, RopeTable};

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
    pub norm_eps: f32,
    /// Factor on the rows of the embedding matrix.
    pub embed_scale: f32,
    /// Factor on query times key.
    pub attention_scale: f32,
    /// Cap of attention scores.
    pub attention_soft_cap: Option<f32>,
    /// Cap of logits.
    pub final_soft_cap: Option<f32>,
    pub activation: Activation,
    pub rope_order: RopeOrder,
    /// The kinds of rotary embedding that layers choose from.
    pub rope_tables: Vec<RopeTable>,
    pub layers: Vec<Layer>,
}

/// What may differ from layer to layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Positions a token sees, itself included; none for all.
    pub window: Option<usize>,
    /// Index into [`Config::rope_tables`].
    pub rope_table: usize,
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
}
