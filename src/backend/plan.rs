//! The list of operations of one step, and the buffers that they read and write.

use super::op::{EmbedRow, Op};
use super::weight::WeightId;
use super::{Phase, RopeTable};

/// A buffer of 32-bit floats `[rows, cols]`, row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// What the rows of a buffer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One per token of the batch.
    Tokens,
    /// One per wanted row of the batch.
    Outputs,
}

/// What the backend must allocate for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferInfo {
    pub rows: Rows,
    pub cols: usize,
    /// Buffers with one storage number never live at the same time and share memory.
    pub storage: usize,
}

/// Columns `offset .. offset + cols` of every row of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    pub buffer: BufferId,
    pub offset: usize,
    pub cols: usize,
}

impl View {
    /// Columns `offset .. offset + cols` of this view.
    pub fn columns(self, offset: usize, cols: usize) -> View {
        assert!(offset + cols <= self.cols, "columns inside the view");
        View {
            offset: self.offset + offset,
            cols,
            ..self
        }
    }
}

/// The largest batch that a plan serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchShape {
    pub phase: Phase,
    pub n_tokens: usize,
    pub n_outputs: usize,
}

impl BatchShape {
    /// The largest number of rows of that kind.
    pub fn n_rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.n_tokens,
            Rows::Outputs => self.n_outputs,
        }
    }
}

/// Ops in a row that a backend may do at once, at most: none of them writes to memory that another
/// reads.
pub const MAX_RUN: usize = 3;

/// A recorded step.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub shape: BatchShape,
    pub ops: Vec<Op>,
    /// What each op computes, such as `blk.3.attn_q`; as many as ops.
    pub labels: Vec<String>,
    /// The layer that each op belongs to; none before the first layer and after the last.
    pub layers: Vec<Option<usize>>,
    pub buffers: Vec<BufferInfo>,
    pub rope_tables: Vec<RopeTable>,
    /// Buffers that are still readable after the step.
    pub outputs: Vec<BufferId>,
    /// Buffers that no op writes: they are filled before the step.
    pub inputs: Vec<BufferId>,
}

impl Plan {
    /// Bytes of all storages, at the largest batch.
    pub fn bytes(&self) -> u64 {
        self.storage_sizes().iter().map(|&n| 4 * n as u64).sum()
    }

    /// Numbers in an input at the largest batch; none if the buffer is no input.
    pub fn input_size(&self, buffer: BufferId) -> Option<usize> {
        let info = self.buffers.get(buffer.0)?;
        let size = self.shape.n_rows(info.rows) * info.cols;
        self.inputs.contains(&buffer).then_some(size)
    }

    /// Floats of each storage, at the largest batch.
    pub fn storage_sizes(&self) -> Vec<usize> {
        let n = self.buffers.iter().map(|b| b.storage + 1).max();
        let mut sizes = vec![0; n.unwrap_or(0)];
        for buffer in &self.buffers {
            let size = self.shape.n_rows(buffer.rows) * buffer.cols;
            sizes[buffer.storage] = sizes[buffer.storage].max(size);
        }
        sizes
    }

    /// Whether batches must hold their sequences whole ([`super::Batch::check_whole`]).
    pub fn needs_whole_sequences(&self) -> bool {
        let needs = |op: &Op| match op {
            Op::Attention { attention, .. } => !attention.causal,
            op => matches!(op, Op::Pool { .. }),
        };
        self.ops.iter().any(needs)
    }

    /// Fewest rows of the matrices that embed looks into by `row`; no bound where there are none.
    pub fn n_embed_rows(&self, row: EmbedRow, n_rows: impl Fn(WeightId) -> usize) -> usize {
        let rows = self.ops.iter().filter_map(|op| match op {
            Op::Embed { weight, row: r, .. } if *r == row => Some(n_rows(*weight)),
            _ => None,
        });
        rows.min().unwrap_or(usize::MAX)
    }

    /// Gives every buffer memory of its own, so that all can be read after the step.
    pub fn keep_all(mut self) -> Plan {
        for (i, buffer) in self.buffers.iter_mut().enumerate() {
            buffer.storage = i;
        }
        self.outputs = (0..self.buffers.len()).map(BufferId).collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_view_add_up() {
        let view = View {
            buffer: BufferId(0),
            offset: 10,
            cols: 20,
        };
        assert_eq!(view.columns(5, 3).offset, 15);
    }
}
