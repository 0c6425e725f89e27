//! Norms: a workgroup takes a run of columns of one row.

use super::Dispatch;
use super::REDUCED_BYTES;
use super::parts::activation_parts;
use crate::backend::{Activation, BufferId, Op, Rows, View, WeightId};
use crate::gpu::launch::{Extent, Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// The fields of `Op::RmsNorm`, but for its result.
pub(super) struct RmsNorm {
    pub input: View,
    pub weight: Option<WeightId>,
    pub group: usize,
    pub eps: f32,
}

/// What a norm's result meets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Added {
    View(View),
    /// The same floats in every row.
    Vector(WeightId),
    /// No summand but a gate, which is activated first.
    Gate(View, Activation),
}

impl Dispatch<'_> {
    /// `factor * (norm + added)`, or `factor * activation(gate) * norm`
    pub(super) fn rms_norm(
        &self,
        norm: &RmsNorm,
        added: Option<Added>,
        factor: f32,
        out: BufferId,
    ) -> Launch {
        let &RmsNorm {
            input,
            weight,
            group,
            eps,
        } = norm;
        let shader = self
            .view(Shader::new("kernels/rms_norm"), "X", input)
            .number("GROUP", group)
            .number("OUT_STRIDE", self.stride(out))
            .flag("HAS_WEIGHT", weight.is_some())
            .float("EPS", eps);
        let (residual, vector_slot) = match added {
            Some(Added::View(view) | Added::Gate(view, _)) => (Some(view), None),
            Some(Added::Vector(id)) => (None, Some(Slot::Weight(id, 0))),
            None => (None, None),
        };
        let shader = self
            .residual(shader, residual)
            .float("FACTOR", factor)
            .flag("HAS_ADDED", added.is_some())
            .flag("GATED", matches!(added, Some(Added::Gate(..))))
            .parts(activation_parts(match added {
                Some(Added::Gate(_, activation)) => activation,
                _ => Activation::Identity,
            }));
        let residual = residual.map(|view| self.slot(view.buffer));
        let rows = self.rows(out);
        Launch {
            shader: self
                .rows_word(self.reduce(shader, norm_workgroup(group)), rows)
                .joinable(REDUCED_BYTES),
            bindings: vec![
                reads(self.slot(input.buffer)),
                reads(vector(weight)),
                reads(residual.or(vector_slot).unwrap_or(Slot::Nothing)),
                reads(Slot::Batch),
                writes(self.slot(out)),
            ],
            grid: per_group(input.cols / group, rows),
        }
    }

    pub(super) fn layer_norm(&self, op: &Op) -> Launch {
        let Op::LayerNorm {
            input,
            weight,
            bias,
            group,
            eps,
            out,
        } = *op
        else {
            unreachable!("called for layer_norm");
        };
        let cols = |id: Option<WeightId>| id.map_or(1, |id| self.weights[id.0].layout.cols);
        let shader = self
            .view(Shader::new("kernels/layer_norm"), "X", input)
            .parts(&["parts/moments"])
            .number("GROUP", group)
            .number("OUT_STRIDE", self.stride(out))
            .flag("HAS_WEIGHT", weight.is_some())
            .number("WEIGHT_COLS", cols(weight))
            .flag("HAS_BIAS", bias.is_some())
            .number("BIAS_COLS", cols(bias))
            .float("EPS", eps);
        let rows = self.rows(out);
        Launch {
            shader: self
                .rows_word(self.reduce(shader, norm_workgroup(group)), rows)
                .joinable(REDUCED_BYTES),
            bindings: vec![
                reads(self.slot(input.buffer)),
                reads(vector(weight)),
                reads(vector(bias)),
                reads(Slot::Batch),
                writes(self.slot(out)),
            ],
            grid: per_group(input.cols / group, rows),
        }
    }
}

/// The slot of a vector that need not be there.
fn vector(id: Option<WeightId>) -> Slot {
    id.map_or(Slot::Nothing, |id| Slot::Weight(id, 0))
}

/// One workgroup per group of columns, rows along the second axis.
pub(super) fn per_group(groups: usize, rows: Rows) -> [Extent; 3] {
    [
        Extent::Fixed(groups),
        Extent::Rows(rows, 1),
        Extent::Fixed(1),
    ]
}

/// Invocations that share a group of a norm: heads are short, rows are long.
pub(super) fn norm_workgroup(group: usize) -> usize {
    if group <= 256 { 64 } else { 256 }
}
