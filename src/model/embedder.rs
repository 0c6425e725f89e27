//! Texts to vectors on one backend: whole texts side by side in one step, nothing kept between steps.

use super::Model;
use crate::backend::{
    Backend, BackendError, Batch, BatchShape, BufferId, KvType, PAGE_TOKENS, Phase, PreparedId,
};

/// How the rows of a text become its embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all.
    Mean,
    /// The first, that of BERT's `[CLS]`.
    First,
    /// The last.
    Last,
}

/// A model that embeds texts, ready to run.
pub struct Embedder {
    backend: Box<dyn Backend>,
    plan: PreparedId,
    output: BufferId,
    pooling: Pooling,
    n_tokens: usize,
    n_texts: usize,
    dim: usize,
    memory_bytes: u64,
}

impl Embedder {
    /// Prepares a model whose weights the backend has loaded, for contexts of `n_ctx` tokens and
    /// steps of up to `n_tokens` tokens in `n_texts` texts.
    ///
    /// # Errors
    /// The backend's.
    ///
    /// # Panics
    /// If the model has no pooling.
    pub fn prepare(
        model: &Model,
        mut backend: Box<dyn Backend>,
        n_ctx: usize,
        n_tokens: usize,
        n_texts: usize,
    ) -> Result<Embedder, BackendError> {
        let shape = BatchShape {
            phase: Phase::Prefill,
            n_tokens,
            n_outputs: n_texts,
        };
        let n_pages = n_tokens.div_ceil(PAGE_TOKENS) + n_texts;
        let cache = model.cache_spec(KvType::F32, n_pages, n_texts);
        backend.alloc_cache(&cache)?;
        let pooling = model.pooling().expect("a model that embeds");
        let plan = model.embedding_plan(n_ctx, shape);
        let output = plan.outputs[0];
        let buffers: usize = plan.storage_sizes().iter().sum();
        Ok(Embedder {
            n_tokens,
            n_texts,
            dim: plan.buffers[output.0].cols,
            memory_bytes: cache.bytes() + 4 * buffers as u64,
            output,
            pooling,
            plan: backend.prepare(plan)?,
            backend,
        })
    }

    /// The device behind it.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Bytes of cache and buffers.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// How many of the texts, from the first on, fit into one step; none if the first is longer
    /// than a step.
    pub fn n_fitting<'a>(&self, texts: impl Iterator<Item = &'a [u32]>) -> usize {
        let mut n_left = self.n_tokens;
        let fits = |text: &&[u32]| {
            let rest = n_left.checked_sub(text.len());
            n_left = rest.unwrap_or(0);
            rest.is_some()
        };
        texts.take(self.n_texts).take_while(fits).count()
    }

    /// One step: the embedding of each text, of length 1 (or 0, or not finite, as the model has
    /// it). A vector does not depend on what else is in the step.
    ///
    /// # Errors
    /// As [`Embedder::embed_raw`].
    pub fn embed(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, BackendError> {
        let raw = self.embed_raw(texts)?;
        Ok(raw.iter().map(|vector| normalised(vector)).collect())
    }

    /// As [`Embedder::embed`], of the length that pooling gives.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] for texts that are empty or do not fit; the backend's.
    pub fn embed_raw(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, BackendError> {
        if texts.iter().any(|text| text.is_empty()) {
            return Err(BackendError::Invalid("a text without tokens".into()));
        }
        let mut batch = Batch::whole(texts);
        if self.pooling == Pooling::First {
            let positions = batch.positions.iter().zip(0..);
            batch.outputs = positions
                .filter(|(p, _)| **p == 0)
                .map(|(_, row)| row)
                .collect();
        }
        self.backend.run(self.plan, &batch)?;
        let rows = self.backend.read(self.plan, self.output, 0..texts.len())?;
        Ok(rows.chunks_exact(self.dim).map(<[f32]>::to_vec).collect())
    }
}

/// The vector with Euclidean length 1; one of length 0 as it is.
pub fn normalised(vector: &[f32]) -> Vec<f32> {
    let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let scale = if squares == 0.0 {
        1.0
    } else {
        1.0 / squares.sqrt()
    };
    let scaled = vector.iter().map(|&x| (f64::from(x) * scale) as f32);
    scaled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_become_one() {
        assert_eq!(normalised(&[3.0, 0.0, -4.0]), [0.6, 0.0, -0.8]);
        assert_eq!(normalised(&[0.0, 0.0]), [0.0, 0.0]);
        // Squares beyond the range of 32 bits.
        let huge = 2f32.powi(100);
        assert_eq!(normalised(&[3.0 * huge, 4.0 * huge]), [0.6, 0.8]);
        assert!(normalised(&[1.0, f32::NAN]).iter().all(|x| x.is_nan()));
    }
}
