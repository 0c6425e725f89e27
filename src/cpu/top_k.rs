//! The best candidates of each row of logits, and the logarithm of the sum of exponentials.
//!
//! A row is cut into segments, always the same ones, and a segment into groups, whose largest logits
//! are found beside that of all. The `k`th largest of these is a bound that at least `k` logits
//! reach and not many more, so that one comparison a vector finds the best.

use std::sync::Mutex;

use super::buffer::Matrix;
use super::pool::{Pool, PoolError};
use super::simd::{InstructionSet, Isa, Kernel, LANES, Lanes, math};
use crate::backend::{Candidates, MAX_CANDIDATES};

/// Columns of a segment.
const SEGMENT: usize = 16 * 1024;
/// Vectors of maxima of a segment: twice as many groups as the most candidates.
const MAXIMA: usize = 2 * MAX_CANDIDATES / LANES;

/// A token by its rank: smaller is better. The upper half falls with the logit, and is largest for
/// what is no number; the lower half is the id.
type Rank = u64;

fn rank(id: u32, logit: f32) -> Rank {
    // Of zeros with either sign none is better.
    let bits = (logit + 0.0).to_bits();
    let falling = match bits >> 31 {
        _ if logit.is_nan() => u32::MAX,
        0 => bits ^ 0x7fff_ffff,
        _ => bits,
    };
    u64::from(falling) << 32 | u64::from(id)
}

/// Keeps the best `k`, in no order.
fn keep(best: &mut Vec<Rank>, k: usize) {
    if k < best.len() {
        best.select_nth_unstable(k);
        best.truncate(k);
    }
}

/// What is known of a segment.
#[derive(Debug, Default)]
struct Found {
    /// In no order.
    best: Vec<Rank>,
    largest: f32,
    /// Sum of `exp(logit - largest)`.
    sum: f32,
}

/// The best `k` of rows `0 .. n_rows` of a matrix of logits.
///
/// # Errors
/// Those of the pool.
pub fn top_k(
    isa: InstructionSet,
    pool: &mut Pool,
    input: Matrix<'_>,
    n_rows: usize,
    k: usize,
) -> Result<Vec<Candidates>, PoolError> {
    let n_segments = input.cols.div_ceil(SEGMENT);
    let found: Vec<Mutex<Found>> = (0..n_rows * n_segments).map(|_| Mutex::default()).collect();
    let task = |chunk: usize, _: &mut [Lanes]| {
        let first = chunk % n_segments * SEGMENT;
        let logits = input.row(chunk / n_segments);
        let logits = &logits[first..input.cols.min(first + SEGMENT)];
        let segment = isa.run(Search {
            logits,
            first_id: first as u32,
            k,
        });
        // One chunk writes each entry, so nobody can have poisoned it.
        if let Ok(mut found) = found[chunk].lock() {
            *found = segment;
        }
    };
    pool.run(n_rows * n_segments, 0, &task)?;
    let found: Vec<Found> = found.into_iter().flat_map(Mutex::into_inner).collect();
    let rows = found.chunks(n_segments).enumerate();
    Ok(rows.map(|(i, row)| join(row, input.row(i), k)).collect())
}

/// Joins the segments of a row.
fn join(segments: &[Found], logits: &[f32], k: usize) -> Candidates {
    let mut best: Vec<Rank> = segments.iter().flat_map(|s| &s.best).copied().collect();
    keep(&mut best, k);
    best.sort_unstable();
    let ids: Vec<u32> = best.iter().map(|rank| *rank as u32).collect();
    let larger = |a: f32, s: &Found| if s.largest > a { s.largest } else { a };
    let largest = segments.iter().fold(f32::NEG_INFINITY, larger);
    // In f64 and in order: the result depends on nothing but the logits.
    let term = |s: &Found| f64::from(s.sum) * (f64::from(s.largest) - f64::from(largest)).exp();
    let sum: f64 = segments.iter().map(term).sum();
    Candidates {
        logits: ids.iter().map(|id| logits[*id as usize]).collect(),
        ids,
        log_sum_exp: (f64::from(largest) + sum.ln()) as f32,
    }
}

/// Searches one segment.
struct Search<'a> {
    logits: &'a [f32],
    first_id: u32,
    k: usize,
}

impl Kernel for Search<'_> {
    type Output = Found;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Found {
        let (vectors, rest) = self.logits.as_chunks::<LANES>();
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let mut maxima = [[f32::NEG_INFINITY; LANES]; MAXIMA];
        let n_maxima = (2 * self.k).div_ceil(LANES).clamp(1, MAXIMA);
        let group = vectors.len().div_ceil(n_maxima).max(1);
        let mut largest = isa.load(&last);
        for (maxima, vectors) in maxima.iter_mut().zip(vectors.chunks(group)) {
            let mut most = isa.splat(f32::NEG_INFINITY);
            for x in vectors {
                most = isa.max(isa.load(x), most);
            }
            isa.store(most, maxima);
            largest = isa.max(largest, most);
        }
        let mut lanes = [0.0; LANES];
        isa.store(largest, &mut lanes);
        let largest = lanes
            .iter()
            .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        let mut sum = isa.splat(0.0);
        for x in vectors.iter().chain([&last]) {
            let e = math::exp(isa, isa.sub(isa.load(x), isa.splat(largest)));
            sum = isa.add(sum, e);
        }
        Found {
            best: self.best(isa, vectors, bound(maxima.as_flattened_mut(), self.k)),
            largest,
            sum: isa.sum(sum),
        }
    }
}

impl Search<'_> {
    /// The best `k`, among those that reach the bound.
    #[inline(always)]
    fn best<I: Isa>(&self, isa: I, vectors: &[Lanes], bound: f32) -> Vec<Rank> {
        let mut best: Vec<Rank> = Vec::with_capacity(2 * self.k + LANES);
        let rank = |i: usize| rank(self.first_id + i as u32, self.logits[i]);
        let rest = vectors.len() * LANES..self.logits.len();
        if bound == f32::NEG_INFINITY {
            best.extend((0..self.logits.len()).map(rank));
        } else {
            let below = isa.splat(bound.next_down());
            for (v, x) in vectors.iter().enumerate() {
                let mut mask = isa.greater(isa.load(x), below);
                while mask != 0 {
                    best.push(rank(v * LANES + mask.trailing_zeros() as usize));
                    mask &= mask - 1;
                }
            }
            best.extend(rest.map(rank));
        }
        keep(&mut best, self.k);
        best
    }
}

/// A logit that at least `k` of the groups' largest reach.
fn bound(maxima: &mut [f32], k: usize) -> f32 {
    match k.checked_sub(1) {
        Some(k) if k < maxima.len() => *maxima.select_nth_unstable_by(k, |a, b| b.total_cmp(a)).1,
        _ => f32::NEG_INFINITY,
    }
}
