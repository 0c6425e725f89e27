//! Activations as integers: rows of blocks for few tokens, groups of tokens for many.

use bytemuck::{Pod, Zeroable};

use crate::cpu::buffer::{Buffer, OutOfMemory, Shared};
use crate::cpu::format::integer::{
    BLOCK, IntegerFormat, IntegerKernel, VECTORS, with_integer_format,
};
use crate::cpu::pool::{Pool, PoolError};
use crate::cpu::simd::{InstructionSet, Isa, Kernel, LANES, Lanes};
use crate::quant::QuantType;

/// Two integers that are multiplied and added together.
pub type Pair = [i16; 2];

/// 256 activations of a token.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Block {
    /// Multiples of `step`, in the order of a format's weights: `[vector, even or odd, lane]`.
    pub values: [[[i16; 32]; 2]; VECTORS],
    /// Upper halves of the sums of eight sub-blocks, lower halves, and zeros.
    pub sums: [i16; 32],
    pub step: f32,
    rest: [f32; 15],
}

/// The same block of sixteen tokens, one a lane. Lanes without a token are zero.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Group {
    /// Pairs of [`Block::values`]: `[quarter, vector, even or odd, pair of the quarter]`.
    pub values: [[[[[Pair; LANES]; 4]; 2]; VECTORS]; 4],
    /// Pairs of [`Block::sums`].
    pub sums: [[Pair; LANES]; 8],
    pub steps: Lanes,
}

const BLOCK_FLOATS: usize = size_of::<Block>() / size_of::<f32>();
const GROUP_FLOATS: usize = size_of::<Group>() / size_of::<f32>();

/// Rounds rows of whole blocks for products of few tokens with weights of a type. `rounded` is the
/// memory.
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
    let n_floats = grow(rounded, n_rows * n_blocks * BLOCK_FLOATS)?;
    let out = &Shared::new(&mut rounded.floats_mut()[..n_floats]);
    pool.run(n_rows, 0, &|i, _| {
        let n = n_blocks * BLOCK_FLOATS;
        // SAFETY: each row has its own part, and one task.
        let out = unsafe { out.part(i * n, n) };
        isa.run(RoundRow {
            quant,
            row: row(i),
            out: bytemuck::cast_slice_mut(out),
        });
    })?;
    Ok(bytemuck::cast_slice(&rounded.floats()[..n_floats]))
}

/// Rounds rows of `n_blocks` blocks for products of many tokens: `[group, block]`, where `row` gives
/// the row of a group's lane, if it has one. `rounded` is the memory.
///
/// # Errors
/// Those of the pool.
pub fn round_groups<'a>(
    isa: InstructionSet,
    pool: &mut Pool,
    quant: QuantType,
    [n_groups, n_blocks]: [usize; 2],
    row: &(dyn Fn(usize, usize) -> Option<&'a [f32]> + Sync),
    rounded: &'a mut Buffer,
) -> Result<&'a [Group], PoolError> {
    let n_floats = grow(rounded, n_groups * n_blocks * GROUP_FLOATS)?;
    let out = &Shared::new(&mut rounded.floats_mut()[..n_floats]);
    pool.run(n_groups * n_blocks, 0, &|i, _| {
        let (group, block) = (i / n_blocks, i % n_blocks);
        // SAFETY: each block of a group has its own part, and one task.
        let out = unsafe { out.part(i * GROUP_FLOATS, GROUP_FLOATS) };
        isa.run(RoundGroup {
            quant,
            row: &|lane| row(group, lane)?.as_chunks().0.get(block),
            out: bytemuck::from_bytes_mut(bytemuck::cast_slice_mut(out)),
        });
    })?;
    Ok(bytemuck::cast_slice(&rounded.floats()[..n_floats]))
}

fn grow(rounded: &mut Buffer, n_floats: usize) -> Result<usize, PoolError> {
    let grown = rounded.grow_floats(n_floats);
    grown.map_err(|OutOfMemory| PoolError::OutOfMemory(4 * n_floats as u64))?;
    Ok(n_floats)
}

/// One row of activations.
struct RoundRow<'a> {
    quant: QuantType,
    row: &'a [f32],
    out: &'a mut [Block],
}

impl Kernel for RoundRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        with_integer_format(self.quant, self);
    }
}

impl IntegerKernel for RoundRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<F: IntegerFormat>(self) {
        for (x, out) in self.row.as_chunks().0.iter().zip(self.out) {
            round_block::<F>(x, out);
        }
    }
}

/// A block of the rows of a group.
struct RoundGroup<'a> {
    quant: QuantType,
    row: &'a dyn Fn(usize) -> Option<&'a [f32; BLOCK]>,
    out: &'a mut Group,
}

impl Kernel for RoundGroup<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        with_integer_format(self.quant, self);
    }
}

impl IntegerKernel for RoundGroup<'_> {
    type Output = ();

    #[inline(always)]
    fn run<F: IntegerFormat>(self) {
        let mut block = Block::zeroed();
        for lane in 0..LANES {
            match (self.row)(lane) {
                Some(x) => round_block::<F>(x, &mut block),
                None => block = Block::zeroed(),
            }
            self.out.put(lane, &block);
        }
    }
}

impl Group {
    /// Sets a lane.
    #[inline(always)]
    fn put(&mut self, lane: usize, block: &Block) {
        let vectors = bytemuck::cast_ref::<_, [[Pair; 16]; 2 * VECTORS]>(&block.values);
        for (quarter, values) in self.values.iter_mut().enumerate() {
            for (value, vector) in values.as_flattened_mut().iter_mut().zip(vectors) {
                for (j, value) in value.iter_mut().enumerate() {
                    value[lane] = vector[4 * quarter + j];
                }
            }
        }
        let sums = block.sums.as_chunks().0;
        for (out, &sum) in self.sums.iter_mut().zip(sums) {
            out[lane] = sum;
        }
        self.steps[lane] = block.step;
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
