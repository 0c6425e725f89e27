//! Tensors by name: found, checked against the shape that the configuration asks for, joined where
//! one product can serve several.

use std::collections::HashSet;
use std::sync::Arc;

use super::config::Norm;
use super::finite;
use super::weights::{NormWeights, Product, Projections};
use super::{Config, Error};
use crate::backend::{LowRank, WeightId, WeightSpec};
use crate::gguf::{Gguf, Lora};
use crate::quant::QuantType;

/// Tensors that some files carry and no step needs.
const NOT_NEEDED: &[&str] = &[
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
];
const NOT_NEEDED_SUFFIXES: &[&str] =
    &[".attn_rot_embd", ".attn.rope.freqs", ".rotary_emb.inv_freq"];
/// Beginnings of the names of an encoder of images or sounds and of the matrices behind it, which
/// stand in the same file where a model reads them too, and of layers that propose tokens. Texts
/// go through none of them.
const NOT_TEXT: &[&str] = &["v.", "mm.", "a.", "model.vision_tower.", "mtp."];

/// Gives the weights their ids, in the order in which they are asked for.
pub(super) struct Loader<'a> {
    pub gguf: &'a Arc<Gguf>,
    pub adapters: &'a [Lora],
    pub specs: Vec<WeightSpec>,
    pub updates: Vec<LowRank>,
    /// Tensors that were adapted, with the number of the adapter.
    pub adapted: HashSet<(usize, String)>,
    used: HashSet<String>,
}

