//! Products with the matrices of experts, of which only the used ones are read.
//!
//! Tokens are gathered by expert, so that each matrix is read once however many tokens use it.
//! Every element is computed as in `matmul.rs`, so what is gathered with it changes nothing.

use super::buffer::{Buffer, Matrix, OutOfMemory, Shared};
use super::format::integer::is_integer;
use super::matmul::integer::{BLOCK, FEW_TOKENS, round_groups, round_rows};
use super::matmul::{Input, Place, Product, Rows, matmul_all};
use super::pool::{Pool, PoolError};
use super::simd::{InstructionSet, LANES};
use super::weight::WeightRows;
use crate::backend::WeightSpec;
use crate::quant::SPAN;

/// One operation: slot s of each row goes through the expert that `route` names there, or
/// through expert s.
pub struct Experts<'a> {
    pub weight: &'a WeightSpec,
    /// Rows of slots; its columns are those of one slot.
    pub input: Matrix<'a>,
    /// Columns from one slot's input to the next; zero where all share one.
    pub slot_stride: usize,
    /// Numbers of experts, then weights.
    pub route: Option<Matrix<'a>>,
    pub n_used: usize,
    pub n_rows: usize,
    /// `[n_experts, rows of an expert]`
    pub bias: Option<&'a [f32]>,
}

/// Computes into `out`, `[n_rows, parts, n_used, rows of a part]`. The buffers are memory for inputs
/// that end within a span, or are rounded.
///
/// # Errors
/// Those of the pool.
pub fn matmul_experts(
    isa: InstructionSet,
    pool: &mut Pool,
    [padded, rounded, grouped]: &mut [Buffer; 3],
    experts: Experts<'_>,
    out: &mut [f32],
) -> Result<(), PoolError> {
    let weight = experts.weight;
    let n_parts = weight.parts_per_expert();
    let (floats, row_stride, slot_stride) = match is_integer(weight.quant) {
        true => (None, experts.n_slots(), usize::from(experts.n_slots() > 1)),
        false => {
            let (input, row_stride, slot_stride) = experts.whole_spans(padded)?;
            (Some(input), row_stride, slot_stride)
        }
    };
    let part_rows = weight.rows / weight.n_experts / n_parts;
    let out_stride = n_parts * experts.n_used * part_rows;
    let mut lists: Vec<Vec<Place>> = vec![Vec::new(); weight.n_experts];
    for row in 0..experts.n_rows {
        for slot in 0..experts.n_used {
            let expert = experts.expert(row, slot);
            lists[expert].push(Place {
                input: row * row_stride + slot * slot_stride,
                out: row * out_stride + slot * part_rows,
            });
        }
    }
    let inputs = match floats {
        Some(input) => vec![input; lists.len()],
        None => experts.rounded(isa, pool, &lists, rounded, grouped)?,
    };
    let mut products = Vec::new();
    let used = lists.iter().zip(inputs).enumerate();
    for (expert, (places, input)) in used.filter(|(_, (places, _))| !places.is_empty()) {
        for part in 0..n_parts {
            let rows = weight.part(expert * n_parts + part);
            let first_row = (expert * n_parts + part) * part_rows;
            products.push(Product {
                weight: WeightRows::join(weight.quant, weight.cols, std::iter::once(rows)),
                input,
                rows: Rows::Listed {
                    places,
                    out_offset: part * experts.n_used * part_rows,
                },
                bias: experts
                    .bias
                    .map(|bias| &bias[first_row..first_row + part_rows]),
                residual: None,
            });
        }
    }
    let out = &Shared::new(out);
    matmul_all(isa, pool, &products, |_| out)
}

impl<'a> Experts<'a> {
    fn expert(&self, row: usize, slot: usize) -> usize {
        let named = self.route.map(|route| route.row(row)[slot] as usize);
        named.unwrap_or(slot).min(self.weight.n_experts - 1)
    }

    /// Different inputs of a row.
    fn n_slots(&self) -> usize {
        match self.slot_stride {
            0 => 1,
            _ => self.n_used,
        }
    }

    /// Input `i`, counted over slots, then rows.
    fn slot(&self, i: usize) -> &'a [f32] {
        let (row, slot) = (i / self.n_slots(), i % self.n_slots());
        let start = row * self.input.stride() + slot * self.slot_stride;
        &self.input.at(start)[..self.weight.cols]
    }

    /// The input of each expert for integer products.
    fn rounded<'b>(
        &self,
        isa: InstructionSet,
        pool: &mut Pool,
        lists: &[Vec<Place>],
        rounded: &'b mut Buffer,
        grouped: &'b mut Buffer,
    ) -> Result<Vec<Input<'b>>, PoolError>
    where
        'a: 'b,
    {
        let quant = self.weight.quant;
        let slot = |i| self.slot(i);
        let n_rows = match lists.iter().any(|places| places.len() <= FEW_TOKENS) {
            true => self.n_rows * self.n_slots(),
            false => 0,
        };
        let rows = round_rows(isa, pool, quant, n_rows, &slot, rounded)?;
        let many = lists.iter().filter(|places| places.len() > FEW_TOKENS);
        let many: Vec<&[Place]> = many.flat_map(|places| places.chunks(LANES)).collect();
        let n_blocks = self.weight.cols / BLOCK;
        let row = |group: usize, lane| many[group].get(lane).map(|place: &Place| slot(place.input));
        let size = [many.len(), n_blocks];
        let mut groups = round_groups(isa, pool, quant, size, &row, grouped)?;
        let inputs = lists.iter().map(|places| match places.len() {
            0..=FEW_TOKENS => Input::Rounded(rows),
            n => {
                let (own, rest) = groups.split_at(n.div_ceil(LANES) * n_blocks);
                groups = rest;
                Input::Grouped(own)
            }
        });
        Ok(inputs.collect())
    }

    /// The input with whole spans, and its columns from row to row and from slot to slot.
    fn whole_spans<'b>(
        &self,
        padded: &'b mut Buffer,
    ) -> Result<(Input<'b>, usize, usize), PoolError>
    where
        'a: 'b,
    {
        let cols = self.weight.cols;
        if cols.is_multiple_of(SPAN) {
            let input = Input::Floats(self.input);
            return Ok((input, self.input.stride(), self.slot_stride));
        }
        let width = cols.next_multiple_of(SPAN);
        let n_slots = self.n_slots();
        let n_floats = self.n_rows * n_slots * width;
        let grown = padded.grow_floats(n_floats);
        grown.map_err(|OutOfMemory| PoolError::OutOfMemory(4 * n_floats as u64))?;
        let slots = padded.floats_mut()[..n_floats].chunks_exact_mut(width);
        for (i, slot) in slots.enumerate() {
            slot[..cols].copy_from_slice(self.slot(i));
            slot[cols..].fill(0.0);
        }
        let slot_stride = if n_slots == 1 { 0 } else { width };
        let matrix = Matrix::new(padded.floats(), n_slots * width, 0, width);
        Ok((Input::Floats(matrix), n_slots * width, slot_stride))
    }
}
