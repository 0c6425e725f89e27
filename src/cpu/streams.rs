//! Operations of models with several residual streams, each row alone.

use super::rowwise::{load, map, squares, store, sum};
use super::simd::{Isa, Kernel, LANES};
use crate::backend::Op;

/// `out_i = streams_i + sum_j (mix[i * n + j] + plus) * others_j`, streams of `width` numbers.
pub struct StreamMix<'a> {
    pub streams: &'a [f32],
    pub others: &'a [f32],
    pub mix: &'a [f32],
    pub plus: f32,
    pub width: usize,
    pub out: &'a mut [f32],
}

impl Kernel for StreamMix<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let n_others = self.others.len() / self.width;
        let factors = self.mix.chunks_exact(n_others);
        self.out.copy_from_slice(self.streams);
        for (out, factors) in self.out.chunks_exact_mut(self.width).zip(factors) {
            for (other, factor) in self.others.chunks_exact(self.width).zip(factors) {
                let factor = isa.splat(factor + self.plus);
                for (out, other) in out.chunks_mut(LANES).zip(other.chunks(LANES)) {
                    store(isa, isa.fma(load(isa, other), factor, load(isa, out)), out);
                }
            }
        }
    }
}

/// Each run of as many numbers as `like` has, with its length.
pub struct MatchLength<'a> {
    pub x: &'a [f32],
    pub like: &'a [f32],
    pub out: &'a mut [f32],
}

impl Kernel for MatchLength<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let n = self.like.len();
        let wanted = squares(isa, self.like, 0.0) / n as f32;
        for (x, out) in self.x.chunks_exact(n).zip(self.out.chunks_exact_mut(n)) {
            let square = (squares(isa, x, 0.0) / n as f32).max(Op::LEAST_SQUARE);
            let scale = isa.splat((wanted / square).sqrt());
            map(
                isa,
                x,
                out,
                #[inline(always)]
                |x| isa.mul(x, scale),
            );
        }
    }
}

/// `max(x - mean(x) - cutoff * deviation(x), 0)`
pub struct GaussianTopK<'a> {
    pub x: &'a [f32],
    pub cutoff: f32,
    pub out: &'a mut [f32],
}

impl Kernel for GaussianTopK<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let n = self.x.len() as f32;
        let mean = sum(isa, self.x) / n;
        let deviation = (squares(isa, self.x, mean) / (n - 1.0)).sqrt();
        let least = isa.splat(mean + self.cutoff * deviation);
        let zero = isa.splat(0.0);
        map(
            isa,
            self.x,
            self.out,
            #[inline(always)]
            |x| isa.select_less(x, least, zero, isa.sub(x, least)),
        );
    }
}
