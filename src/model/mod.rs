//! From a GGUF file to a configuration, named weights and the plan of a step.
//!
//! A family of models is a function from metadata to a [`Config`] (`arch.rs`); what differs in
//! the arithmetic is data in it. `decoder.rs` records the plan, top to bottom; `encoder.rs` that of
//! models that embed.

mod adapter;
mod altup;
mod arch;
mod beside;
mod config;
mod decoder;
mod embedder;
mod encoder;
mod experts;
mod finite;
mod keys;
mod latent;
mod layer_embed;
mod loader;
mod recurrent;
mod session;
mod weights;

use std::sync::Arc;

use thiserror::Error;

use crate::backend::{
    Backend, BackendError, BatchShape, CacheSpec, KV_BLOCK, KvType, Op, Plan, WeightSpec,
};
use crate::gguf::{Gguf, Lora};

pub use arch::architectures;
pub use config::{Config, Ffn, Heads, Latent, Layer, LayerRope, LongRope, Mixer, Moe, Norm};
pub use embedder::{Embedder, Pooling, normalised};
pub use session::Session;

/// Why a model cannot be run.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// No function knows this family.
    #[error("unknown model architecture: '{name}'; supported are {supported}")]
    Architecture { name: String, supported: String },
    /// A metadata key is missing or has a value that cannot be used.
    #[error("key {key}: {what}")]
    Key { key: String, what: String },
    /// The model asks for something that is not implemented.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A tensor is missing, has another shape or type than the metadata says, or is not known.
    #[error("{0}")]
    Tensor(String),
    /// An adapter is not for this model, or changes what cannot be changed.
    #[error("adapter: {0}")]
    Adapter(String),
}

/// A model that a backend can load: configuration and weights, still in the mapped file.
#[derive(Debug)]
pub struct Model {
    config: Config,
    weights: weights::Weights,
}

impl Model {
    /// Reads the configuration and checks every tensor.
    ///
    /// # Errors
    /// Whatever the file asks for that cannot be done is named here, never found out later.
    pub fn load(gguf: &Arc<Gguf>) -> Result<Model, Error> {
        Model::load_adapted(gguf, &[])
    }

    /// As [`Model::load`], with adapters: their matrices are weights beside those of the model, and
    /// plans add what they give.
    ///
    /// # Errors
    /// Besides those of [`Model::load`], [`Error::Adapter`] for one that cannot be applied whole.
    pub fn load_adapted(gguf: &Arc<Gguf>, adapters: &[Lora]) -> Result<Model, Error> {
        let ((), model) = Model::load_beside(gguf, adapters, &|| {}, || ())?;
        Ok(model)
    }

    /// As [`Model::load_adapted`]; calls `progress`, on any thread, for each piece of the file that was
    /// looked at, and does `other` on one of the threads that look.
    ///
    /// # Errors
    /// As [`Model::load_adapted`].
    pub fn load_beside<T: Send>(
        gguf: &Arc<Gguf>,
        adapters: &[Lora],
        progress: &(dyn Fn() + Sync),
        other: impl FnOnce() -> T + Send,
    ) -> Result<(T, Model), Error> {
        let config = arch::config(gguf)?;
        for adapter in adapters {
            adapter.check(gguf).map_err(Error::Adapter)?;
        }
        let weights = weights::Weights::load(gguf, adapters, &config)?;
        let (done, checked) = finite::check(&weights.specs, progress, other);
        checked?;
        // All were looked at. The first prompt reads a few rows of these, and all of most others.
        weights.tables(&config).for_each(WeightSpec::release_pages);
        Ok((done, Model { config, weights }))
    }

    /// The family's numbers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All weights; the index is the [`crate::backend::WeightId`] that plans use.
    pub fn weights(&self) -> &[WeightSpec] {
        &self.weights.specs
    }

    /// Bytes of all weights as stored.
    pub fn weight_bytes(&self) -> u64 {
        self.weights().iter().map(WeightSpec::bytes).sum()
    }

    /// Bytes of weights that a plan's products read for one token.
    pub fn token_bytes(&self, plan: &Plan) -> u64 {
        let read = |op: &Op| match op {
            Op::Matmul { weight, .. } | Op::AddLowRank { up: weight, .. } => {
                self.weights()[weight.0].bytes()
            }
            Op::MatmulExperts { products, .. } => {
                let weight = &self.weights()[products.weight.0];
                weight.bytes() / weight.n_experts as u64 * products.n_used as u64
            }
            _ => 0,
        };
        plan.ops.iter().map(read).sum()
    }

    /// Hands every weight to a backend that has none yet.
    ///
    /// # Errors
    /// The backend's, with the first weight that it could not take.
    pub fn load_into(&self, backend: &mut dyn Backend) -> Result<(), BackendError> {
        for (i, spec) in self.weights().iter().enumerate() {
            let id = backend.load(spec)?;
            if id.0 != i {
                return Err(BackendError::Invalid(format!(
                    "weight {} was loaded as number {} instead of {i}",
                    spec.name, id.0
                )));
            }
        }
        Ok(())
    }

    /// How the model makes an embedding of a text; none for one that writes texts.
    pub fn pooling(&self) -> Option<Pooling> {
        self.config.pooling
    }

    /// The type its cache has where `wanted` is asked for: heads that are not whole blocks of a
    /// quantised type are kept as half floats.
    pub fn kv_type(&self, wanted: KvType) -> KvType {
        let whole = |i: usize| {
            let Heads {
                key_dim, value_dim, ..
            } = self.config.heads(i);
            key_dim.is_multiple_of(KV_BLOCK) && value_dim.is_multiple_of(KV_BLOCK)
        };
        match wanted.is_quantised() && !(0..self.config.layers.len()).all(whole) {
            true => KvType::F16,
            false => wanted,
        }
    }

    /// The cache that the model needs for this many pages, of the type or of its stand-in
    /// ([`Self::kv_type`]), and for this many sequences in a step.
    pub fn cache_spec(&self, kv_type: KvType, n_pages: usize, n_sequences: usize) -> CacheSpec {
        let n_layers = match self.config.pooling {
            None => self.config.layers.len(),
            Some(_) => 1,
        };
        CacheSpec {
            kv_type: self.kv_type(kv_type),
            n_pages,
            layers: (0..n_layers).map(|i| self.config.cached(i)).collect(),
            n_sequences,
            states: self.config.states(),
        }
    }

    /// Whether it keeps recurrent states besides the cache.
    pub fn is_recurrent(&self) -> bool {
        !self.config.states().is_empty()
    }

    /// The plan of a step that embeds whole texts, in a context of `n_ctx` tokens; for a model
    /// with pooling. Its first output is the buffer of embeddings, one for each text whose last row
    /// is wanted, or the first with [`Pooling::First`].
    pub fn embedding_plan(&self, n_ctx: usize, shape: BatchShape) -> Plan {
        encoder::plan(&self.config, &self.weights, n_ctx, shape)
    }

    /// The plan of a step in a context of `n_ctx` tokens, for a model that writes texts. Its first
    /// output is the buffer of logits `[outputs, vocab_size]`; with `top_k` the step also returns
    /// that many candidates of each wanted row.
    pub fn plan(&self, n_ctx: usize, shape: BatchShape, top_k: Option<usize>) -> Plan {
        decoder::plan(&self.config, &self.weights, n_ctx, shape, top_k)
    }
}
