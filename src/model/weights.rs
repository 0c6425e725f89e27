//! The tensors of a decoder: found by name, checked against the configuration, joined where one
//! product can serve several.

use std::sync::Arc;

use super::config::{Ffn, Mixer, Norm};
use super::experts::ExpertWeights;
use super::latent::LatentWeights;
use super::loader::Loader;
use super::recurrent::{self, RecurrentWeights};
use super::{Config, Error};
use crate::backend::{WeightId, WeightSpec};
use crate::gguf::Gguf;

/// All weights of a decoder; ids are indices into `specs`.
#[derive(Debug)]
pub(super) struct Weights {
    pub specs: Vec<WeightSpec>,
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
}

/// The feed-forward block, or what stands in its place.
#[derive(Debug)]
pub(super) enum FfnWeights {
    /// Gate and up, then down.
    Gated(Projections, Product),
    /// Up, then down.
    Plain(Product, Product),
    Experts(ExpertWeights),
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
    pub fn load(gguf: &Arc<Gguf>, config: &Config) -> Result<Weights, Error> {
        let mut loader = Loader::new(gguf);
        loader.require(config)?;
        let (vocab_size, dim) = (config.vocab_size, config.dim);
        let embed = loader.matrix("token_embd.weight", vocab_size, dim)?;
        let positions = match gguf.tensor("position_embd.weight") {
            Some(_) => Some(loader.matrix("position_embd.weight", config.n_ctx_train, dim)?),
            None => None,
        };
        let (token_types, embed_norm) = match config.post_norm {
            false => (None, None),
            true => (
                loader.rows_of("token_types", dim)?.map(|(p, _)| p.weight),
                loader.norm("token_embd_norm", dim, config)?,
            ),
        };
        let output_norm = loader.norm(config.output_norm, dim, config)?;
        let output = Product {
            weight: match gguf.tensor("output.weight") {
                Some(_) => loader.matrix("output.weight", vocab_size, dim)?,
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
        loader.refuse_unknown(config)?;
        Ok(Weights {
            specs: loader.specs,
            embed,
            positions,
            token_types,
            embed_norm,
            output_norm,
            output,
            layers,
            dense,
        })
    }
}

impl Loader<'_> {
    /// Queries and gates, whose rows alternate head by head in the file.
    fn gated_query(&mut self, base: &str, c: &Config) -> Result<(Product, Vec<usize>), Error> {
        let bias = format!("{base}.bias");
        if self.gguf.tensor(&bias).is_some() {
            return Err(Error::Unsupported(format!("tensor {bias}")));
        }
        let id = self.matrix(&format!("{base}.weight"), 2 * c.q_dim(), c.dim)?;
        self.specs[id.0].deal(&[c.head_dim, c.head_dim]);
        let product = Product {
            weight: id,
            bias: None,
        };
        Ok((product, vec![c.q_dim(), c.q_dim()]))
    }

    /// `base.weight` over runs of `group` columns, where the file has it, and its bias.
    fn norm(
        &mut self,
        base: &str,
        group: usize,
        config: &Config,
    ) -> Result<Option<NormWeights>, Error> {
        let Some(weight) = self.optional_vector(&format!("{base}.weight"), group)? else {
            return Ok(None);
        };
        let bias = match config.norm {
            Norm::Layer | Norm::Rms => self.optional_vector(&format!("{base}.bias"), group)?,
            Norm::PlainLayer => None,
        };
        Ok(Some(NormWeights {
            weight,
            bias,
            group,
        }))
    }

    /// A norm that the family cannot do without.
    pub fn needed_norm(
        &mut self,
        base: &str,
        group: usize,
        config: &Config,
    ) -> Result<NormWeights, Error> {
        let norm = self.norm(base, group, config)?;
        norm.ok_or_else(|| Error::Tensor(format!("tensor {base}.weight is missing")))
    }

    /// The norm of queries or keys: over each head, with one weight vector or with one per head,
    /// or over all heads together. The tensor's shape says which.
    fn head_norm(
        &mut self,
        base: &str,
        n_heads: usize,
        config: &Config,
    ) -> Result<Option<NormWeights>, Error> {
        let name = format!("{base}.weight");
        let head_dim = config.head_dim;
        let shape = self.gguf.tensor(&name).map(|t| t.shape.clone());
        match shape.as_deref() {
            Some(&[_, rows]) if rows > 1 && config.norm == Norm::Layer => {
                self.check(&name, &[head_dim as u64, n_heads as u64])?;
                let spec = WeightSpec::flat(self.gguf, &name).map_err(Error::Tensor)?;
                Ok(Some(NormWeights {
                    weight: self.add_spec(spec, &[&name])?,
                    bias: None,
                    group: head_dim,
                }))
            }
            Some(&[n]) if n == (n_heads * head_dim) as u64 => {
                self.norm(base, n_heads * head_dim, config)
            }
            _ => self.norm(base, head_dim, config),
        }
    }

    /// The matrices after pooling, each over the one before; the last gives as many numbers as the
    /// model is wide.
    fn dense(&mut self, dim: usize) -> Result<Vec<Product>, Error> {
        let mut found = Vec::new();
        let mut width = dim;
        for base in ["dense_2", "dense_3"] {
            if let Some((product, rows)) = self.rows_of(base, width)? {
                found.push(product);
                width = rows;
            }
        }
        match width == dim {
            true => Ok(found),
            false => Err(Error::Tensor(format!(
                "the dense tensors give {width} numbers, {dim} are needed"
            ))),
        }
    }

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
            Mixer::Attention => ("attn_output", c.mixed_dim()),
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
        Ok(LayerWeights {
            attn_norm: self.norm(&name(attn_norm), c.dim, c)?,
            qkv,
            recurrent,
            latent,
            q_norm: self.head_norm(&name("attn_q_norm"), c.n_heads, c)?,
            k_norm: self.head_norm(&name("attn_k_norm"), c.n_kv_heads, c)?,
            sinks: self.optional_vector(&name("attn_sinks.weight"), c.n_heads)?,
            attn_output: self.product(&name(output), c.dim, cols)?,
            post_attention_norm,
            attn_output_norm,
            attn_norm_2,
            ffn_norm: self.norm(&name(ffn_norm), c.dim, c)?,
            ffn: self.ffn(i, c)?,
            post_ffw_norm: self.norm(&name("post_ffw_norm"), c.dim, c)?,
            layer_output_norm,
        })
    }

