//! The choice of experts, row by row.

use super::rowwise::{load, store};
use super::simd::{Isa, Kernel, LANES, math};
use crate::backend::{Gating, MAX_EXPERTS, Routing};

/// Chooses the experts of one token: `out` takes their numbers and then their weights.
pub struct Route<'a> {
    /// One score per expert.
    pub scores: &'a [f32],
    /// Added to the weights for the choice alone.
    pub bias: Option<&'a [f32]>,
    /// Factors on the weights, by expert.
    pub factors: Option<&'a [f32]>,
    pub routing: Routing,
    pub out: &'a mut [f32],
}

impl Kernel for Route<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (n, routing) = (self.scores.len(), &self.routing);
        let mut weights = [0.0; MAX_EXPERTS];
        let weights = &mut weights[..n];
        weights.copy_from_slice(self.scores);
        match routing.gating {
            Gating::Softmax => softmax(isa, weights),
            Gating::Sigmoid => sigmoid(isa, weights),
            Gating::SoftmaxOfChosen => {}
        }
        let mut keys = [0.0; MAX_EXPERTS];
        let keys = &mut keys[..n];
        keys.copy_from_slice(weights);
        if let Some(bias) = self.bias {
            keys.iter_mut().zip(bias).for_each(|(key, b)| *key += b);
        }
        if routing.n_groups > 1 {
            leave_groups(keys, routing);
        }
        let (ids, chosen) = self.out.split_at_mut(routing.n_used);
        let mut free = [true; MAX_EXPERTS];
        for (id, chosen) in ids.iter_mut().zip(&mut *chosen) {
            let best = best(keys, &free[..n]);
            free[best] = false;
            *id = best as f32;
            *chosen = weights[best];
        }
        if routing.gating == Gating::SoftmaxOfChosen {
            softmax(isa, chosen);
        }
        let mut factor = routing.scale;
        if routing.normalise {
            let sum: f32 = chosen.iter().sum();
            factor /= sum.max(Routing::MIN_SUM);
        }
        chosen.iter_mut().for_each(|w| *w *= factor);
        if let Some(factors) = self.factors {
            let pairs = chosen.iter_mut().zip(ids);
            pairs.for_each(|(w, id)| *w *= factors[*id as usize]);
        }
    }
}

/// The free place with the largest key, equal ones by rising number. Where keys are not numbers
/// it is the first free one.
#[inline(always)]
fn best(keys: &[f32], free: &[bool]) -> usize {
    let mut best = free.iter().position(|free| *free).unwrap_or(0);
    for (i, key) in keys.iter().enumerate() {
        if free[i] && *key > keys[best] {
            best = i;
        }
    }
    best
}

/// Takes the experts of all but the best groups out of the choice.
#[inline(always)]
fn leave_groups(keys: &mut [f32], routing: &Routing) {
    let size = keys.len() / routing.n_groups;
    let mut sums = [0.0; MAX_EXPERTS];
    let sums = &mut sums[..routing.n_groups];
    for (sum, keys) in sums.iter_mut().zip(keys.chunks_exact(size)) {
        let mut free = [true; MAX_EXPERTS];
        for _ in 0..size.min(2) {
            let best = best(keys, &free[..size]);
            free[best] = false;
            *sum += keys[best];
        }
    }
    let mut left = [true; MAX_EXPERTS];
    for _ in 0..routing.n_groups_used {
        let best = best(sums, &left[..routing.n_groups]);
        left[best] = false;
    }
    for (keys, left) in keys.chunks_exact_mut(size).zip(left) {
        if left {
            keys.fill(f32::NEG_INFINITY);
        }
    }
}

#[inline(always)]
fn softmax<I: Isa>(isa: I, x: &mut [f32]) {
    let largest = x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let mut sum = 0.0;
    for x in x.chunks_mut(LANES) {
        let e = math::exp(isa, isa.sub(load(isa, x), isa.splat(largest)));
        store(isa, e, x);
        x.iter().for_each(|x| sum += x);
    }
    x.iter_mut().for_each(|x| *x /= sum);
}

#[inline(always)]
fn sigmoid<I: Isa>(isa: I, x: &mut [f32]) {
    for x in x.chunks_mut(LANES) {
        let s = math::sigmoid(isa, load(isa, x));
        store(isa, s, x);
    }
}

/// The weighted sum of what a token's experts made, in the order of `route`, plus the residual.
pub struct Combine<'a> {
    /// `[n_used, cols]`
    pub experts: &'a [f32],
    /// Numbers of the experts, then weights.
    pub route: &'a [f32],
    pub residual: Option<&'a [f32]>,
    pub out: &'a mut [f32],
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let cols = self.out.len();
        let weights = &self.route[self.route.len() / 2..];
        self.out.fill(0.0);
        for (x, &weight) in self.experts.chunks_exact(cols).zip(weights) {
            let weight = isa.splat(weight);
            for (out, x) in self.out.chunks_mut(LANES).zip(x.chunks(LANES)) {
                let sum = isa.fma(load(isa, x), weight, load(isa, out));
                store(isa, sum, out);
            }
        }
        if let Some(residual) = self.residual {
            let pairs = self.out.iter_mut().zip(residual);
            pairs.for_each(|(out, residual)| *out += residual);
        }
    }
}
