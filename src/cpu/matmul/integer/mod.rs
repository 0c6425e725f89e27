//! Products of K types with activations of 16 bits.
//!
//! A block of 256 activations is rounded to multiples of one 16-bit step, and the codes of weights
//! times the scales of their sub-blocks are integers too. A quarter of a block's products (those of
//! lanes `4 q .. 4 q + 4` of all its vectors) adds up to an exact 32-bit integer, in whatever order;
//! `acc[q] = fma(sum, d * step, acc[q])` for each block in turn, and at last
//! `(acc[0] + acc[2]) + (acc[1] + acc[3])`. Minima are products with the sums of sub-blocks, halved
//! to 16 bits: `acc[0]` takes the upper halves, `acc[1]` the lower.
//!
//! So, as with floats (`matmul`), nothing that a product is computed with changes a bit of it:
//! `vector.rs` runs along rows, `panel.rs` across them.

mod panel;
mod vector;

use bytemuck::{Pod, Zeroable};

use super::{Chunks, Input, Product, ROWS};
use crate::cpu::buffer::{Buffer, OutOfMemory, Shared};
use crate::cpu::format::integer::{
    BLOCK, IntegerFormat, IntegerKernel, VECTORS, with_integer_format,
};
use crate::cpu::pool::{Pool, PoolError};
use crate::cpu::simd::{InstructionSet, Isa, Kernel, Lanes};
use crate::quant::QuantType;

/// Rows of activations up to which weights are used as they are decoded.
const FEW_TOKENS: usize = 8;

/// 256 activations.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Block {
    /// Multiples of `step`, in the order of a format's weights: `[vector, even or odd, lane]`.
    values: [[[i16; 32]; 2]; VECTORS],
    /// Upper halves of the sums of eight sub-blocks, lower halves, and zeros.
    sums: [i16; 32],
    step: f32,
    rest: [f32; 15],
}

const BLOCK_FLOATS: usize = size_of::<Block>() / size_of::<f32>();

impl Block {
    /// Pair `j` (of 16) of a vector.
    #[inline(always)]
    fn pair(&self, vector: usize, j: usize) -> [i16; 2] {
        let values = &self.values[vector / 2][vector % 2];
        [values[2 * j], values[2 * j + 1]]
    }
}

/// Rounds rows of whole blocks for products with weights of a type. `rounded` is the memory.
///
/// # Errors
/// Those of the pool.
pub fn round_rows<'a>(
    isa: InstructionSet,
    pool: &mut Pool,
    quant: QuantType,
    n_rows: usize,
    row: &(dyn Fn(usize) -> &'a [f32] + Sync),
    rounded: &'a mut Buffer,
) -> Result<&'a [Block], PoolError> {
    let n_blocks = if n_rows == 0 { 0 } else { row(0).len() / BLOCK };
    let n_floats = n_rows * n_blocks * BLOCK_FLOATS;
    let grown = rounded.grow_floats(n_floats);
    grown.map_err(|OutOfMemory| PoolError::OutOfMemory(4 * n_floats as u64))?;
    let out = &Shared::new(&mut rounded.floats_mut()[..n_floats]);
    pool.run(n_rows, 0, &|i, _| {
        let n = n_blocks * BLOCK_FLOATS;
        // SAFETY: each row has its own part, and one task.
        let out = unsafe { out.part(i * n, n) };
        isa.run(Round {
            quant,
            row: row(i),
            out: bytemuck::cast_slice_mut(out),
        });
    })?;
    Ok(bytemuck::cast_slice(&rounded.floats()[..n_floats]))
}

/// One row of activations.
struct Round<'a> {
    quant: QuantType,
    row: &'a [f32],
    out: &'a mut [Block],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        with_integer_format(self.quant, self);
    }
}

impl IntegerKernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<F: IntegerFormat>(self) {
        for (x, out) in self.row.as_chunks().0.iter().zip(self.out) {
            round_block::<F>(x, out);
        }
    }
}

/// Numbers below a step of 2^-100 or so are zero: the quotient by so small a step is not finite.
const LEAST: f32 = 1e-30;

/// Rounds a block, ties to even. One with a number that is not finite has no step, so that its
/// products are no numbers either.
#[inline(always)]
fn round_block<F: IntegerFormat>(x: &[f32; BLOCK], out: &mut Block) {
    // Of numbers without a sign, the larger has the larger bits, and what is no number the largest.
    let largest = x
        .iter()
        .fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    *out = Block::zeroed();
    if !largest.is_finite() {
        out.step = f32::NAN;
        return;
    }
    if largest < LEAST {
        return;
    }
    out.step = largest / F::MOST as f32;
    let scale = F::MOST as f32 / largest;
    // The last bit of numbers of this size is worth 1: the sum is rounded to a whole number.
    const WHOLE: f32 = 12_582_912.0;
    let mut whole = [0i32; BLOCK];
    for (whole, x) in whole.iter_mut().zip(x) {
        *whole = (x * scale + WHOLE).to_bits() as i32 - WHOLE.to_bits() as i32;
    }
    for (v, [even, odd]) in out.values.iter_mut().enumerate() {
        for (half, start) in F::runs(v).into_iter().enumerate() {
            let run = whole[start..start + 32].as_chunks::<2>().0;
            for (i, &[a, b]) in run.iter().enumerate() {
                even[16 * half + i] = a as i16;
                odd[16 * half + i] = b as i16;
            }
        }
    }
    if F::HAS_MINIMA {
        for (i, run) in whole.as_chunks::<32>().0.iter().enumerate() {
            let sum: i32 = run.iter().sum();
            out.sums[i] = (sum >> 8) as i16;
            out.sums[8 + i] = (sum & 0xff) as i16;
        }
    }
}

/// What a sum of a block's minima is multiplied with, beside `dmin * step`, in its two quarters.
const HALVES: [f32; 2] = [-256.0, -1.0];

/// The chunks of a product, as [`Chunks::new`].
pub(super) fn chunks(product: &Product<'_>, n_products: usize, n_threads: usize) -> Chunks {
    let n_rows = product.weight.rows;
    let few = product.n_tokens() <= FEW_TOKENS;
    let chunk_rows = match few {
        true => (n_rows * n_products / (8 * n_threads))
            .clamp(1, 64)
            .next_multiple_of(ROWS),
        false => panel::ROWS,
    };
    let n_blocks = product.weight.cols / BLOCK;
    Chunks {
        n: n_rows.div_ceil(chunk_rows),
        n_scratch: if few {
            0
        } else {
            n_blocks * panel::BLOCK_VECTORS
        },
        n_rows,
        chunk_rows,
    }
}

/// Computes the columns of some weight rows.
pub fn chunk(
    isa: InstructionSet,
    product: &Product<'_>,
    out: &Shared<'_>,
    rows: std::ops::Range<usize>,
    scratch: &mut [Lanes],
) {
    match product.n_tokens() <= FEW_TOKENS {
        true => isa.run(vector::Vector { product, out, rows }),
        false => isa.run(panel::Panel {
            product,
            out,
            rows,
            scratch,
        }),
    }
}

impl Product<'_> {
    /// A token's activations.
    #[inline(always)]
    fn blocks(&self, token: usize) -> &[Block] {
        let n_blocks = self.weight.cols / BLOCK;
        match self.input {
            Input::Rounded(blocks) => &blocks[self.input_row(token) * n_blocks..][..n_blocks],
            Input::Floats(_) => unreachable!("`prepare` rounds the input of integer products"),
        }
    }
}
