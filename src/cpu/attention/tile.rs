//! A few queries over the positions that they see.

use super::{Attention, QUERIES};
use crate::backend::{PAGE_TOKENS, alibi_slope};
use crate::cpu::buffer::Shared;
use crate::cpu::cache::{PAGE_VECTORS, Pages};
use crate::cpu::simd::{Isa, Kernel, LANES, Lanes, math};

/// One head of one token, and the positions it sees.
#[derive(Clone, Copy)]
pub struct Query {
    pub row: usize,
    pub head: usize,
    pub position: usize,
    pub first: usize,
    pub end: usize,
}

/// Queries that read the same key head of one sequence, by rising position.
pub struct Tile<'a, P> {
    pub op: &'a Attention<'a>,
    pub pages: &'a P,
    pub table: &'a [u32],
    pub kv_head: usize,
    /// The last is repeated where there are fewer.
    pub queries: [Query; QUERIES],
    pub n: usize,
}

pub struct TileKernel<'a, P> {
    pub tile: Tile<'a, P>,
    pub scratch: &'a mut [Lanes],
    pub out: &'a Shared<'a>,
}

impl<P: Pages> Kernel for TileKernel<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let tile = &self.tile;
        let queries = &tile.queries[..tile.n];
        // Windows and causality both move forward with the position.
        let first_page = queries[0].first / PAGE_TOKENS;
        let n_pages = queries[tile.n - 1].end.div_ceil(PAGE_TOKENS) - first_page;
        let stride = n_pages * PAGE_VECTORS;
        let (scores, acc) = self.scratch.split_at_mut(QUERIES * stride);
        let step = if I::WIDE { QUERIES } else { 2 };
        for q in (0..tile.n).step_by(step) {
            let scores = &mut scores[q * stride..];
            match step.min(tile.n - q) {
                1 => score_pages::<I, P, 1, 4>(isa, tile, q, first_page, stride, scores),
                2 => score_pages::<I, P, 2, 2>(isa, tile, q, first_page, stride, scores),
                3 => score_pages::<I, P, 3, 2>(isa, tile, q, first_page, stride, scores),
                4 => score_pages::<I, P, 4, 1>(isa, tile, q, first_page, stride, scores),
                5 => score_pages::<I, P, 5, 1>(isa, tile, q, first_page, stride, scores),
                _ => score_pages::<I, P, 6, 1>(isa, tile, q, first_page, stride, scores),
            }
        }
        let base = first_page * PAGE_TOKENS;
        let mut sums = [0.0; QUERIES];
        for (q, query) in queries.iter().enumerate() {
            let scores = &mut scores[q * stride..(q + 1) * stride];
            let sink = tile.op.sinks.map(|sinks| sinks[query.head]);
            sums[q] = softmax(isa, tile.op, query, base, scores, sink);
        }
        let width = tile.op.value_dim.div_ceil(LANES);
        let acc = &mut acc[..QUERIES * width];
        weigh(isa, tile, first_page, stride, scores, acc);
        for (q, query) in queries.iter().enumerate() {
            let (cols, value_dim) = (tile.op.n_heads * tile.op.value_dim, tile.op.value_dim);
            // SAFETY: each query belongs to one tile, and each tile to one task.
            let out = unsafe {
                self.out
                    .part(query.row * cols + query.head * value_dim, value_dim)
            };
            let inverse = 1.0 / sums[q];
            let acc = acc[q * width..(q + 1) * width].as_flattened();
            out.iter_mut()
                .zip(acc)
                .for_each(|(out, acc)| *out = acc * inverse);
        }
    }
}

/// Unscaled scores of `Q` queries from `q` on at every position of the tile's pages; `N` pages
/// at once, so that enough sums are in flight.
#[inline(always)]
fn score_pages<I: Isa, P: Pages, const Q: usize, const N: usize>(
    isa: I,
    tile: &Tile<'_, P>,
    q: usize,
    first_page: usize,
    stride: usize,
    scores: &mut [Lanes],
) {
    let n_pages = stride / PAGE_VECTORS;
    let mut page = 0;
    while page + N <= n_pages {
        score::<I, P, Q, N>(isa, tile, q, first_page, page, stride, scores);
        page += N;
    }
    for page in page..n_pages {
        score::<I, P, Q, 1>(isa, tile, q, first_page, page, stride, scores);
    }
}

