//! The best candidates of each row of logits, and the logarithm of the sum of exponentials.
//!
//! A row is cut into segments, always the same ones; each is searched with a threshold that
//! rises as better candidates are found, so that most vectors cost one comparison.

use std::cmp::Ordering;
use std::sync::Mutex;

use super::buffer::Matrix;
use super::pool::{Pool, PoolError};
use super::simd::{InstructionSet, Isa, Kernel, LANES, Lanes, math};
use crate::backend::Candidates;

/// Columns of a segment.
const SEGMENT: usize = 16 * 1024;

/// A token and its logit.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
}

impl Candidate {
    /// Best first: falling logits, those that are no numbers last, equal ones by rising id.
    fn order(&self, other: &Candidate) -> Ordering {
        let key = |c: &Candidate| {
            if c.logit.is_nan() {
                f32::NEG_INFINITY
            } else {
                c.logit
            }
        };
        let nan = self.logit.is_nan().cmp(&other.logit.is_nan());
        let logits = key(other)
            .partial_cmp(&key(self))
            .unwrap_or(Ordering::Equal);
        logits.then(nan).then(self.id.cmp(&other.id))
    }
}

/// What is known of a segment.
#[derive(Debug, Default)]
struct Found {
    /// Best first.
    best: Vec<Candidate>,
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
    Ok(found.chunks(n_segments).map(|row| join(row, k)).collect())
}

/// Joins the segments of a row.
fn join(segments: &[Found], k: usize) -> Candidates {
    let mut best: Vec<Candidate> = segments.iter().flat_map(|s| &s.best).copied().collect();
    best.sort_unstable_by(Candidate::order);
    best.truncate(k);
    let larger = |a: f32, s: &Found| if s.largest > a { s.largest } else { a };
    let largest = segments.iter().fold(f32::NEG_INFINITY, larger);
    // In f64 and in order: the result depends on nothing but the logits.
    let term = |s: &Found| f64::from(s.sum) * (f64::from(s.largest) - f64::from(largest)).exp();
    let sum: f64 = segments.iter().map(term).sum();
    Candidates {
        ids: best.iter().map(|c| c.id).collect(),
        logits: best.iter().map(|c| c.logit).collect(),
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
        let largest = vectors.iter().chain([&last]).fold(
            isa.splat(f32::NEG_INFINITY),
            #[inline(always)]
            |a, x| isa.max(isa.load(x), a),
        );
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
            best: self.best(isa, vectors, rest.len()),
            largest,
            sum: isa.sum(sum),
        }
    }
}

impl Search<'_> {
    /// The best `k`. The list may grow to twice that before the worse half is dropped, and the
    /// threshold is the worst that is then left: a later equal has a higher id, so it loses.
    #[inline(always)]
    fn best<I: Isa>(&self, isa: I, vectors: &[Lanes], n_rest: usize) -> Vec<Candidate> {
        let mut best: Vec<Candidate> = Vec::with_capacity(2 * self.k + LANES);
        let mut threshold = None;
        let candidate = |i: usize| Candidate {
            id: self.first_id + i as u32,
            logit: self.logits[i],
        };
        for (v, x) in vectors.iter().enumerate() {
            let mut mask = match threshold {
                Some(threshold) => isa.greater(isa.load(x), isa.splat(threshold)),
                None => (1 << LANES) - 1,
            };
            while mask != 0 {
                best.push(candidate(v * LANES + mask.trailing_zeros() as usize));
                mask &= mask - 1;
            }
            if best.len() >= 2 * self.k {
                threshold = keep(&mut best, self.k);
            }
        }
        let n = vectors.len() * LANES;
        best.extend((n..n + n_rest).map(candidate));
        keep(&mut best, self.k);
        best
    }
}

/// Keeps the best `k`, best first; returns the logit that a later candidate must exceed.
fn keep(best: &mut Vec<Candidate>, k: usize) -> Option<f32> {
    if best.len() > k {
        best.select_nth_unstable_by(k, Candidate::order);
        best.truncate(k);
    }
    best.sort_unstable_by(Candidate::order);
    let worst = best.get(k.checked_sub(1)?)?.logit;
    Some(if worst.is_nan() {
        f32::NEG_INFINITY
    } else {
        worst
    })
}
