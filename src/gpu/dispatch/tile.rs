//! Tiles of products with prompts: how they are shared out, and what they compute in.

use super::parts::two_scales;
use super::{Dispatch, Program, WORKGROUP, per_number};
use crate::backend::View;
use crate::gpu::buffer::WeightShape;
use crate::gpu::device::Tuning;
use crate::gpu::launch::{Binding, Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;
use crate::quant::QuantType;

/// Columns that share a scale.
const SPAN: usize = 32;
/// Words of a span of an input in 16 bits.
const SPAN_WORDS: usize = 20;

/// How a product is shared out. The order of a sum is the same for every shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TileShape {
    pub workgroup: usize,
    pub tile_rows: usize,
    pub block: usize,
    pub block_columns: usize,
}

impl TileShape {
    /// Columns of out that are rows of x.
    pub fn columns(&self) -> usize {
        self.workgroup / (self.tile_rows / self.block) * self.block_columns
    }

    pub fn new(tuning: Tuning, n: usize) -> TileShape {
        if tuning.software {
            // Large blocks of few invocations: reads of workgroup memory cost more than products.
            return TileShape {
                workgroup: 16,
                tile_rows: 32,
                block: 8,
                block_columns: 8,
            };
        }
        TileShape {
            workgroup: 128,
            tile_rows: 64,
            block: 4,
            block_columns: if n <= 16 { 2 } else { 4 },
        }
    }

    /// What every kernel with tiles needs.
    pub fn numbers(&self, shader: Shader) -> Shader {
        shader
            .number("WG", self.workgroup)
            .number("TILE_ROWS", self.tile_rows)
            .number("TILE_COLUMNS", self.columns())
            .number("BLOCK", self.block)
            .number("BLOCK_COLUMNS", self.block_columns)
            .parts(&["parts/tile"])
    }
}

/// What a tile is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factors {
    Floats,
    Halves,
    Integers,
}

/// An input in 16 bits that an earlier launch of the plan left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoundedInput {
    input: View,
    factors: Factors,
    scratch: usize,
}

/// The input of a tiled product: as many columns for each of `n_sources` sources in a row, or the
/// same ones for all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct TileInput {
    pub first: View,
    /// Columns from one source to the next; 0: they share theirs.
    pub stride: usize,
    pub n_sources: usize,
}

impl Dispatch<'_> {
    /// The parts and the binding of a tiled product's input. `floats` are the parts that read it as it
    /// is.
    pub(super) fn tile_input(
        &self,
        shader: Shader,
        input: TileInput,
        weight: &WeightShape,
        floats: &[&'static str],
        program: &mut Program,
    ) -> (Shader, Binding) {
        let layout = &weight.layout;
        let factors = self.factors(input, weight);
        if factors == Factors::Floats {
            let shader = shader.parts(&["parts/tile_floats", "parts/fma4"]);
            return (shader.parts(floats), reads(self.slot(input.first.buffer)));
        }
        let (shared, n_inputs) = match input.stride {
            0 => (input.n_sources, 1),
            _ => (1, input.n_sources),
        };
        let view = View {
            cols: n_inputs * layout.cols,
            ..input.first
        };
        let shader = shader.number("SHARED", shared);
        let shader = match factors {
            Factors::Integers => shader
                .flag("TWO_SCALES", two_scales(layout.quant))
                .parts(&["parts/tile_integers"]),
            _ => shader.half_floats().parts(&[
                "parts/tile_halves",
                "parts/fma4",
                match layout.quant.is_float() {
                    true => "parts/halves_weights",
                    false => "parts/halves_codes",
                },
            ]),
        };
        (shader, reads(self.rounded(view, factors, program)))
    }

    fn factors(&self, input: TileInput, weight: &WeightShape) -> Factors {
        let cols = weight.layout.cols;
        let quant = weight.layout.quant;
        let side_by_side = input.stride == cols && cols.is_multiple_of(SPAN);
        if input.stride > 0 && !side_by_side {
            return Factors::Floats;
        }
        let allowed = self.tuning.arithmetic;
        if allowed.integers && !quant.is_float() {
            Factors::Integers
        } else if allowed.halves && (!quant.is_float() || quant == QuantType::F16) {
            // Other floats are not exact in 16 bits.
            Factors::Halves
        } else {
            Factors::Floats
        }
    }

    /// An input in 16 bits, made unless the product before read the same.
    fn rounded(&self, input: View, factors: Factors, program: &mut Program) -> Slot {
        let scratch = match program.rounded {
            Some(latest) => latest.scratch,
            None => program.scratch(0),
        };
        let slot = Slot::Scratch(scratch);
        let made = RoundedInput {
            input,
            factors,
            scratch,
        };
        if program.rounded.replace(made) == Some(made) {
            return slot;
        }
        let rows = self.rows(input.buffer);
        let spans = input.cols.div_ceil(SPAN);
        let words = self.plan.shape.n_rows(rows) * spans * SPAN_WORDS;
        let bytes = &mut program.scratch[scratch];
        *bytes = (*bytes).max(4 * words as u64);
        let shader = self
            .view(Shader::new("kernels/round_input"), "X", input)
            .number("WG", WORKGROUP)
            .number("COLS", input.cols)
            .number("SPANS", spans)
            .parts(&[self.x_part(input)]);
        let shader = match factors {
            Factors::Integers => shader.parts(&["parts/input_bytes"]),
            _ => shader.parts(&["parts/input_halves", "parts/half_bits"]),
        };
        program.launches.push(Launch {
            shader: self.rows_word(shader, rows),
            bindings: vec![
                reads(self.slot(input.buffer)),
                reads(Slot::Batch),
                writes(slot),
            ],
            grid: per_number(spans, rows),
        });
        slot
    }
}