#[expect(
    clippy::needless_range_loop,
    reason = "iterators over vectors stay calls; plain indices unroll"
)]
#[inline(always)]
fn score<I: Isa, P: Pages, const Q: usize, const N: usize>(
    isa: I,
    tile: &Tile<'_, P>,
    q: usize,
    first_page: usize,
    page: usize,
    stride: usize,
    scores: &mut [Lanes],
) {
    let head_dim = tile.op.head_dim;
    let mut x = [&[] as &[f32]; Q];
    for i in 0..Q {
        let query = &tile.queries[q + i];
        x[i] = &tile.op.q.row(query.row)[query.head * head_dim..][..head_dim];
    }
    let page_keys = |p: usize| {
        let page = tile.table[first_page + page + p];
        tile.pages.keys(page, tile.kv_head * head_dim, head_dim)
    };
    let mut keys = [page_keys(0); N];
    for p in 1..N {
        keys[p] = page_keys(p);
    }
    let mut sums = [[[isa.splat(0.0); PAGE_VECTORS]; N]; Q];
    for d in 0..head_dim {
        for p in 0..N {
            let k = P::key(isa, keys[p], d);
            for i in 0..Q {
                let x = isa.splat(x[i][d]);
                for v in 0..PAGE_VECTORS {
                    sums[i][p][v] = isa.fma(k[v], x, sums[i][p][v]);
                }
            }
        }
    }
    for i in 0..Q {
        for p in 0..N {
            for v in 0..PAGE_VECTORS {
                let at = i * stride + (page + p) * PAGE_VECTORS + v;
                isa.store(sums[i][p][v], &mut scores[at]);
            }
        }
    }
}

/// Turns the scores of the positions that a query sees into `exp(score - largest)` and returns
/// their sum, with the sink's share; the first score is that of position `base`. Vectors outside
/// are left as they are.
#[inline(always)]
fn softmax<I: Isa>(
    isa: I,
    op: &Attention<'_>,
    query: &Query,
    base: usize,
    scores: &mut [Lanes],
    sink: Option<f32>,
) -> f32 {
    let (first, end) = (query.first - base, query.end - base);
    let scores = &mut scores[first / LANES..end.div_ceil(LANES)];
    let n = scores.len();
    for s in scores.iter_mut() {
        let mut score = isa.mul(isa.load(s), isa.splat(op.scale));
        if let Some(cap) = op.soft_cap {
            score = math::soft_cap(isa, score, cap);
        }
        isa.store(score, s);
    }
    if let Some(bias) = op.alibi {
        let slope = alibi_slope(bias, op.n_heads, query.head);
        let start = base + first / LANES * LANES;
        for (i, score) in scores.as_flattened_mut().iter_mut().enumerate() {
            *score -= slope * query.position.abs_diff(start + i) as f32;
        }
    }
    scores[0][..first % LANES].fill(f32::NEG_INFINITY);
    scores[n - 1][(end - 1) % LANES + 1..].fill(f32::NEG_INFINITY);
    let mut largest = isa.splat(f32::NEG_INFINITY);
    for s in scores.iter() {
        largest = isa.max(isa.load(s), largest);
    }
    let mut lanes = [0.0; LANES];
    isa.store(largest, &mut lanes);
    let largest = lanes.iter().fold(
        sink.unwrap_or(f32::NEG_INFINITY),
        |a, &b| if a > b { a } else { b },
    );
    let (largest, mut sum) = (isa.splat(largest), isa.splat(0.0));
    for s in scores.iter_mut() {
        let weight = math::exp(isa, isa.sub(isa.load(s), largest));
        sum = isa.add(sum, weight);
        isa.store(weight, s);
    }
    let sum = isa.sum(sum);
    match sink {
        None => sum,
        Some(sink) => {
            let weight = math::exp(isa, isa.sub(isa.splat(sink), largest));
            isa.store(weight, &mut lanes);
            sum + lanes[0]
        }
    }
}

/// Adds up the values of each query's positions by their weights: `acc` is `[QUERIES, width]`.
/// Positions that all queries see go together, the others query by query: a cache slot that a
/// query may not see can hold anything.
#[inline(always)]
fn weigh<I: Isa, P: Pages>(
    isa: I,
    tile: &Tile<'_, P>,
    first_page: usize,
    stride: usize,
    weights: &[Lanes],
    acc: &mut [Lanes],
) {
    acc.fill([0.0; LANES]);
    let queries = &tile.queries[..tile.n];
    let (shared_first, shared_end) = (queries[tile.n - 1].first, queries[0].end);
    let values = Values {
        tile,
        first_page,
        stride,
        weights,
    };
    let shared = shared_first..shared_end.max(shared_first);
    for (q, query) in queries.iter().enumerate() {
        let before = query.first..shared.start.min(query.end);
        values.add_queries(isa, q, 1, before, acc);
    }
    values.add_queries(isa, 0, tile.n, shared.clone(), acc);
    for (q, query) in queries.iter().enumerate() {
        values.add_queries(isa, q, 1, shared.end.max(query.first)..query.end, acc);
    }
}

