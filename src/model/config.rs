//! What distinguishes one model from another, as data.

use super::Pooling;
use crate::backend::{Activation, DeltaHeads, KvDims, RopeOrder, RopeTable, Routing, StateSpec};

/// The numbers of a model. An optional tensor that the file has is applied without a flag
/// here; a flag is for what no tensor shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `general.architecture`.
    pub arch: String,
    /// Width of the residual stream.
    pub dim: usize,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Columns of a query and of a key.
    pub head_dim: usize,
    /// Columns of a value.
    pub value_dim: usize,
    /// Width of the feed-forward block.
    pub ffn_dim: usize,
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Tokens of context the model was trained for.
    pub n_ctx_train: usize,
    pub norm: Norm,
    /// Added to mean squares or variances.
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
    /// Whether a token sees only what is before it; otherwise the whole text, or with a window
    /// the half of it on either side.
    pub causal: bool,
    /// The largest bias of attention with linear biases.
    pub alibi: Option<f32>,
    /// How an embedding is made of a text, where the model embeds texts instead of writing them.
    pub pooling: Option<Pooling>,
    /// Whether norms stand behind the sums of the residual stream, as in BERT, instead of before
    /// the blocks.
    pub post_norm: bool,
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
    /// Of feed-forward blocks and experts.
    pub activation: Activation,
    pub rope_order: RopeOrder,
    /// Whether the heads of values are normed too, without weights.
    pub value_norms: bool,
    /// Where each layer has an embedding of the token of its own: its width.
    pub layer_embed_dim: Option<usize>,
    /// Where there are several residual streams.
    pub altup: Option<AltUp>,
    /// Whether the norms of queries and keys come after rotary embedding instead of before.
    pub head_norms_last: bool,
    /// Whether the query projection gives each head a gate for its result as well.
    pub gated_attention: bool,
    /// Tensor of the norm after the last layer, without `.weight`.
    pub output_norm: &'static str,
    /// The kinds of rotary embedding that layers choose from.
    pub rope_tables: Vec<RopeTable>,
    /// Tables that stand in for `rope_tables` where the context is longer than this.
    pub long_rope: Option<LongRope>,
    pub layers: Vec<Layer>,
    /// Layers of the file after those, which propose tokens to this model and are not run.
    pub n_skipped_layers: usize,
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
    /// From there on, of so many layers the first has experts: one where all have.
    pub period: usize,
    /// Width of the experts that every token goes through; zero for none.
    pub shared_dim: usize,
    /// Whether they stand beside the feed-forward block instead of in its place, each with norms
    /// of its own.
    pub beside: bool,
}

/// Several residual streams, of which layers read the first.
#[derive(Debug, Clone, PartialEq)]
pub struct AltUp {
    pub n_streams: usize,
    /// For each layer, how many standard deviations above the mean a number of the gate has to be,
    /// where not all count: [`crate::backend::Op::GaussianTopK`].
    pub gate_cutoffs: Vec<Option<f32>>,
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
    pub mixer: Mixer,
    /// Its heads, where they are not those of the [`Config`].
    pub heads: Option<Heads>,
    /// Width of its feed-forward block, where it is not that of the [`Config`].
    pub ffn_dim: Option<usize>,
    /// The layer before it whose keys and values it reads instead of having its own.
    pub cache_of: Option<usize>,
}

/// The heads of a layer's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Heads of queries.
    pub n: usize,
    /// Heads of keys and values.
    pub n_kv: usize,
    /// Columns of a query and of a key.
    pub key_dim: usize,
    /// Columns of a value.
    pub value_dim: usize,
}

impl Heads {
    /// Columns of all query heads.
    pub fn q_dim(&self) -> usize {
        self.n * self.key_dim
    }

    /// Columns of all key heads, and of all value heads.
    pub fn kv_dims(&self) -> KvDims {
        KvDims {
            keys: self.n_kv * self.key_dim,
            values: self.n_kv * self.value_dim,
        }
    }
}

