//! Products: which of the two kernels, and how its work is shared out.

use super::norm::RmsNorm;
use super::parts::{activation_parts, swish_numbers, with_gate, with_weights};
use super::tile::{TileInput, TileShape};
use super::{Dispatch, Program};
use crate::backend::{Activation, BufferId, Phase, Rows, View, WeightId};
use crate::gpu::buffer::WeightShape;
use crate::gpu::device::Tuning;
use crate::gpu::launch::{Binding, Extent, Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// Rows of x that `matmul_vec` takes at a time, at most.
const MAX_VEC_ROWS: usize = 8;
/// Rows of a weight whose workgroups may each norm the input: for more of them a launch is cheaper.
const MAX_NORMED_ROWS: usize = 32768;
/// Workgroups along the first axis of a grid; more go to the second.
const MAX_GRID: usize = 32768;

/// The fields of `Op::Matmul`.
pub(super) struct Operands {
    pub input: View,
    pub weight: WeightId,
    pub bias: Option<WeightId>,
    pub residual: Option<View>,
    pub out: BufferId,
}

/// What becomes of the sums of a product.
#[derive(Debug, Clone, Copy)]
pub(super) enum Columns {
    Plain,
    Activated(Activation),
    /// Activated, to multiply what is elsewhere a residual.
    Gating(Activation),
    Scaled(f32),
    Gated(Halves),
}

/// A weight of which some rows are gates and as many are what they gate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Halves {
    pub n_columns: usize,
    pub gate_row: usize,
    pub up_row: usize,
    pub activation: Activation,
}

impl Columns {
    /// Columns that `rows` rows of a weight make.
    pub fn count(&self, rows: usize) -> usize {
        match self {
            Columns::Gated(halves) => halves.n_columns,
            _ => rows,
        }
    }

    /// Columns that a workgroup with so many rows makes.
    pub fn of_group(&self, rows: usize) -> usize {
        match self {
            Columns::Gated(_) => rows / 2,
            _ => rows,
        }
    }

    /// The parts for a product with `rows` rows of a weight, and their numbers.
    pub fn with(&self, shader: Shader, rows: usize) -> Shader {
        let shader = shader.number("N_COLUMNS", self.count(rows));
        match *self {
            Columns::Plain => shader.parts(&["parts/columns_plain"]),
            Columns::Activated(activation) | Columns::Gating(activation) => {
                swish_numbers(shader, activation)
                    .parts(&["parts/columns_active"])
                    .parts(activation_parts(activation))
            }
            Columns::Scaled(factor) => shader
                .float("FACTOR", factor)
                .parts(&["parts/columns_active", "parts/factor"]),
            Columns::Gated(halves) => with_gate(shader, halves.activation)
                .number("GATE_ROW", halves.gate_row)
                .number("UP_ROW", halves.up_row)
                .parts(&["parts/columns_glu"]),
        }
    }
}

/// How `matmul_vec` shares out a weight. `lanes` decides the order of a row's sum, so it follows
/// from the weight and the device alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VecShape {
    pub workgroup: usize,
    pub lanes: usize,
    pub rows_per_lane: usize,
}

impl VecShape {
    pub fn new(tuning: Tuning, rows: usize, spans: usize, n: usize) -> VecShape {
        if tuning.software {
            // Barriers and loads are dear on a CPU: every lane has rows of its own, and a vector of
            // x serves several of them.
            return VecShape {
                workgroup: 8,
                lanes: 1,
                rows_per_lane: 4,
            };
        }
        // Enough workgroups to fill a large GPU come first, reuse of x second.
        let reuse = match rows {
            32768.. => 4,
            8192.. => 2,
            _ => 1,
        };
        VecShape {
            workgroup: 64,
            lanes: lanes(spans),
            rows_per_lane: reuse.min(16 / n),
        }
    }
}

/// Lanes that share a row of `spans` spans: as many as leave few of them idle in the last round.
fn lanes(spans: usize) -> usize {
    let idle = |lanes: &usize| spans.next_multiple_of(*lanes) - spans;
    let choices = [32, 16, 8, 4];
    let busy = choices.iter().find(|lanes| 8 * idle(lanes) <= spans);
    *busy.unwrap_or(&4)
}

