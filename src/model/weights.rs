//! The tensors of a decoder: found by name, checked against the configuration, joined where one
//! product can serve several.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Config, Error};
use crate::backend::{WeightId, WeightSpec};
use crate::gguf::Gguf;
use crate::quant::QuantType;

/// Tensors that some files carry and no step needs.
const NOT_NEEDED: &[&str] = &["rope_freqs.weight"];
const NOT_NEEDED_SUFFIXES: &[&str] =
    &[".attn_rot_embd", ".attn.rope.freqs", ".rotary_emb.inv_freq"];

/// All weights of a decoder; ids are indices into `specs`.
#[derive(Debug)]
pub(super) struct Weights {
    pub specs: Vec<WeightSpec>,
    pub embed: WeightId,
    pub output_norm: WeightId,
    /// The embedding matrix itself where the file has no other.
    pub output: WeightId,
    pub layers: Vec<LayerWeights>,
}

/// The weights of one layer.
#[derive(Debug)]
pub(super) struct LayerWeights {
    pub attn_norm: WeightId,
    pub qkv: Projections,
    pub q_norm: Option<WeightId>,
    pub k_norm: Option<WeightId>,
    /// A score per head without a value.
    pub sinks: Option<WeightId>,
    pub attn_output: Product,
    pub post_attention_norm: Option<WeightId>,
    pub ffn_norm: WeightId,
    pub gate_up: Projections,
    pub ffn_down: Product,
    pub post_ffw_norm: Option<WeightId>,
}

/// A matrix and its optional bias.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub weight: WeightId,
    pub bias: Option<WeightId>,
}

/// Several matrices over one input, in as few products as their types allow.
#[derive(Debug)]
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
        let embed = loader.matrix("token_embd.weight", config.vocab_size, config.dim)?;
        let output_norm = loader.vector("output_norm.weight", config.dim)?;
        let output = match gguf.tensor("output.weight") {
            Some(_) => loader.matrix("output.weight", config.vocab_size, config.dim)?,
            None => embed,
        };
        let layers = (0..config.layers.len())
            .map(|i| loader.layer(i, config))
            .collect::<Result<_, _>>()?;
        loader.refuse_unknown()?;
        Ok(Weights {
            specs: loader.specs,
            embed,
            output_norm,
            output,
            layers,
        })
    }
}

struct Loader<'a> {
    gguf: &'a Arc<Gguf>,
    specs: Vec<WeightSpec>,
    used: HashSet<String>,
}

impl Loader<'_> {
    fn add(&mut self, names: &[&str]) -> Result<WeightId, Error> {
        let spec = WeightSpec::join(self.gguf, names).map_err(Error::Tensor)?;
        self.used.extend(names.iter().map(|n| n.to_string()));
        self.specs.push(spec);
        Ok(WeightId(self.specs.len() - 1))
    }

    /// Checks that a tensor exists with this shape, fastest extent first, and says its type.
    fn check(&self, name: &str, shape: &[u64]) -> Result<QuantType, Error> {
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

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<WeightId, Error> {
        self.check(name, &[cols as u64, rows as u64])?;
        self.add(&[name])
    }

    /// A norm or bias: plain 32-bit floats.
    fn vector(&mut self, name: &str, n: usize) -> Result<WeightId, Error> {
        self.check_vector(name, n)?;
        self.add(&[name])
    }

    fn check_vector(&self, name: &str, n: usize) -> Result<(), Error> {
        match self.check(name, &[n as u64])? {
            QuantType::F32 => Ok(()),
            other => Err(Error::Tensor(format!(
                "tensor {name} has type {}, F32 is needed",
                other.name()
            ))),
        }
    }

    fn optional_vector(&mut self, name: &str, n: usize) -> Result<Option<WeightId>, Error> {
        match self.gguf.tensor(name) {
            Some(_) => self.vector(name, n).map(Some),
            None => Ok(None),
        }
    }

    /// `base.weight` and, where the file has it, `base.bias`.
    fn product(&mut self, base: &str, rows: usize, cols: usize) -> Result<Product, Error> {
        Ok(Product {
            weight: self.matrix(&format!("{base}.weight"), rows, cols)?,
            bias: self.optional_vector(&format!("{base}.bias"), rows)?,
        })
    }

    /// Joins neighbours of one type, where both or neither have a bias.
    fn projections(
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

    fn layer(&mut self, i: usize, c: &Config) -> Result<LayerWeights, Error> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let (q, kv) = (c.q_dim(), c.kv_dims());
        let qkv = [("attn_q", q), ("attn_k", kv.keys), ("attn_v", kv.values)];
        let gate_up = [("ffn_gate", c.ffn_dim), ("ffn_up", c.ffn_dim)];
        let named = |parts: &[(&str, usize)]| -> Vec<(String, usize)> {
            parts
                .iter()
                .map(|(part, rows)| (name(part), *rows))
                .collect()
        };
        Ok(LayerWeights {
            attn_norm: self.vector(&name("attn_norm.weight"), c.dim)?,
            qkv: self.projections(&named(&qkv), c.dim)?,
            q_norm: self.optional_vector(&name("attn_q_norm.weight"), c.head_dim)?,
            k_norm: self.optional_vector(&name("attn_k_norm.weight"), c.head_dim)?,
            sinks: self.optional_vector(&name("attn_sinks.weight"), c.n_heads)?,
            attn_output: self.product(&name("attn_output"), c.dim, c.n_heads * c.value_dim)?,
            post_attention_norm: self
                .optional_vector(&name("post_attention_norm.weight"), c.dim)?,
            ffn_norm: self.vector(&name("ffn_norm.weight"), c.dim)?,
            gate_up: self.projections(&named(&gate_up), c.dim)?,
            ffn_down: self.product(&name("ffn_down"), c.dim, c.ffn_dim)?,
            post_ffw_norm: self.optional_vector(&name("post_ffw_norm.weight"), c.dim)?,
        })
    }

    /// A tensor that nothing reads would mean that the model computes something else than it says.
    fn refuse_unknown(&self) -> Result<(), Error> {
        let ignored = |name: &str| {
            NOT_NEEDED.contains(&name) || NOT_NEEDED_SUFFIXES.iter().any(|s| name.ends_with(s))
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