/// Indices into [`Config::rope_tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerRope {
    /// Of queries.
    pub q: usize,
    /// Of keys.
    pub k: usize,
}

/// How a layer mixes the tokens of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixer {
    Attention,
    /// A gated convolution over the last `kernel` tokens: LFM2.
    ShortConv {
        kernel: usize,
    },
    /// The gated delta rule after a convolution over the last `kernel` tokens: Qwen 3.5.
    DeltaNet {
        kernel: usize,
        heads: DeltaHeads,
    },
}

impl Mixer {
    /// Floats of each recurrent state that it keeps of a sequence.
    fn state_sizes(&self, dim: usize) -> Vec<usize> {
        match *self {
            Mixer::Attention => vec![],
            Mixer::ShortConv { kernel } => vec![(kernel - 1) * dim],
            Mixer::DeltaNet { kernel, heads } => {
                vec![(kernel - 1) * heads.qkv_dim(), heads.state_size()]
            }
        }
    }
}

impl Config {
    /// The heads of attention in layer `i`.
    pub fn heads(&self, i: usize) -> Heads {
        self.layers[i].heads.unwrap_or(Heads {
            n: self.n_heads,
            n_kv: self.n_kv_heads,
            key_dim: self.head_dim,
            value_dim: self.value_dim,
        })
    }

    /// Width of the feed-forward block of layer `i`.
    pub fn ffn_dim(&self, i: usize) -> usize {
        self.layers[i].ffn_dim.unwrap_or(self.ffn_dim)
    }

    /// The cache that a layer uses. A model that embeds keeps nothing longer than one layer.
    pub fn cache_layer(&self, layer: usize) -> usize {
        match self.pooling {
            None => self.layers[layer].cache_of.unwrap_or(layer),
            Some(_) => 0,
        }
    }

    /// The largest number of first layers, `n` at most, that can be on another device than the
    /// rest: a layer that reads the keys of one before stays with it.
    pub fn cut(&self, n: usize) -> usize {
        if n >= self.layers.len() {
            return n;
        }
        let sources = self.layers[n..].iter().filter_map(|layer| layer.cache_of);
        match sources.min() {
            Some(source) if source < n => self.cut(source),
            _ => n,
        }
    }

    /// Numbers that a layer caches of a token.
    pub fn cached(&self, layer: usize) -> KvDims {
        match (self.layers[layer].mixer, self.layers[layer].cache_of) {
            (Mixer::Attention, None) => self.heads(layer).kv_dims(),
            _ => KvDims::default(),
        }
    }

    /// The recurrent states, layer after layer.
    pub fn states(&self) -> Vec<StateSpec> {
        let layers = self.layers.iter().enumerate();
        let states = layers.flat_map(|(layer, kind)| {
            let sizes = kind.mixer.state_sizes(self.dim).into_iter();
            sizes.map(move |size| StateSpec { layer, size })
        });
        states.collect()
    }

    /// The number of a layer's first recurrent state.
    pub fn first_state(&self, layer: usize) -> usize {
        let before = self.layers[..layer].iter();
        let counts = before.map(|layer| layer.mixer.state_sizes(self.dim).len());
        counts.sum()
    }

    /// The experts of layer `i`.
    pub fn moe(&self, i: usize) -> Option<&Moe> {
        let has_experts =
            |moe: &&Moe| i >= moe.n_dense && (i - moe.n_dense).is_multiple_of(moe.period);
        self.moe.as_ref().filter(has_experts)
    }

    /// Columns of all heads' results in layer `i`.
    pub fn mixed_dim(&self, i: usize) -> usize {
        let latent = self.latent.map(|latent| latent.value_dim);
        let heads = self.heads(i);
        heads.n * latent.unwrap_or(heads.value_dim)
    }

    /// The rotary tables for a context of `n_ctx` tokens.
    pub fn rope_tables(&self, n_ctx: usize) -> &[RopeTable] {
        match &self.long_rope {
            Some(long) if n_ctx > long.n_ctx_orig => &long.tables,
            _ => &self.rope_tables,
        }
    }
}
