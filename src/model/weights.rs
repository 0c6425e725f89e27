//! The tensors of a model: those of the whole and those of each layer.

use std::sync::Arc;

use super::altup::{AltUpLayer, AltUpWeights};
use super::beside::BesideWeights;
use super::config::{Ffn, Mixer};
use super::experts::ExpertWeights;
use super::latent::LatentWeights;
use super::layer_embed::{LayerEmbedWeights, LayerEmbedding};
use super::loader::Loader;
use super::recurrent::{self, RecurrentWeights};
use super::{Config, Error};
use crate::backend::{LowRank, WeightId, WeightSpec};
use crate::gguf::{Gguf, Lora};

const EMBEDDING: &str = "token_embd.weight";

/// The norm of the embedding; some families give its name to the norm after the last layer.
const EMBED_NORM: &str = "token_embd_norm";

/// All weights of a decoder; ids are indices into `specs`.
#[derive(Debug)]
pub(super) struct Weights {
    pub specs: Vec<WeightSpec>,
    /// What adapters change.
    pub updates: Vec<LowRank>,
    pub embed: WeightId,
    /// Learned positions.
    pub positions: Option<WeightId>,
    /// A row for each type of token, of which texts have the first.
    pub token_types: Option<WeightId>,
    pub embed_norm: Option<NormWeights>,
    pub output_norm: Option<NormWeights>,
    /// The embedding matrix itself where the file has no other.
    pub output: Product,
    pub layers: Vec<LayerWeights>,
    /// Where each layer has an embedding of its own.
    pub layer_embed: Option<LayerEmbedding>,
    /// Where there are several residual streams.
    pub altup: Option<AltUpWeights>,
    /// Matrices that an embedding goes through after pooling.
    pub dense: Vec<Product>,
}

/// The weights of one layer.
#[derive(Debug)]
pub(super) struct LayerWeights {
    pub attn_norm: Option<NormWeights>,
    /// Query (and gate), key and value; those of the mixer in a recurrent layer.
    pub qkv: Projections,
    pub recurrent: Option<RecurrentWeights>,
    /// Where keys and values come from one compressed vector, and `qkv` is empty.
    pub latent: Option<LatentWeights>,
    pub q_norm: Option<NormWeights>,
    pub k_norm: Option<NormWeights>,
    /// A score per head without a value.
    pub sinks: Option<WeightId>,
    pub attn_output: Product,
    pub post_attention_norm: Option<NormWeights>,
    /// Of an encoder: the norm of the sum with attention, and one more that some have.
    pub attn_output_norm: Option<NormWeights>,
    pub attn_norm_2: Option<NormWeights>,
    pub ffn_norm: Option<NormWeights>,
    pub ffn: FfnWeights,
    pub post_ffw_norm: Option<NormWeights>,
    /// Of an encoder: the norm of the sum with the feed-forward block.
    pub layer_output_norm: Option<NormWeights>,
    pub layer_embed: Option<LayerEmbedWeights>,
    pub altup: Option<AltUpLayer>,
    /// Factor on what the layer makes of the residual stream.
    pub output_scale: Option<f32>,
}

/// The feed-forward block, or what stands in its place.
#[derive(Debug)]
pub(super) enum FfnWeights {
    /// Gate and up, then down.
    Gated(Projections, Product),
    /// Up, then down.
    Plain(Product, Product),
    Experts(Box<ExpertWeights>),
    /// A gated block and experts side by side.
    Beside(Box<BesideWeights>),
}

/// A norm over runs of `group` columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormWeights {
    pub weight: WeightId,
    pub bias: Option<WeightId>,
    pub group: usize,
}

/// A matrix and its optional bias.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub weight: WeightId,
    pub bias: Option<WeightId>,
}

/// Several matrices over one input, in as few products as their types allow.
#[derive(Debug, Default)]
pub(super) struct Projections {
    /// Each product with the widths of the results that lie side by side in its output.
    pub products: Vec<(Product, Vec<usize>)>,
}

