//! One kernel launch as plain data: what it runs, on which buffers, how many workgroups.

use super::batch::Counts;
use super::shader::Shader;
use crate::backend::{Rows, WeightId};

/// A buffer of the backend, by its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// A storage of the plan.
    Storage(usize),
    /// A weight, or the part of one that fits a binding.
    Weight(WeightId, usize),
    /// A layer's cached keys.
    Keys(usize),
    /// A layer's cached values.
    Values(usize),
    /// Recurrent states of all sequences, by number.
    State(usize),
    /// The step's input.
    Batch,
    /// Memory between two launches of one op.
    Scratch(usize),
    /// A few zero bytes, for an operand that is not there.
    Nothing,
}

/// A buffer bound to a launch. Bindings are numbered in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Binding {
    pub slot: Slot,
    pub writes: bool,
}

pub(super) fn reads(slot: Slot) -> Binding {
    Binding {
        slot,
        writes: false,
    }
}

pub(super) fn writes(slot: Slot) -> Binding {
    Binding { slot, writes: true }
}

/// Number of workgroups along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Fixed(usize),
    /// Rows of the batch, this many to a workgroup.
    Rows(Rows, usize),
    /// Tiles of up to `columns` slots of one expert, at most.
    ExpertTiles {
        rows: Rows,
        n_used: usize,
        n_experts: usize,
        columns: usize,
    },
    /// Tiles of queries.
    Tiles,
    /// Sequences of the batch.
    Runs,
    /// Wanted rows, where the device chooses the token of any.
    Sampled,
    /// The most splits of a row's attention, with this window (0: none).
    Splits(usize),
    /// Rows whose splits must be merged: none where every row has one split.
    MergedRows(usize),
}

impl Extent {
    /// Workgroups for a batch.
    pub fn of(self, counts: &Counts) -> u32 {
        let n = match self {
            Extent::Fixed(n) => n,
            Extent::Rows(rows, per) => counts.rows(rows).div_ceil(per),
            Extent::ExpertTiles {
                rows,
                n_used,
                n_experts,
                columns,
            } => max_expert_tiles(counts.rows(rows) * n_used, n_experts, columns),
            Extent::Tiles => counts.n_tiles,
            Extent::Runs => counts.n_runs,
            Extent::Sampled => counts.n_sampled,
            Extent::Splits(window) => counts.max_splits(window),
            Extent::MergedRows(window) if counts.max_splits(window) > 1 => counts.n_tokens,
            Extent::MergedRows(_) => 0,
        };
        n as u32
    }
}

/// Tiles of up to `columns` slots of one expert that `n_slots` slots make at most: each expert's
/// last one may have a single slot.
pub(super) fn max_expert_tiles(n_slots: usize, n_experts: usize, columns: usize) -> usize {
    n_slots.min(n_slots / columns + n_experts)
}

/// A launch.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub shader: Shader,
    pub bindings: Vec<Binding>,
    pub grid: [Extent; 3],
}
