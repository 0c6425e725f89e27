//! One sequence on one backend without a scheduler: for tools, tests and benches.

use super::Model;
use crate::backend::{
    Backend, BackendError, Batch, BatchShape, BufferId, KvType, PAGE_TOKENS, Phase, Plan,
    PreparedId,
};

/// A loaded model and its single sequence, whose pages are `0, 1, 2, ...`.
pub struct Session {
    backend: Box<dyn Backend>,
    n_vocab: usize,
    n_ctx: usize,
    prefill: Step,
    decode: Step,
    n_past: usize,
    is_recurrent: bool,
}

struct Step {
    plan: PreparedId,
    logits: BufferId,
    n_tokens: usize,
}

impl Session {
    /// Loads the weights and prepares both phases. `n_batch` bounds the tokens of a prefill
    /// chunk; every one of them may have its logits read.
    ///
    /// # Errors
    /// The backend's.
    pub fn new(
        model: &Model,
        mut backend: Box<dyn Backend>,
        kv_type: KvType,
        n_ctx: usize,
        n_batch: usize,
    ) -> Result<Session, BackendError> {
        model.load_into(&mut *backend)?;
        let n_pages = n_ctx.div_ceil(PAGE_TOKENS);
        backend.alloc_cache(&model.cache_spec(kv_type, n_pages, 1))?;
        let mut step = |phase, n_tokens| {
            let shape = BatchShape {
                phase,
                n_tokens,
                n_outputs: n_tokens,
            };
            let plan: Plan = model.plan(n_ctx, shape, None);
            let logits = plan.outputs[0];
            Ok::<_, BackendError>(Step {
                plan: backend.prepare(plan)?,
                logits,
                n_tokens,
            })
        };
        let (prefill, decode) = (step(Phase::Prefill, n_batch)?, step(Phase::Decode, 1)?);
        Ok(Session {
            backend,
            n_vocab: model.config().vocab_size,
            n_ctx,
            prefill,
            decode,
            n_past: 0,
            is_recurrent: model.is_recurrent(),
        })
    }

    /// Positions that are in the cache.
    pub fn n_past(&self) -> usize {
        self.n_past
    }

    /// Forgets all positions.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Forgets the positions from `n` on; all of them where the model has a recurrent state,
    /// which is that of the last position.
    pub fn truncate(&mut self, n: usize) {
        if n < self.n_past {
            self.n_past = if self.is_recurrent { 0 } else { n };
        }
    }

    /// The device behind it.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Appends prompt tokens in chunks and hands each wanted position's logits to `each`, with
    /// the token's index in `tokens`.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] for tokens outside the vocabulary or beyond the context.
    pub fn prefill(
        &mut self,
        tokens: &[u32],
        wanted: impl Fn(usize) -> bool,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), BackendError> {
        let n_batch = self.prefill.n_tokens;
        for (chunk, start) in tokens.chunks(n_batch).zip((0..).step_by(n_batch)) {
            let outputs: Vec<u32> = (0..chunk.len())
                .filter(|i| wanted(start + i))
                .map(|i| i as u32)
                .collect();
            let logits = self.step(Phase::Prefill, chunk, outputs.clone())?;
            for (row, &i) in logits.chunks(self.n_vocab).zip(&outputs) {
                each(start + i as usize, row);
            }
        }
        Ok(())
    }

    /// Appends one generated token and returns the logits after it.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn decode(&mut self, token: u32) -> Result<Vec<f32>, BackendError> {
        self.step(Phase::Decode, &[token], vec![0])
    }

    fn step(
        &mut self,
        phase: Phase,
        tokens: &[u32],
        outputs: Vec<u32>,
    ) -> Result<Vec<f32>, BackendError> {
        if self.n_past + tokens.len() > self.n_ctx {
            return Err(BackendError::Invalid(format!(
                "{} tokens exceed the context of {}",
                self.n_past + tokens.len(),
                self.n_ctx
            )));
        }
        let n_outputs = outputs.len();
        let batch = Batch::single(phase, tokens, self.n_past, outputs);
        let step = match phase {
            Phase::Prefill => &self.prefill,
            Phase::Decode => &self.decode,
        };
        self.backend.run(step.plan, &batch)?;
        self.n_past += tokens.len();
        self.backend.read(step.plan, step.logits, 0..n_outputs)
    }
}
