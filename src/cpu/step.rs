//! One step of a prepared plan: its operations in order, and the memory they share.

use super::CpuBackend;
use super::buffer::{Buffer, OutOfMemory};
use super::operation::Operation;
use super::plan::Prepared;
use super::pool::PoolError;
use super::products::products_at;
use crate::backend::{BackendError, Batch, BufferId, Candidates, Plan, PreparedId, Rows, WeightId};

/// The memory of a step: every storage, of the plan or shared.
pub(super) struct Storages<'a> {
    pub kept: &'a mut [Option<Buffer>],
    pub scratch: &'a mut [Buffer],
}

impl Storages<'_> {
    pub fn get(&mut self, i: usize) -> &mut Buffer {
        self.kept[i].as_mut().unwrap_or(&mut self.scratch[i])
    }

    pub fn floats(&self, i: usize) -> &[f32] {
        self.kept[i].as_ref().unwrap_or(&self.scratch[i]).floats()
    }
}

pub(super) fn vector(vectors: &[Option<Vec<f32>>], id: WeightId) -> &[f32] {
    vectors[id.0].as_deref().expect("prepare decoded it")
}

impl CpuBackend {
    /// Runs one step.
    pub(super) fn run_plan(
        &mut self,
        id: PreparedId,
        batch: &Batch,
    ) -> Result<Vec<Candidates>, BackendError> {
        self.check_batch(id, batch)?;
        let mut prepared = std::mem::replace(&mut self.plans[id.0], Prepared::new(EMPTY));
        prepared.n_tokens = batch.n_tokens();
        prepared.n_outputs = batch.outputs.len();
        let result = self.run_ops(&mut prepared, batch);
        self.plans[id.0] = prepared;
        result
    }

    fn run_ops(
        &mut self,
        prepared: &mut Prepared,
        batch: &Batch,
    ) -> Result<Vec<Candidates>, BackendError> {
        self.grow_storages(prepared)?;
        let angles = angles(&prepared.plan, batch);
        let mut candidates = Vec::new();
        let mut i = 0;
        while i < prepared.plan.ops.len() {
            let n_products = products_at(&prepared.plan, i);
            let result = match n_products {
                0 => self.run_op(prepared, i, batch, &angles, &mut candidates),
                n => self.run_products(prepared, i, n),
            };
            result.map_err(|e| self.pool_error(&prepared.plan.labels[i], e))?;
            i += n_products.max(1);
        }
        Ok(candidates)
    }

    /// Makes room for the rows of this batch.
    fn grow_storages(&mut self, prepared: &mut Prepared) -> Result<(), BackendError> {
        if self.scratch.len() < prepared.kept.len() {
            self.scratch
                .resize_with(prepared.kept.len(), Buffer::default);
        }
        for buffer in &prepared.plan.buffers {
            let n_floats = prepared.n_rows(buffer.rows) * buffer.cols;
            let storage = match &mut prepared.kept[buffer.storage] {
                Some(kept) => kept,
                None => &mut self.scratch[buffer.storage],
            };
            let grown = storage.grow_floats(n_floats);
            grown.map_err(|OutOfMemory| self.out_of_memory("activations", 4 * n_floats as u64))?;
        }
        Ok(())
    }

    /// Runs one operation. `angles` are those of each table, `[n_tokens, half_dim, 2]`.
    fn run_op(
        &mut self,
        prepared: &mut Prepared,
        i: usize,
        batch: &Batch,
        angles: &[Vec<f32>],
        candidates: &mut Vec<Candidates>,
    ) -> Result<(), PoolError> {
        let plan = &prepared.plan;
        let op = &plan.ops[i];
        let mut storages = Storages {
            kept: &mut prepared.kept,
            scratch: &mut self.scratch,
        };
        let rows_of = |buffer: BufferId| match plan.buffers[buffer.0].rows {
            Rows::Tokens => batch.n_tokens(),
            Rows::Outputs => batch.outputs.len(),
        };
        let written_or_read = op.out().or(op.inputs().next().map(|view| view.buffer));
        let n_rows = written_or_read.map_or(0, rows_of);
        if n_rows == 0 {
            return Ok(());
        }
        let out_info = op.out().map(|out| plan.buffers[out.0]);
        // The output is no operand's storage, so it can be taken out while the op runs.
        let mut taken = out_info.map_or_else(Buffer::default, |info| {
            std::mem::take(storages.get(info.storage))
        });
        let cols = out_info.map_or(0, |info| info.cols);
        let operation = Operation {
            isa: self.isa,
            pool: &mut self.pool,
            weights: &self.weights,
            vectors: &self.vectors,
            updates: &self.updates,
            layers: &mut self.layers,
            states: &mut self.states,
            changed: &mut self.changed,
            plan,
            batch,
            angles,
            storages: &storages,
            n_rows,
            cols,
            out: &mut taken.floats_mut()[..n_rows * cols],
        };
        let result = operation.run(op, candidates);
        if let Some(info) = out_info {
            *storages.get(info.storage) = taken;
        }
        result
    }
}

/// Angles of every token for each table of the plan, `[n_tokens, half_dim, 2]`.
fn angles(plan: &Plan, batch: &Batch) -> Vec<Vec<f32>> {
    let table = |table: &crate::backend::RopeTable| {
        let mut angles = Vec::with_capacity(batch.n_tokens() * 2 * table.half_dim());
        batch
            .positions
            .iter()
            .for_each(|&p| table.append(p, &mut angles));
        angles
    };
    plan.rope_tables.iter().map(table).collect()
}

/// Stands in for a plan while it runs.
const EMPTY: Plan = Plan {
    shape: crate::backend::BatchShape {
        phase: crate::backend::Phase::Decode,
        n_tokens: 0,
        n_outputs: 0,
    },
    ops: Vec::new(),
    labels: Vec::new(),
    layers: Vec::new(),
    buffers: Vec::new(),
    rope_tables: Vec::new(),
    outputs: Vec::new(),
    inputs: Vec::new(),
};
