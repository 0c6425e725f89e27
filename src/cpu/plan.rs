//! A prepared plan: where its buffers live, and what it and its batches may refer to.

use std::ops::Range;

use super::CpuBackend;
use super::buffer::{Buffer, OutOfMemory};
use super::cache::LayerCache;
use super::low_rank::Update;
use super::weight::decode_all;
use crate::backend::{
    BackendError, Batch, BufferId, EmbedRow, KvDims, Op, Plan, PreparedId, Rows, WeightId,
};

/// A plan and the memory of the buffers that are read after a step. The other storages are
/// numbered within [`CpuBackend`]'s scratch, which all plans share.
pub struct Prepared {
    pub plan: Plan,
    pub kept: Vec<Option<Buffer>>,
    pub n_tokens: usize,
    pub n_outputs: usize,
}

impl Prepared {
    pub fn new(plan: Plan) -> Prepared {
        let n_storages = plan.storage_sizes().len();
        let mut kept: Vec<Option<Buffer>> = (0..n_storages).map(|_| None).collect();
        for output in plan.outputs.iter().chain(&plan.inputs) {
            kept[plan.buffers[output.0].storage] = Some(Buffer::default());
        }
        Prepared {
            plan,
            kept,
            n_tokens: 0,
            n_outputs: 0,
        }
    }

    /// Rows of the last step.
    pub fn n_rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.n_tokens,
            Rows::Outputs => self.n_outputs,
        }
    }

    /// Fills an input for the next step. Whether it is one, and has room for so much.
    pub fn write(&mut self, buffer: BufferId, values: &[f32]) -> Result<bool, OutOfMemory> {
        let size = self.plan.input_size(buffer);
        if size.is_none_or(|size| values.len() > size) {
            return Ok(false);
        }
        let storage = self.plan.buffers[buffer.0].storage;
        let Some(kept) = &mut self.kept[storage] else {
            return Ok(false);
        };
        kept.grow_floats(values.len())?;
        kept.floats_mut()[..values.len()].copy_from_slice(values);
        Ok(true)
    }

    /// Rows of an output of the last step.
    pub fn read(&self, buffer: BufferId, rows: Range<usize>) -> Option<&[f32]> {
        let info = self.plan.buffers.get(buffer.0)?;
        if !self.plan.outputs.contains(&buffer) || rows.end > self.n_rows(info.rows) {
            return None;
        }
        let floats = self.kept[info.storage].as_ref()?.floats();
        floats.get(rows.start * info.cols..rows.end * info.cols)
    }
}