/// The weighted values of a tile.
struct Values<'a, P> {
    tile: &'a Tile<'a, P>,
    first_page: usize,
    stride: usize,
    weights: &'a [Lanes],
}

impl<P: Pages> Values<'_, P> {
    /// Adds `positions` to the sums of `n` queries from `q` on.
    #[inline(always)]
    fn add_queries<I: Isa>(
        &self,
        isa: I,
        q: usize,
        n: usize,
        positions: std::ops::Range<usize>,
        acc: &mut [Lanes],
    ) {
        if positions.is_empty() {
            return;
        }
        let step = if I::WIDE { QUERIES } else { 2 };
        for i in (0..n).step_by(step) {
            let q = q + i;
            match step.min(n - i) {
                1 => self.add_columns::<I, 1>(isa, q, &positions, acc),
                2 => self.add_columns::<I, 2>(isa, q, &positions, acc),
                3 => self.add_columns::<I, 3>(isa, q, &positions, acc),
                4 => self.add_columns::<I, 4>(isa, q, &positions, acc),
                5 => self.add_columns::<I, 5>(isa, q, &positions, acc),
                _ => self.add_columns::<I, 6>(isa, q, &positions, acc),
            }
        }
    }

    /// As many columns at once as the registers hold sums for.
    #[inline(always)]
    fn add_columns<I: Isa, const Q: usize>(
        &self,
        isa: I,
        q: usize,
        positions: &std::ops::Range<usize>,
        acc: &mut [Lanes],
    ) {
        let width = self.tile.op.value_dim.div_ceil(LANES);
        let acc = &mut acc[q * width..(q + Q) * width];
        let mut column = 0;
        while I::WIDE && column + 4 <= width {
            self.add::<I, Q, 4>(isa, q, positions, column, acc);
            column += 4;
        }
        while column + 2 <= width {
            self.add::<I, Q, 2>(isa, q, positions, column, acc);
            column += 2;
        }
        if column < width {
            self.add::<I, Q, 1>(isa, q, positions, column, acc);
        }
    }

    /// `Q` queries, `D` vectors of columns.
    #[expect(
        clippy::needless_range_loop,
        reason = "iterators over vectors stay calls; plain indices unroll"
    )]
    #[inline(always)]
    fn add<I: Isa, const Q: usize, const D: usize>(
        &self,
        isa: I,
        q: usize,
        positions: &std::ops::Range<usize>,
        column: usize,
        acc: &mut [Lanes],
    ) {
        let (tile, width) = (self.tile, acc.len() / Q);
        let base = self.first_page * PAGE_TOKENS;
        let value_column = tile.kv_head * tile.op.value_dim;
        let mut weights = [&[] as &[f32]; Q];
        let mut sums = [[isa.splat(0.0); D]; Q];
        for i in 0..Q {
            weights[i] = self.weights[(q + i) * self.stride..][..self.stride].as_flattened();
            for d in 0..D {
                sums[i][d] = isa.load(&acc[i * width + column + d]);
            }
        }
        let mut position = positions.start;
        while position < positions.end {
            let page_end = (position / PAGE_TOKENS + 1) * PAGE_TOKENS;
            let page = tile.table[position / PAGE_TOKENS];
            for p in position..page_end.min(positions.end) {
                let token = p % PAGE_TOKENS;
                let values = tile.pages.values(page, token, value_column, column, D);
                let mut row = [isa.splat(0.0); D];
                for d in 0..D {
                    row[d] = P::value(isa, values, d);
                }
                for i in 0..Q {
                    let weight = isa.splat(weights[i][p - base]);
                    for d in 0..D {
                        sums[i][d] = isa.fma(row[d], weight, sums[i][d]);
                    }
                }
            }
            position = page_end;
        }
        for i in 0..Q {
            for d in 0..D {
                isa.store(sums[i][d], &mut acc[i * width + column + d]);
            }
        }
    }
}