impl Weights {
    pub fn load(gguf: &Arc<Gguf>, adapters: &[Lora], config: &Config) -> Result<Weights, Error> {
        let mut loader = Loader::new(gguf, adapters);
        loader.require(config)?;
        let (vocab_size, dim) = (config.vocab_size, config.dim);
        let embed = loader.matrix(EMBEDDING, vocab_size, dim)?;
        let positions = match gguf.tensor("position_embd.weight") {
            Some(_) => Some(loader.table("position_embd.weight", config.n_ctx_train, dim)?),
            None => None,
        };
        let token_types = match loader.n_rows("token_types.weight") {
            Some(n) if config.post_norm => Some(loader.table("token_types.weight", n, dim)?),
            _ => None,
        };
        let embed_norm = match config.output_norm {
            EMBED_NORM => None,
            _ => loader.norm(EMBED_NORM, dim, config)?,
        };
        let output_norm = loader.norm(config.output_norm, dim, config)?;
        let output = Product {
            weight: match gguf.tensor("output.weight") {
                Some(_) => loader.matrix("output.weight", vocab_size, dim)?,
                None if config.pooling.is_none() && loader.is_adapted(EMBEDDING) => {
                    return Err(Error::Adapter(format!(
                        "changes of tensor {EMBEDDING} are not supported in a model whose output \
                         matrix it is too"
                    )));
                }
                None => embed,
            },
            bias: loader.optional_vector("output.bias", vocab_size)?,
        };
        let layers = (0..config.layers.len())
            .map(|i| loader.layer(i, config))
            .collect::<Result<_, _>>()?;
        let dense = match config.pooling {
            Some(_) => loader.dense(dim)?,
            None => Vec::new(),
        };
        let layer_embed = match config.layer_embed_dim {
            Some(width) => Some(LayerEmbedding::load(&mut loader, config, width)?),
            None => None,
        };
        let altup = match &config.altup {
            Some(altup) => Some(AltUpWeights::load(&mut loader, config, altup)?),
            None => None,
        };
        loader.refuse_unknown(config)?;
        loader.refuse_unused_adapters()?;
        Ok(Weights {
            specs: loader.specs,
            updates: loader.updates,
            embed,
            positions,
            token_types,
            embed_norm,
            output_norm,
            output,
            layers,
            layer_embed,
            altup,
            dense,
        })
    }

    /// The large matrices that no product reads: a token needs one row of each.
    pub fn tables(&self, config: &Config) -> impl Iterator<Item = &WeightSpec> {
        let is_output = config.pooling.is_none() && self.output.weight == self.embed;
        let embed = (!is_output).then_some(self.embed);
        let of_layers = self.layer_embed.as_ref().map(|table| table.tokens);
        embed
            .into_iter()
            .chain(of_layers)
            .map(|id| &self.specs[id.0])
    }
}