impl CpuBackend {
    /// Checks what the plan refers to.
    pub(super) fn check_plan(&self, plan: &Plan) -> Result<(), BackendError> {
        let weight = |id: WeightId| match self.weights.get(id.0) {
            Some(_) => Ok(()),
            None => Err(BackendError::Invalid(format!(
                "weight {} is not loaded",
                id.0
            ))),
        };
        let fits = |layer: usize, cached: usize, cols: usize| match cached == cols {
            true => Ok(()),
            false => Err(BackendError::Invalid(format!(
                "layer {layer} caches {cached} numbers, not {cols}"
            ))),
        };
        let state = |number: usize, size: usize| match self.state_specs.get(number) {
            Some(kept) if kept.size == size => Ok(()),
            _ => Err(BackendError::Invalid(format!(
                "there is no state {number} of {size} numbers"
            ))),
        };
        for op in &plan.ops {
            match *op {
                Op::ShortConv {
                    state: number,
                    input,
                    weight: id,
                    kernel,
                    ..
                } => {
                    weight(id)?;
                    state(number, (kernel - 1) * input.cols)?;
                }
                Op::DeltaNet {
                    state: number,
                    decay,
                    bias,
                    heads,
                    ..
                } => {
                    weight(decay)?;
                    weight(bias)?;
                    state(number, heads.state_size())?;
                }
                Op::Embed { weight: id, .. } | Op::AddLowRank { up: id, .. } => weight(id)?,
                Op::RmsNorm { weight: id, .. } => id.map_or(Ok(()), weight)?,
                Op::Matmul {
                    weight: id, bias, ..
                } => {
                    weight(id)?;
                    bias.map_or(Ok(()), weight)?;
                }
                Op::MoeRoute { bias, factors, .. } => {
                    bias.into_iter().chain(factors).try_for_each(weight)?;
                }
                Op::MatmulExperts { products, .. } => {
                    weight(products.weight)?;
                    products.bias.map_or(Ok(()), weight)?;
                }
                Op::LayerNorm {
                    weight: id, bias, ..
                } => id.into_iter().chain(bias).try_for_each(weight)?,
                Op::KvWrite { layer, k, v } => {
                    let dims = self.cached(layer)?;
                    fits(layer, dims.keys, k.cols)?;
                    fits(layer, dims.values, v.cols)?;
                }
                Op::Attention {
                    attention: ref a, ..
                } => {
                    let dims = self.cached(a.layer)?;
                    fits(a.layer, dims.keys, a.n_kv_heads * a.head_dim)?;
                    fits(a.layer, dims.values, a.n_kv_heads * a.value_dim)?;
                    let block = self.layers[a.layer].block();
                    if !(a.head_dim.is_multiple_of(block) && a.value_dim.is_multiple_of(block)) {
                        return Err(BackendError::Invalid(format!(
                            "heads of {} and {} numbers are not blocks of {block}",
                            a.head_dim, a.value_dim
                        )));
                    }
                    a.sinks.map_or(Ok(()), weight)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn cached(&self, layer: usize) -> Result<KvDims, BackendError> {
        let cache = self.layers.get(layer).map(LayerCache::dims);
        cache.ok_or_else(|| BackendError::Invalid(format!("layer {layer} has no cache")))
    }

    /// Decodes the weights of norms and biases: some kilobytes a layer.
    pub(super) fn decode_vectors(&mut self, plan: &Plan) {
        for op in &plan.ops {
            let ids = match *op {
                Op::RmsNorm { weight, .. } => [weight, None],
                Op::ShortConv { weight, .. } => [Some(weight), None],
                Op::DeltaNet { decay, bias, .. } => [Some(decay), Some(bias)],
                Op::LayerNorm { weight, bias, .. } => [weight, bias],
                Op::Matmul { bias, .. } => [bias, None],
                Op::MoeRoute { bias, factors, .. } => [bias, factors],
                Op::MatmulExperts { products, .. } => [products.bias, None],
                Op::Attention { attention, .. } => [attention.sinks, None],
                _ => [None, None],
            };
            for WeightId(id) in ids.into_iter().flatten() {
                self.vectors[id].get_or_insert_with(|| decode_all(&self.weights[id]));
            }
        }
    }

    /// Lays out the second matrices of low-rank updates.
    pub(super) fn lay_out_updates(&mut self, plan: &Plan) -> Result<(), BackendError> {
        for op in &plan.ops {
            let &Op::AddLowRank { up, .. } = op else {
                continue;
            };
            if self.updates[up.0].is_none() {
                let spec = &self.weights[up.0];
                let update = Update::new(spec).map_err(|OutOfMemory| {
                    self.out_of_memory("an adapter", 4 * (spec.rows * spec.cols) as u64)
                })?;
                self.updates[up.0] = Some(update);
            }
        }
        Ok(())
    }

    /// Checks what a step refers to.
    pub(super) fn check_batch(&self, id: PreparedId, batch: &Batch) -> Result<(), BackendError> {
        let Some(prepared) = self.plans.get(id.0) else {
            return Err(BackendError::Invalid(format!(
                "plan {} was not prepared",
                id.0
            )));
        };
        let n_embed_rows = |row| {
            let n_rows = |weight: WeightId| self.weights[weight.0].rows;
            prepared.plan.n_embed_rows(row, n_rows)
        };
        // A plan for tests may use no cache, and then no pages.
        let cache = match self.layers.is_empty() {
            true => usize::MAX,
            false => self.n_slots,
        };
        let checked = batch.check(
            n_embed_rows(EmbedRow::Token),
            n_embed_rows(EmbedRow::Position),
            cache,
        );
        checked.map_err(BackendError::Invalid)?;
        if prepared.plan.needs_whole_sequences() {
            batch.check_whole().map_err(BackendError::Invalid)?;
        }
        if !self.states.is_empty() {
            let checked = batch.check_states(self.n_sequences);
            checked.map_err(BackendError::Invalid)?;
        }
        let shape = prepared.plan.shape;
        if batch.n_tokens() > shape.n_tokens || batch.outputs.len() > shape.n_outputs {
            return Err(BackendError::Invalid(format!(
                "a batch of {} tokens and {} outputs is beyond {shape:?}",
                batch.n_tokens(),
                batch.outputs.len()
            )));
        }
        Ok(())
    }
}