impl Dispatch<'_> {
    /// Prompts go through `matmul_tile` whatever their length, so that a result does not depend on
    /// how a prompt is cut; single tokens and wanted rows go through `matmul_vec`.
    pub(super) fn matmul(&self, operands: &Operands, weight: &WeightShape, program: &mut Program) {
        for shard in 0..weight.shards.len() {
            let launch = match self.is_tiled(operands.out) {
                true => self.matmul_tile(operands, weight, shard, program),
                false => self.matmul_vec(operands, weight, shard, Columns::Plain, None),
            };
            program.launches.push(launch);
        }
    }

    /// Whether the product that `out` holds goes through `matmul_tile`.
    pub(super) fn is_tiled(&self, out: BufferId) -> bool {
        self.plan.shape.phase == Phase::Prefill && self.rows(out) == Rows::Tokens
    }

    /// Whether the product with a norm's result, which `input` views, can compute the norm itself.
    pub(super) fn takes_norm(&self, norm: &RmsNorm, input: View, weight: &WeightShape) -> bool {
        // A CPU that plays a GPU pays for every workgroup's norm and little for a launch.
        !self.tuning.software
            && norm.weight.is_some()
            && norm.group == norm.input.cols
            && (input.offset, input.cols) == (0, norm.group)
            && self.is_in_quads(norm.input)
            && weight.shards.len() == 1
            && weight.rows <= MAX_NORMED_ROWS
    }

    /// With `norm` the input, which is that of `operands`, is normed on the way; `columns` says what becomes of the sums,
    /// before what is left of a residual is added.
    pub(super) fn matmul_vec(
        &self,
        operands: &Operands,
        weight: &WeightShape,
        shard: usize,
        columns: Columns,
        norm: Option<&RmsNorm>,
    ) -> Launch {
        let rows = self.rows(operands.out);
        let n = self.plan.shape.n_rows(rows).clamp(1, MAX_VEC_ROWS);
        let n = n.next_power_of_two();
        let spans = weight.layout.spans();
        let shape = VecShape::new(self.tuning, weight.rows, spans, n);
        let group_rows = shape.workgroup / shape.lanes * shape.rows_per_lane;
        let rows_bound = weight.shards[shard].rows;
        let groups = columns
            .count(rows_bound)
            .div_ceil(columns.of_group(group_rows));
        let shader = Shader::new("kernels/matmul_vec");
        let shader = self
            .lanes(shader, shape.workgroup, shape.lanes)
            .joinable(size_of::<f32>() * n * (group_rows + 1) * shape.lanes)
            .number("ROWS_PER_LANE", shape.rows_per_lane)
            .number("N", n)
            .number("GRID_X", groups.min(MAX_GRID))
            .flag("HAS_NORM", norm.is_some())
            .flag("GATES", matches!(columns, Columns::Gating(_)))
            .float("EPS", norm.map_or(0.0, |norm| norm.eps));
        let shader = columns.with(shader, rows_bound);
        let grid = [
            Extent::Fixed(groups.min(MAX_GRID)),
            Extent::Fixed(groups.div_ceil(MAX_GRID)),
            Extent::Rows(rows, n),
        ];
        let shader = shader.parts(&["parts/fma4", self.x_part(operands.input)]);
        let x = reads(self.slot(operands.input.buffer));
        let mut launch = self.product(shader, operands, x, weight, shard, grid);
        let scales = norm.and_then(|norm| norm.weight);
        let scales = scales.map_or(Slot::Nothing, |id| Slot::Weight(id, 0));
        launch
            .bindings
            .insert(launch.bindings.len() - 1, reads(scales));
        launch
    }

    fn matmul_tile(
        &self,
        operands: &Operands,
        weight: &WeightShape,
        shard: usize,
        program: &mut Program,
    ) -> Launch {
        let shape = TileShape::new(self.tuning, self.plan.shape.n_tokens);
        let input = TileInput {
            first: operands.input,
            stride: 0,
            n_sources: 1,
        };
        let floats = [self.x_part(operands.input), "parts/source_rows"];
        let shader = shape.numbers(Shader::new("kernels/matmul_tile"));
        let (shader, input) = self.tile_input(shader, input, weight, &floats, program);
        let grid = [
            Extent::Fixed(weight.shards[shard].rows.div_ceil(shape.tile_rows)),
            Extent::Rows(self.rows(operands.out), shape.columns()),
            Extent::Fixed(1),
        ];
        self.product(shader, operands, input, weight, shard, grid)
    }

    /// What both kernels share: operands and their numbers.
    fn product(
        &self,
        shader: Shader,
        operands: &Operands,
        x: Binding,
        weight: &WeightShape,
        shard: usize,
        grid: [Extent; 3],
    ) -> Launch {
        let Operands { input, out, .. } = *operands;
        let residual = operands.residual;
        let rows = self.rows(out);
        let shader = self
            .view(shader, "X", input)
            .number("OUT_STRIDE", self.stride(out))
            .number("OUT_OFFSET", weight.shards[shard].first_row)
            .flag("HAS_BIAS", operands.bias.is_some());
        let shader = self.residual(shader, residual);
        let shader = with_weights(shader, weight, weight.shards[shard]);
        let bias = operands.bias.map_or(Slot::Nothing, |b| Slot::Weight(b, 0));
        Launch {
            shader: self.rows_word(shader, rows),
            bindings: vec![
                x,
                reads(bias),
                reads(residual.map_or(Slot::Nothing, |r| self.slot(r.buffer))),
                reads(Slot::Weight(operands.weight, shard)),
                reads(Slot::Batch),
                writes(self.slot(out)),
            ],
            grid,
        }
    }

    /// Vectors where all offsets allow it, single columns elsewhere.
    pub(super) fn x_part(&self, input: View) -> &'static str {
        match self.is_in_quads(input) {
            true => "parts/x_quads",
            false => "parts/x_columns",
        }
    }

    fn is_in_quads(&self, input: View) -> bool {
        self.stride(input.buffer).is_multiple_of(4)
            && input.offset.is_multiple_of(4)
            && input.cols.is_multiple_of(32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::arithmetic::Arithmetic;
    use crate::gpu::device::Reduction;

    #[test]
    fn lanes_are_seldom_idle() {
        assert_eq!(lanes(128), 32);
        assert_eq!(lanes(18), 4);
        assert_eq!(lanes(28), 4);
        assert_eq!(lanes(48), 16);
        assert_eq!(lanes(1), 4);
    }

    #[test]
    fn the_order_of_a_sum_does_not_depend_on_the_number_of_rows() {
        for software in [false, true] {
            let tuning = Tuning {
                reduction: Reduction::Memory,
                software,
                arithmetic: Arithmetic::default(),
                max_bindings: 8,
            };
            let lanes = |n| VecShape::new(tuning, 4096, 18, n).lanes;
            assert!([2, 4, 8].iter().all(|&n| lanes(n) == lanes(1)));
        }
    }
}