impl Loader<'_> {
    fn layer(&mut self, i: usize, c: &Config) -> Result<LayerWeights, Error> {
        let name = |part: &str| format!("blk.{i}.{part}");
        // The larger Falcons give attention a norm of its own and use the first for the rest.
        let (attn_norm, ffn_norm) = match self.gguf.tensor(&name("attn_norm_2.weight")) {
            Some(_) if !c.post_norm => ("attn_norm_2", "attn_norm"),
            _ => ("attn_norm", c.ffn_norm),
        };
        let mixer = c.layers[i].mixer;
        let latent = match c.latent {
            None => None,
            Some(latent) => Some(LatentWeights::load(self, i, c, latent)?),
        };
        let (qkv, recurrent) = match recurrent::load(self, name, mixer, c.dim)? {
            None if latent.is_some() => (Projections::default(), None),
            None => (self.qkv(i, c)?, None),
            Some((projections, weights)) => (projections, Some(weights)),
        };
        let (output, cols) = match mixer {
            Mixer::Attention => ("attn_output", c.mixed_dim(i)),
            Mixer::ShortConv { .. } => ("shortconv.out_proj", c.dim),
            Mixer::DeltaNet { heads, .. } => ("ssm_out", heads.out_dim()),
        };
        let post_attention_norm = match ffn_norm {
            "post_attention_norm" => None,
            _ => self.norm(&name("post_attention_norm"), c.dim, c)?,
        };
        let [attn_output_norm, attn_norm_2, layer_output_norm] = match c.post_norm {
            false => [None; 3],
            true => [
                self.norm(&name("attn_output_norm"), c.dim, c)?,
                self.norm(&name("attn_norm_2"), c.dim, c)?,
                self.norm(&name("layer_output_norm"), c.dim, c)?,
            ],
        };
        let heads = c.heads(i);
        let k_norm = match c.layers[i].cache_of {
            None => self.head_norm(&name("attn_k_norm"), (heads.n_kv, heads.key_dim), c)?,
            Some(_) => None,
        };
        Ok(LayerWeights {
            attn_norm: self.norm(&name(attn_norm), c.dim, c)?,
            qkv,
            recurrent,
            latent,
            q_norm: self.head_norm(&name("attn_q_norm"), (heads.n, heads.key_dim), c)?,
            k_norm,
            sinks: self.optional_vector(&name("attn_sinks.weight"), c.n_heads)?,
            attn_output: self.product(&name(output), c.dim, cols)?,
            post_attention_norm,
            attn_output_norm,
            attn_norm_2,
            ffn_norm: self.norm(&name(ffn_norm), c.dim, c)?,
            ffn: self.ffn(i, c)?,
            post_ffw_norm: self.norm(&name("post_ffw_norm"), c.dim, c)?,
            layer_output_norm,
            layer_embed: match c.layer_embed_dim {
                Some(dim) => Some(LayerEmbedWeights::load(self, i, c, dim)?),
                None => None,
            },
            altup: match &c.altup {
                Some(altup) => Some(AltUpLayer::load(self, i, c, altup)?),
                None => None,
            },
            output_scale: self.scalar(&name("layer_output_scale.weight"))?,
        })
    }

    /// Query (and gate), key and value projections.
    fn qkv(&mut self, i: usize, c: &Config) -> Result<Projections, Error> {
        let part = |part: &str, rows| (format!("blk.{i}.{part}"), rows);
        let heads = c.heads(i);
        let parts = [
            part("attn_q", heads.q_dim()),
            part("attn_k", heads.kv_dims().keys),
            part("attn_v", heads.kv_dims().values),
        ];
        if c.layers[i].cache_of.is_some() {
            // Some files have the others, which nothing reads.
            let unread = ["attn_k.weight", "attn_v.weight", "attn_k_norm.weight"];
            self.ignore(&unread.map(|part| format!("blk.{i}.{part}")));
            return self.projections(&parts[..1], c.dim);
        }
        if c.value_norms && !self.has(&format!("{}.weight", parts[2].0)) {
            return self.projections(&parts[..2], c.dim);
        }
        if c.gated_attention {
            let query = self.gated_query(&parts[0].0, c)?;
            let mut projections = self.projections(&parts[1..], c.dim)?;
            projections.products.insert(0, query);
            return Ok(projections);
        }
        let fused = format!("blk.{i}.attn_qkv");
        match self.gguf.tensor(&format!("{fused}.weight")) {
            Some(_) => self.fused(&fused, &parts, c.dim),
            None => self.projections(&parts, c.dim),
        }
    }

    fn ffn(&mut self, i: usize, c: &Config) -> Result<FfnWeights, Error> {
        if let Some(moe) = c.moe(i) {
            if moe.beside {
                let both = BesideWeights::load(self, i, c, *moe)?;
                return Ok(FfnWeights::Beside(Box::new(both)));
            }
            let experts = ExpertWeights::load(self, i, c, *moe)?;
            return Ok(FfnWeights::Experts(Box::new(experts)));
        }
        self.dense_ffn(i, c)
    }

    /// The feed-forward block of layer `i`.
    fn dense_ffn(&mut self, i: usize, c: &Config) -> Result<FfnWeights, Error> {
        let (gate, up) = (format!("blk.{i}.ffn_gate"), format!("blk.{i}.ffn_up"));
        let ffn_dim = c.ffn_dim(i);
        let down = self.product(&format!("blk.{i}.ffn_down"), c.dim, ffn_dim)?;
        Ok(match c.ffn {
            Ffn::Gated => {
                let parts = [(gate, ffn_dim), (up, ffn_dim)];
                FfnWeights::Gated(self.projections(&parts, c.dim)?, down)
            }
            Ffn::GatedFused => {
                let parts = [(gate, ffn_dim), (up.clone(), ffn_dim)];
                FfnWeights::Gated(self.fused(&up, &parts, c.dim)?, down)
            }
            Ffn::Plain => FfnWeights::Plain(self.product(&up, ffn_dim, c.dim)?, down),
        })
    }
}
