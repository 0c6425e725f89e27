//! Low-rank updates: thin products that are added to some columns of a result.

use super::buffer::{Buffer, Matrix, OutOfMemory, Shared};
use super::pool::{Pool, PoolError};
use super::rowwise::{load, store};
use super::simd::{InstructionSet, Isa, Kernel, LANES, Lanes};
use super::weight::decode_all;
use crate::backend::{RowBlock, WeightSpec};

/// Groups of sixteen rows that are summed at once.
const GROUPS: usize = 4;
/// Vectors of a chunk: half of a first-level cache, which all tokens then read.
const CHUNK_VECTORS: usize = 384;

const _: () = assert!(RowBlock::ALIGNMENT.is_multiple_of(LANES));

/// A matrix `[rows, rank]` as floats `[groups of LANES rows, rank, LANES]`, so that sixteen results
/// are sums of `rank` vectors and no lanes have to be added. It is thin: a copy costs little, and
/// rows of so few numbers are slow to decode at each use.
pub struct Update {
    lanes: Buffer,
    rank: usize,
}

impl Update {
    /// Decodes a weight. Rows past the last are zero.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(up: &WeightSpec) -> Result<Update, OutOfMemory> {
        let rank = up.cols;
        let mut lanes = Buffer::default();
        lanes.grow(up.rows.div_ceil(LANES) * rank)?;
        let vectors = lanes.vectors_mut();
        for (row, numbers) in decode_all(up).chunks_exact(rank).enumerate() {
            let group = &mut vectors[row / LANES * rank..][..rank];
            for (vector, number) in group.iter_mut().zip(numbers) {
                vector[row % LANES] = *number;
            }
        }
        Ok(Update { lanes, rank })
    }
}

/// `out = sum`, and `scale * up down` besides in the columns of each block.
pub struct LowRank<'a> {
    pub sum: Matrix<'a>,
    pub down: Matrix<'a>,
    pub up: &'a Update,
    pub blocks: &'a [RowBlock],
    pub scale: f32,
}

/// A run of groups within a block.
#[derive(Clone, Copy)]
struct Run {
    /// Number of the first group.
    group: usize,
    first_column: usize,
    n_columns: usize,
    /// Where the block's columns begin in `down`.
    down: usize,
}

/// Computes an update into `out`, `[tokens, sum.cols]`.
///
/// # Errors
/// Those of the pool.
pub fn add_low_rank(
    isa: InstructionSet,
    pool: &mut Pool,
    op: &LowRank<'_>,
    out: &mut [f32],
) -> Result<(), PoolError> {
    let runs = &op.runs();
    let out = &Shared::new(out);
    let task = |i: usize, _: &mut [Lanes]| match i.checked_sub(1) {
        None => op.copy_rest(out),
        Some(i) => isa.run(Task {
            op,
            run: runs[i],
            out,
        }),
    };
    pool.run(runs.len() + 1, 0, &task)
}

impl LowRank<'_> {
    /// The blocks in pieces of one chunk each.
    fn runs(&self) -> Vec<Run> {
        let rank = self.up.rank;
        let most = (CHUNK_VECTORS / rank).next_multiple_of(GROUPS) * LANES;
        let mut runs = Vec::new();
        let mut group = 0;
        for (i, block) in self.blocks.iter().enumerate() {
            for start in (0..block.rows).step_by(most) {
                runs.push(Run {
                    group: group + start / LANES,
                    first_column: block.first + start,
                    n_columns: most.min(block.rows - start),
                    down: i * rank,
                });
            }
            group += block.rows.div_ceil(LANES);
        }
        runs
    }

    /// Copies the columns outside of all blocks.
    fn copy_rest(&self, out: &Shared<'_>) {
        let cols = self.sum.cols;
        let ends = self.blocks.iter().map(|block| block.first + block.rows);
        let starts = self.blocks.iter().map(|block| block.first);
        let gaps = std::iter::once(0).chain(ends).zip(starts.chain([cols]));
        for (start, end) in gaps.filter(|(start, end)| start < end) {
            for token in 0..out.len() / cols {
                // SAFETY: columns of no block, which no other chunk writes.
                let out = unsafe { out.part(token * cols + start, end - start) };
                out.copy_from_slice(&self.sum.row(token)[start..end]);
            }
        }
    }
}

/// The columns of a run, for all tokens.
struct Task<'a> {
    op: &'a LowRank<'a>,
    run: Run,
    out: &'a Shared<'a>,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Task { op, run, out } = self;
        let rank = op.up.rank;
        let cols = op.sum.cols;
        let groups = op.up.lanes.vectors()[run.group * rank..].chunks(GROUPS * rank);
        for token in 0..out.len() / cols {
            let down = &op.down.row(token)[run.down..][..rank];
            let sum = &op.sum.row(token)[run.first_column..][..run.n_columns];
            // SAFETY: a chunk writes the columns of its own run, one token at a time.
            let out = unsafe { out.part(token * cols + run.first_column, run.n_columns) };
            let sums = sum.chunks(GROUPS * LANES);
            let outs = out.chunks_mut(GROUPS * LANES);
            for ((up, sum), out) in groups.clone().zip(sums).zip(outs) {
                match sum.len() == GROUPS * LANES {
                    true => groups_of::<I, GROUPS>(isa, op.scale, up, down, sum, out),
                    false => {
                        let up = up.chunks(rank).zip(sum.chunks(LANES));
                        for ((up, sum), out) in up.zip(out.chunks_mut(LANES)) {
                            groups_of::<I, 1>(isa, op.scale, up, down, sum, out);
                        }
                    }
                }
            }
        }
    }
}

/// `N` groups for one token: terms are added by rising rank, then scaled, then added.
#[inline(always)]
fn groups_of<I: Isa, const N: usize>(
    isa: I,
    scale: f32,
    up: &[Lanes],
    down: &[f32],
    sum: &[f32],
    out: &mut [f32],
) {
    let rank = down.len();
    let mut acc = [isa.splat(0.0); N];
    for k in 0..rank {
        let x = isa.splat(down[k]);
        for g in 0..N {
            acc[g] = isa.fma(isa.load(&up[g * rank + k]), x, acc[g]);
        }
    }
    let scale = isa.splat(scale);
    let sums = sum.chunks(LANES);
    for ((acc, sum), out) in acc.into_iter().zip(sums).zip(out.chunks_mut(LANES)) {
        store(isa, isa.fma(scale, acc, load(isa, sum)), out);
    }
}
