//! Attention over the paged cache.
//!
//! A *query* is one head of one token. Up to six queries of one key head share the loads of keys
//! and values, but each is computed as if it were alone: scores by multiply-adds over rising
//! columns, weights by two passes over its own positions, sums over rising positions. So chunks,
//! batches and threads change nothing.

mod tile;

use super::buffer::{Matrix, Shared};
use super::cache::{LayerCache, PAGE_VECTORS, Pages, with_pages};
use super::pool::{Pool, PoolError};
use super::simd::{InstructionSet, Isa, Kernel, LANES, Lanes};
use crate::backend::{Batch, NO_SLOT, PAGE_TOKENS};
use tile::{Query, Tile, TileKernel};

/// Queries that share loads.
const QUERIES: usize = 6;
/// Multiply-adds that are worth another thread.
const CHUNK_WORK: usize = 1 << 17;

/// Sizes and factors of the operation.
pub struct Attention<'a> {
    pub q: Matrix<'a>,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub value_dim: usize,
    pub scale: f32,
    pub causal: bool,
    pub window: Option<usize>,
    pub soft_cap: Option<f32>,
    pub sinks: Option<&'a [f32]>,
    pub alibi: Option<f32>,
}

impl Attention<'_> {
    /// The positions that `position` sees in a sequence of `length`.
    fn visible(&self, position: usize, length: usize) -> std::ops::Range<usize> {
        match (self.causal, self.window) {
            (true, None) => 0..position + 1,
            (true, Some(w)) => (position + 1).saturating_sub(w)..position + 1,
            (false, None) => 0..length,
            (false, Some(w)) => position.saturating_sub(w / 2)..length.min(position + w / 2 + 1),
        }
    }
}

/// Stores keys and values of all tokens.
pub fn kv_write(
    isa: InstructionSet,
    cache: &mut LayerCache,
    batch: &Batch,
    k: Matrix<'_>,
    v: Matrix<'_>,
) {
    struct Write<'a, P>(&'a mut P, &'a Batch, Matrix<'a>, Matrix<'a>);
    impl<P: Pages> Kernel for Write<'_, P> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            let Write(pages, batch, k, v) = self;
            let slots = batch.slots.iter().enumerate();
            for (i, &slot) in slots.filter(|(_, slot)| **slot != NO_SLOT) {
                pages.write(isa, slot as usize, k.row(i), v.row(i));
            }
        }
    }
    with_pages!(cache, pages => isa.run(Write(pages, batch, k, v)));
}

/// Consecutive rows of one sequence, and the first of the tasks that compute them.
struct Run {
    first_row: usize,
    n_rows: usize,
    /// Positions of the sequence up to its last row.
    length: usize,
    first_task: usize,
}

/// Computes attention of every token into `out`, `[n_tokens, n_heads * value_dim]`.
///
/// # Errors
/// Those of the pool.
pub fn attention(
    isa: InstructionSet,
    pool: &mut Pool,
    cache: &LayerCache,
    batch: &Batch,
    op: &Attention<'_>,
    out: &mut [f32],
) -> Result<(), PoolError> {
    with_pages!(cache, pages => attention_over(isa, pool, pages, batch, op, out))
}

fn attention_over<P: Pages>(
    isa: InstructionSet,
    pool: &mut Pool,
    pages: &P,
    batch: &Batch,
    op: &Attention<'_>,
    out: &mut [f32],
) -> Result<(), PoolError> {
    let n_threads = pool.n_threads();
    let group = op.n_heads / op.n_kv_heads;
    let tiles_of = |n_rows: usize, size: usize| op.n_kv_heads * (n_rows * group).div_ceil(size);
    // Where there are few tiles, smaller ones spread over the threads.
    let mut size = QUERIES;
    while size > 1 && tiles_of(batch.n_tokens(), size) < 4 * n_threads {
        size = size.div_ceil(2);
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut n_tasks = 0;
    for rows in batch.sequences.chunk_by(|a, b| a == b) {
        let first_row = runs.last().map_or(0, |run| run.first_row + run.n_rows);
        runs.push(Run {
            first_row,
            n_rows: rows.len(),
            length: batch.positions[first_row + rows.len() - 1] as usize + 1,
            first_task: n_tasks,
        });
        n_tasks += tiles_of(rows.len(), size);
    }
    let rows = |run: &Run| run.first_row..run.first_row + run.n_rows;
    let seen = |run: &Run| -> usize {
        let positions = batch.positions[rows(run)].iter();
        positions
            .map(|&p| op.visible(p as usize, run.length).len())
            .sum()
    };
    let work = runs.iter().map(seen).sum::<usize>() * op.n_heads * op.head_dim;
    let n_chunks = (work / CHUNK_WORK).clamp(1, n_tasks);
    let chunk_tasks = n_tasks.div_ceil(n_chunks);
    let longest = batch.positions.iter().max().map_or(0, |&p| p as usize + 1);
    let n_scratch = QUERIES * (longest.div_ceil(PAGE_TOKENS) * PAGE_VECTORS)
        + QUERIES * op.value_dim.div_ceil(LANES);
    let out = &Shared::new(out);
    let task = |chunk: usize, scratch: &mut [Lanes]| {
        for task in chunk * chunk_tasks..n_tasks.min((chunk + 1) * chunk_tasks) {
            let run = &runs[runs.partition_point(|run| run.first_task <= task) - 1];
            let tiles = (run.n_rows * group).div_ceil(size);
            let tile = task - run.first_task;
            let first = tile % tiles * size;
            let query = |i: usize| {
                let row = run.first_row + i / group;
                let position = batch.positions[row] as usize;
                let visible = op.visible(position, run.length);
                Query {
                    row,
                    head: tile / tiles * group + i % group,
                    position,
                    first: visible.start,
                    end: visible.end,
                }
            };
            let last = (first + size).min(run.n_rows * group) - 1;
            let queries = std::array::from_fn(|i| query((first + i).min(last)));
            let table = &batch.tables[batch.sequences[run.first_row] as usize];
            let tile = Tile {
                op,
                pages,
                table,
                kv_head: tile / tiles,
                queries,
                n: last + 1 - first,
            };
            isa.run(TileKernel {
                tile,
                scratch: &mut *scratch,
                out,
            });
        }
    };
    pool.run(n_tasks.div_ceil(chunk_tasks), n_scratch, &task)
}
