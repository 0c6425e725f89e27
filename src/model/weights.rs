//! The tensors of a decoder: found by name, checked against the configuration, joined where one
//! product can serve several.

use std::collections::HashSet;
use std::sync::Arc;

use super::config::{Ffn, Mixer, Norm};
use super::experts::ExpertWeights;
use super::latent::LatentWeights;
use super::recurrent::{self, RecurrentWeights};
use super::{Config, Error};
use crate::backend::{WeightId, WeightSpec};
use crate::gguf::Gguf;
use crate::quant::QuantType;

/// Tensors that some files carry and no step needs.
const NOT_NEEDED: &[&str] = &[
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
];
const NOT_NEEDED_SUFFIXES: &[&str] =
    &[".attn_rot_embd", ".attn.rope.freqs", ".rotary_emb.inv_freq"];

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
        let mut loader = Loader {
            gguf,
            specs: Vec::new(),
            used: HashSet::new(),
        };
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

/// Rows of a weight that are looked at before it is accepted.
const CHECKED_ROWS: usize = 4;

/// Refuses a weight with numbers that are none, as a broken conversion leaves them: vectors are
/// read whole, and of a matrix a few rows from the first to the last, since reading all of a file
/// would take as long as everything else at load.
fn check_numbers(spec: &WeightSpec) -> Result<(), Error> {
    let mut numbers = vec![0.0; spec.cols];
    let step = (spec.rows.saturating_sub(1) / (CHECKED_ROWS - 1)).max(1);
    let step = if spec.is_vector() { 1 } else { step };
    let mut next = 0;
    let mut first = 0;
    for (rows, bytes) in spec.parts() {
        while next < first + rows {
            let row = &bytes[(next - first) * spec.row_bytes()..][..spec.row_bytes()];
            spec.quant.decode(row, &mut numbers);
            if numbers.iter().any(|x| !x.is_finite()) {
                return Err(Error::Tensor(format!(
                    "tensor {} has numbers that are not finite",
                    spec.name
                )));
            }
            // The last row is always among them.
            next = (next + step).min((spec.rows - 1).max(next + 1));
        }
        first += rows;
    }
    Ok(())
}

pub(super) struct Loader<'a> {
    gguf: &'a Arc<Gguf>,
    specs: Vec<WeightSpec>,
    used: HashSet<String>,
}