impl<'a> Loader<'a> {
    pub fn new(gguf: &'a Arc<Gguf>, adapters: &'a [Lora]) -> Loader<'a> {
        Loader {
            gguf,
            adapters,
            specs: Vec::new(),
            updates: Vec::new(),
            adapted: HashSet::new(),
            used: HashSet::new(),
        }
    }

    /// Names the first tensor that the family cannot do without and the file does.
    pub fn require(&self, config: &Config) -> Result<(), Error> {
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

    pub fn add(&mut self, names: &[&str]) -> Result<WeightId, Error> {
        let spec = WeightSpec::join(self.gguf, names).map_err(Error::Tensor)?;
        self.add_spec(spec, names)
    }

    pub fn add_spec(&mut self, spec: WeightSpec, names: &[&str]) -> Result<WeightId, Error> {
        self.used.extend(names.iter().map(|n| n.to_string()));
        self.push_spec(spec)
    }

    pub fn push_spec(&mut self, spec: WeightSpec) -> Result<WeightId, Error> {
        self.specs.push(spec);
        Ok(WeightId(self.specs.len() - 1))
    }

    /// The matrices of so many rows that lie one after another in a tensor.
    pub fn add_rows(&mut self, name: &str, rows: usize) -> Result<Vec<WeightId>, Error> {
        let whole = WeightSpec::join(self.gguf, &[name]).map_err(Error::Tensor)?;
        let starts = (0..whole.rows).step_by(rows);
        starts
            .map(|first| self.add_spec(whole.cut_rows(first, rows), &[name]))
            .collect()
    }

    /// The matrices of experts, joined within each; so many files hold the experts of a matrix.
    pub fn add_experts(
        &mut self,
        names: &[&str],
        n_experts: usize,
        n_files: usize,
    ) -> Result<WeightId, Error> {
        let spec = match n_files {
            1 => WeightSpec::experts(self.gguf, names, n_experts),
            _ => WeightSpec::separate_experts(self.gguf, names, n_experts),
        };
        let weight = self.add_spec(spec.map_err(Error::Tensor)?, names)?;
        if let [name] = names {
            self.adapt_experts(weight, name, n_experts)?;
        }
        Ok(weight)
    }

    /// The matrices of experts that one tensor has, as so many of equal size in each.
    pub fn add_fused_experts(
        &mut self,
        name: &str,
        n_experts: usize,
        n_parts: usize,
    ) -> Result<WeightId, Error> {
        let spec = WeightSpec::experts(self.gguf, &[name], n_experts).map_err(Error::Tensor)?;
        let weight = self.add_spec(spec.cut_experts(n_parts), &[name])?;
        self.adapt_experts(weight, name, n_experts)?;
        self.change_updates(weight, |up| *up = up.clone().cut_experts(n_parts));
        Ok(weight)
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

    /// The weight of a product.
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<WeightId, Error> {
        let weight = self.table(name, rows, cols)?;
        self.adapt(weight, &[(name, rows)])?;
        Ok(weight)
    }

    /// A matrix whose rows are looked up.
    pub fn table(&mut self, name: &str, rows: usize, cols: usize) -> Result<WeightId, Error> {
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

    /// A matrix `[rows, cols]` whose rows alternate in blocks of these widths, sorted by block.
    pub fn dealt(
        &mut self,
        base: &str,
        (rows, cols): (usize, usize),
        widths: &[usize],
    ) -> Result<Product, Error> {
        let bias = format!("{base}.bias");
        if self.gguf.tensor(&bias).is_some() {
            return Err(Error::Unsupported(format!("tensor {bias}")));
        }
        let weight = self.matrix(&format!("{base}.weight"), rows, cols)?;
        self.specs[weight.0].deal(widths);
        self.change_updates(weight, |up| up.deal(widths));
        Ok(Product { weight, bias: None })
    }

    /// Queries and gates, whose rows alternate head by head in the file.
    pub fn gated_query(&mut self, base: &str, c: &Config) -> Result<(Product, Vec<usize>), Error> {
        let q_dim = c.n_heads * c.head_dim;
        let product = self.dealt(base, (2 * q_dim, c.dim), &[c.head_dim, c.head_dim])?;
        Ok((product, vec![q_dim, q_dim]))
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

    /// A tensor of one number, where the file has it.
    pub fn scalar(&mut self, name: &str) -> Result<Option<f32>, Error> {
        let Some(tensor) = self.gguf.tensor(name) else {
            return Ok(None);
        };
        self.check_floats(name, &[1])?;
        let bytes = self.gguf.data(tensor).try_into();
        let number = f32::from_le_bytes(bytes.expect("one number"));
        if !number.is_finite() {
            return Err(finite::error(name));
        }
        self.used.insert(name.into());
        Ok(Some(number))
    }

    /// Tensors that the file has and this model does not need.
    pub fn ignore(&mut self, names: &[String]) {
        self.used.extend(names.iter().cloned());
    }

    /// `base.weight` over runs of `group` columns, where the file has it, and its bias.
    pub fn norm(
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
    pub fn head_norm(
        &mut self,
        base: &str,
        (n_heads, head_dim): (usize, usize),
        config: &Config,
    ) -> Result<Option<NormWeights>, Error> {
        let name = format!("{base}.weight");
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
    pub fn rows_of(&mut self, base: &str, cols: usize) -> Result<Option<(Product, usize)>, Error> {
        match self.n_rows(&format!("{base}.weight")) {
            Some(rows) => Ok(Some((self.product(base, rows, cols)?, rows))),
            None => Ok(None),
        }
    }

    /// Rows of a matrix, where the file has it.
    pub fn n_rows(&self, name: &str) -> Option<usize> {
        let tensor = self.gguf.tensor(name)?;
        Some(tensor.shape.get(1).map_or(1, |&n| n as usize))
    }

    /// The matrices after pooling, each over the one before; the last gives as many numbers as the
    /// model is wide.
    pub fn dense(&mut self, dim: usize) -> Result<Vec<Product>, Error> {
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
            let weight = format!("{base}.weight");
            let quant = self.check(&weight, &[cols as u64, *rows as u64])?;
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
            products.push(self.joined(group, kinds[start].1, cols)?);
            start += group.len();
        }
        Ok(Projections { products })
    }

    fn joined(
        &mut self,
        group: &[(String, usize)],
        has_bias: bool,
        cols: usize,
    ) -> Result<(Product, Vec<usize>), Error> {
        if let [(base, rows)] = group {
            return Ok((self.product(base, *rows, cols)?, vec![*rows]));
        }
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
        let weights = names("weight");
        let product = Product {
            weight: add(weights.clone())?,
            bias: has_bias.then(|| add(names("bias"))).transpose()?,
        };
        let widths: Vec<usize> = group.iter().map(|(_, rows)| *rows).collect();
        let tensors = weights
            .iter()
            .map(String::as_str)
            .zip(widths.iter().copied());
        self.adapt(product.weight, &tensors.collect::<Vec<_>>())?;
        Ok((product, widths))
    }

    /// Several matrices that the file keeps in one tensor, with its bias or theirs.
    pub fn fused(
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

    /// A tensor that nothing reads would mean that the model computes something else than it says.
    pub fn refuse_unknown(&self, config: &Config) -> Result<(), Error> {
        let n_layers = config.layers.len();
        let skipped = n_layers..n_layers + config.n_skipped_layers;
        let skipped: Vec<String> = skipped.map(|i| format!("blk.{i}.")).collect();
        let ignored = |name: &str| {
            skipped.iter().any(|layer| name.starts_with(layer))
                || NOT_TEXT.iter().any(|prefix| name.starts_with(prefix))
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
