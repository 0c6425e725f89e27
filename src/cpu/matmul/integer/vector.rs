//! Few rows of activations: weights become integers in registers.

use super::{Block, FEW_TOKENS, HALVES};
use crate::cpu::buffer::Shared;
use crate::cpu::format::integer::{IntegerFormat, IntegerKernel, weights, with_integer_format};
use crate::cpu::matmul::{AHEAD, Product, ROWS, prefetch};
use crate::cpu::simd::{Isa, Kernel, Lanes};

/// [`HALVES`] in their quarters.
const QUARTERS: Lanes = {
    let [upper, lower] = HALVES;
    [
        upper, upper, upper, upper, lower, lower, lower, lower, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
        0.0,
    ]
};

/// Some rows of a product with few tokens.
pub struct Vector<'a> {
    pub product: &'a Product<'a>,
    pub out: &'a Shared<'a>,
    pub rows: std::ops::Range<usize>,
}

impl Kernel for Vector<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        struct Typed<'a, I>(I, Vector<'a>);
        impl<I: Isa> IntegerKernel for Typed<'_, I> {
            type Output = ();
            #[inline(always)]
            fn run<F: IntegerFormat>(self) {
                let Typed(isa, kernel) = self;
                match kernel.product.n_tokens() {
                    1 => groups::<I, F, 1>(isa, &kernel),
                    2 => groups::<I, F, 2>(isa, &kernel),
                    3..=4 => groups::<I, F, 4>(isa, &kernel),
                    _ => groups::<I, F, FEW_TOKENS>(isa, &kernel),
                }
            }
        }
        // `chunk` sends other types elsewhere.
        with_integer_format(self.product.weight.quant, Typed(isa, self));
    }
}

/// Groups of four rows with `T` tokens. The rows of an incomplete group and the last token are
/// repeated.
#[inline(always)]
fn groups<I: Isa, F: IntegerFormat, const T: usize>(isa: I, kernel: &Vector<'_>) {
    let product = kernel.product;
    let n = product.n_tokens();
    let mut x = [product.blocks(0); T];
    for (t, x) in x.iter_mut().enumerate() {
        *x = product.blocks(t.min(n - 1));
    }
    let last = kernel.rows.end - 1;
    for row in kernel.rows.clone().step_by(ROWS) {
        let mut rows = [product.weight.row(row); ROWS];
        for (r, bytes) in rows.iter_mut().enumerate() {
            *bytes = product.weight.row((row + r).min(last));
        }
        let sums = group::<I, F, T>(isa, rows, &x);
        for (t, sums) in sums.iter().enumerate().take(n) {
            product.finish(kernel.out, t, row, *sums);
        }
    }
}

/// Products of four rows with some tokens.
#[inline(always)]
fn group<I: Isa, F: IntegerFormat, const T: usize>(
    isa: I,
    rows: [&[u8]; ROWS],
    x: &[&[Block]; T],
) -> [[f32; ROWS]; T] {
    // Lane `4 q + r` is quarter q of row r.
    let mut acc = [isa.splat(0.0); T];
    let n_blocks = rows[0].len() / F::BYTES;
    let ahead = rows[0].as_ptr().wrapping_add(AHEAD + 3 * rows[0].len());
    let halves = isa.load(&QUARTERS);
    for b in 0..n_blocks {
        prefetch(
            isa,
            ahead.wrapping_add(ROWS * b * F::BYTES),
            ROWS * F::BYTES,
        );
        let mut sums = [[isa.splat_int(0); ROWS]; T];
        let mut minima = [0; ROWS];
        let mut factors = [[0; ROWS]; 2];
        for r in 0..ROWS {
            let block = &rows[r][b * F::BYTES..][..F::BYTES];
            let [d, d_min] = F::factors(block);
            (factors[0][r], factors[1][r]) = (d, d_min);
            let scales = F::scales(block);
            minima[r] = (u128::from_le_bytes(scales) >> 64) as u64;
            let mut sum = [isa.splat_int(0); T];
            add_vector::<I, F, 0, T>(isa, block, &scales, x, b, &mut sum);
            add_vector::<I, F, 1, T>(isa, block, &scales, x, b, &mut sum);
            add_vector::<I, F, 2, T>(isa, block, &scales, x, b, &mut sum);
            add_vector::<I, F, 3, T>(isa, block, &scales, x, b, &mut sum);
            for t in 0..T {
                sums[t][r] = sum[t];
            }
        }
        let d = isa.splat_four(isa.four_halves(factors[0]));
        let d_min = isa.splat_four(isa.four_halves(factors[1]));
        for t in 0..T {
            let step = isa.splat(x[t][b].step);
            let sum = isa.to_float(isa.sum_quarters(sums[t]));
            acc[t] = isa.fma(sum, isa.mul(d, step), acc[t]);
            if F::HAS_MINIMA {
                let sum = isa.to_float(isa.sum_minima(&minima, &x[t][b].sums));
                let factor = isa.mul(isa.mul(d_min, step), halves);
                acc[t] = isa.fma(sum, factor, acc[t]);
            }
        }
    }
    let mut out = [[0.0; ROWS]; T];
    for t in 0..T {
        let mut lanes = [0.0; 16];
        isa.store(acc[t], &mut lanes);
        for r in 0..ROWS {
            out[t][r] = (lanes[r] + lanes[8 + r]) + (lanes[4 + r] + lanes[12 + r]);
        }
    }
    out
}

/// Adds the products of a vector of codes of block `b`.
#[inline(always)]
fn add_vector<I: Isa, F: IntegerFormat, const V: usize, const T: usize>(
    isa: I,
    block: &[u8],
    scales: &[u8; 16],
    x: &[&[Block]; T],
    b: usize,
    sum: &mut [I::I; T],
) {
    let [even, odd] = weights::<I, F, V>(isa, block, scales);
    for t in 0..T {
        let [x_even, x_odd] = &x[t][b].values[V];
        sum[t] = isa.dot_pairs(sum[t], even, isa.load_shorts(x_even));
        sum[t] = isa.dot_pairs(sum[t], odd, isa.load_shorts(x_odd));
    }
}