    /// Query (and gate), key and value projections.
    fn qkv(&mut self, i: usize, c: &Config) -> Result<Projections, Error> {
        let part = |part: &str, rows| (format!("blk.{i}.{part}"), rows);
        let parts = [
            part("attn_q", c.q_dim()),
            part("attn_k", c.kv_dims().keys),
            part("attn_v", c.kv_dims().values),
        ];
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
            return ExpertWeights::load(self, i, c, *moe).map(FfnWeights::Experts);
        }
        let (gate, up) = (format!("blk.{i}.ffn_gate"), format!("blk.{i}.ffn_up"));
        let down = self.product(&format!("blk.{i}.ffn_down"), c.dim, c.ffn_dim)?;
        Ok(match c.ffn {
            Ffn::Gated => {
                let parts = [(gate, c.ffn_dim), (up, c.ffn_dim)];
                FfnWeights::Gated(self.projections(&parts, c.dim)?, down)
            }
            Ffn::GatedFused => {
                let parts = [(gate, c.ffn_dim), (up.clone(), c.ffn_dim)];
                FfnWeights::Gated(self.fused(&up, &parts, c.dim)?, down)
            }
            Ffn::Plain => FfnWeights::Plain(self.product(&up, c.ffn_dim, c.dim)?, down),
        })
    }
}