impl Loader<'_> {
    /// Names the first tensor that the family cannot do without and the file does.
    fn require(&self, config: &Config) -> Result<(), Error> {
        for pattern in &config.required {
            let n = if pattern.contains('*') {
                config.layers.len()
            } else {
                1
            };
            let mut names = (0..n).map(|i| pattern.replace('*', &i.to_string()));
            if let Some(name) = names.find(|name| self.gguf.tensor(name).is_none()) {
                return Err(Error::Tensor(format!("tensor {name} is missing")));
            }
        }
        Ok(())
    }

    fn add(&mut self, names: &[&str]) -> Result<WeightId, Error> {
        let spec = WeightSpec::join(self.gguf, names).map_err(Error::Tensor)?;
        self.add_spec(spec, names)
    }

    fn add_spec(&mut self, spec: WeightSpec, names: &[&str]) -> Result<WeightId, Error> {
        check_numbers(&spec)?;
        self.used.extend(names.iter().map(|n| n.to_string()));
        self.specs.push(spec);
        Ok(WeightId(self.specs.len() - 1))
    }

    /// The matrices of experts, joined within each.
    pub fn add_experts(&mut self, names: &[&str], n_experts: usize) -> Result<WeightId, Error> {
        let spec = WeightSpec::experts(self.gguf, names, n_experts).map_err(Error::Tensor)?;
        self.add_spec(spec, names)
    }

    /// The biases of experts, as [`Loader::add_experts`].
    pub fn add_expert_biases(
        &mut self,
        names: &[&str],
        n_experts: usize,
    ) -> Result<WeightId, Error> {
        let spec = WeightSpec::expert_biases(self.gguf, names, n_experts).map_err(Error::Tensor)?;
        self.add_spec(spec, names)
    }

    /// Whether the file has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// Checks that a tensor exists with this shape, fastest extent first, and says its type.
    pub fn check(&self, name: &str, shape: &[u64]) -> Result<QuantType, Error> {
        let tensor = self
            .gguf
            .tensor(name)
            .ok_or_else(|| Error::Tensor(format!("tensor {name} is missing")))?;
        // Files may write trailing extents of one.
        let n = tensor
            .shape
            .iter()
            .rposition(|&n| n != 1)
            .map_or(1, |i| i + 1);
        if tensor.shape[..n] != shape[..shape.iter().rposition(|&n| n != 1).map_or(1, |i| i + 1)] {
            return Err(Error::Tensor(format!(
                "tensor {name} has shape {:?}, {shape:?} is needed",
                tensor.shape
            )));
        }
        tensor
            .quant()
            .ok_or_else(|| Error::Tensor(format!("tensor {name} has an unknown type")))
    }

    pub fn optional_matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Option<WeightId>, Error> {
        match self.has(name) {
            true => self.matrix(name, rows, cols).map(Some),
            false => Ok(None),
        }
    }

    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<WeightId, Error> {
        self.check(name, &[cols as u64, rows as u64])?;
        self.add(&[name])
    }

    /// A norm or bias: plain 32-bit floats.
    pub fn vector(&mut self, name: &str, n: usize) -> Result<WeightId, Error> {
        self.check_vector(name, n)?;
        self.add(&[name])
    }

    /// The taps of a convolution along the sequence, `[n, kernel]`, as one row.
    pub fn taps(&mut self, name: &str, kernel: usize, n: usize) -> Result<WeightId, Error> {
        self.check(name, &[kernel as u64, n as u64])?;
        let spec = WeightSpec::flat(self.gguf, name).map_err(Error::Tensor)?;
        self.add_spec(spec, &[name])
    }

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

    fn check_vector(&self, name: &str, n: usize) -> Result<(), Error> {
        self.check_floats(name, &[n as u64])
    }

    /// Checks that a tensor has this shape and plain 32-bit floats.
    pub fn check_floats(&self, name: &str, shape: &[u64]) -> Result<(), Error> {
        match self.check(name, shape)? {
            QuantType::F32 => Ok(()),
            other => Err(Error::Tensor(format!(
                "tensor {name} has type {}, F32 is needed",
                other.name()
            ))),
        }
    }

    pub fn optional_vector(&mut self, name: &str, n: usize) -> Result<Option<WeightId>, Error> {
        match self.gguf.tensor(name) {
            Some(_) => self.vector(name, n).map(Some),
            None => Ok(None),
        }
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

    /// `base.weight` and, where the file has it, `base.bias`.
    pub fn product(&mut self, base: &str, rows: usize, cols: usize) -> Result<Product, Error> {
        Ok(Product {
            weight: self.matrix(&format!("{base}.weight"), rows, cols)?,
            bias: self.optional_vector(&format!("{base}.bias"), rows)?,
        })
    }

    /// `base.weight` with as many rows as it has, where the file has it.
    fn rows_of(&mut self, base: &str, cols: usize) -> Result<Option<(Product, usize)>, Error> {
        let Some(tensor) = self.gguf.tensor(&format!("{base}.weight")) else {
            return Ok(None);
        };
        let rows = tensor.shape.get(1).map_or(1, |&n| n as usize);
        Ok(Some((self.product(base, rows, cols)?, rows)))
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

    /// Joins neighbours of one type, where both or neither have a bias.
    pub fn projections(
        &mut self,
        parts: &[(String, usize)],
        cols: usize,
    ) -> Result<Projections, Error> {
        let mut kinds = Vec::new();
        for (base, rows) in parts {
            let quant = self.check(&format!("{base}.weight"), &[cols as u64, *rows as u64])?;
            let bias = format!("{base}.bias");
            let has_bias = self.gguf.tensor(&bias).is_some();
            if has_bias {
                self.check_vector(&bias, *rows)?;
            }
            kinds.push((quant, has_bias));
        }
        let mut products = Vec::new();
        let mut start = 0;
        while start < parts.len() {
            let same = kinds[start..].iter().take_while(|&&k| k == kinds[start]);
            let group = &parts[start..start + same.count()];
            products.push(self.joined(group, kinds[start].1)?);
            start += group.len();
        }
        Ok(Projections { products })
    }

    fn joined(
        &mut self,
        group: &[(String, usize)],
        has_bias: bool,
    ) -> Result<(Product, Vec<usize>), Error> {
        let names = |suffix: &str| -> Vec<String> {
            group
                .iter()
                .map(|(base, _)| format!("{base}.{suffix}"))
                .collect()
        };
        let mut add = |names: Vec<String>| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.add(&names)
        };
        let product = Product {
            weight: add(names("weight"))?,
            bias: has_bias.then(|| add(names("bias"))).transpose()?,
        };
        Ok((product, group.iter().map(|(_, rows)| *rows).collect()))
    }

    /// Several matrices that the file keeps in one tensor, with its bias or theirs.
    fn fused(
        &mut self,
        base: &str,
        parts: &[(String, usize)],
        cols: usize,
    ) -> Result<Projections, Error> {
        let widths: Vec<usize> = parts.iter().map(|(_, rows)| *rows).collect();
        let mut product = self.product(base, widths.iter().sum(), cols)?;
        let biases: Vec<String> = parts.iter().map(|(p, _)| format!("{p}.bias")).collect();
        if product.bias.is_none() && self.gguf.tensor(&biases[0]).is_some() {
            for (bias, rows) in biases.iter().zip(&widths) {
                self.check_vector(bias, *rows)?;
            }
            let names: Vec<&str> = biases.iter().map(String::as_str).collect();
            product.bias = Some(self.add(&names)?);
        }
        Ok(Projections {
            products: vec![(product, widths)],
        })
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

    /// A tensor that nothing reads would mean that the model computes something else than it says.
    fn refuse_unknown(&self, config: &Config) -> Result<(), Error> {
        let n_layers = config.layers.len();
        let skipped = n_layers..n_layers + config.n_skipped_layers;
        let skipped: Vec<String> = skipped.map(|i| format!("blk.{i}.")).collect();
        let ignored = |name: &str| {
            skipped.iter().any(|layer| name.starts_with(layer))
                || NOT_NEEDED.contains(&name)
                || NOT_NEEDED_SUFFIXES.iter().any(|s| name.ends_with(s))
        };
        let mut names = self.gguf.tensors().iter().map(|t| t.name.as_str());
        match names.find(|name| !self.used.contains(*name) && !ignored(name)) {
            None => Ok(()),
            Some(name) => Err(Error::Unsupported(format!(
                "tensor {name} of architecture '{}'",
                self.gguf.architecture()
            ))),
        }
    }
}
