//! Products with few rows of activations: weights decoded in registers.

use super::{AHEAD, FEW_TOKENS, Product, ROWS, prefetch, split_tail};
use crate::cpu::buffer::Shared;
use crate::cpu::format::{Format, FormatKernel, with_direct_format};
use crate::cpu::simd::{Isa, Kernel, Lanes};

/// Blocks whose scales are widened together.
const RUN: usize = 32;

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
        impl<I: Isa> FormatKernel for Typed<'_, I> {
            type Output = ();
            #[inline(always)]
            fn run<F: Format>(self) {
                vector::<I, F>(self.0, &self.1);
            }
        }
        // `matmul` sends other types to panels.
        with_direct_format(self.product.weight.quant, Typed(isa, self));
    }
}

/// As many rows and tokens at once as there are registers for sums: a weight is decoded once for
/// all tokens, and several sums hide the latency of the multiply-add.
#[inline(always)]
fn vector<I: Isa, F: Format>(isa: I, kernel: &Vector<'_>) {
    match kernel.product.n_tokens() {
        1 => vector_of::<I, F, 4, 1>(isa, kernel),
        _ if !I::WIDE => unreachable!("`matmul` sends tokens to panels where registers are few"),
        2 => vector_of::<I, F, 4, 2>(isa, kernel),
        3..=4 => vector_of::<I, F, 4, 4>(isa, kernel),
        5..=6 => vector_of::<I, F, 2, 6>(isa, kernel),
        _ => vector_of::<I, F, 2, FEW_TOKENS>(isa, kernel),
    }
}

/// Groups of rows, `R` rows at once with `T` tokens. The rows of an incomplete group and the last
/// token are repeated.
#[inline(always)]
fn vector_of<I: Isa, F: Format, const R: usize, const T: usize>(isa: I, kernel: &Vector<'_>) {
    let product = kernel.product;
    let n = product.n_tokens();
    let mut x = [product.vectors(0); T];
    for (t, x) in x.iter_mut().enumerate() {
        *x = product.vectors(t.min(n - 1));
    }
    let last = kernel.rows.end - 1;
    for row in kernel.rows.clone().step_by(ROWS) {
        let mut sums = [[0.0; ROWS]; T];
        for first in (0..ROWS).step_by(R) {
            let mut rows = [product.weight.row(row); R];
            for (r, bytes) in rows.iter_mut().enumerate() {
                *bytes = product.weight.row((row + first + r).min(last));
            }
            dot_rows::<I, F, R, T>(isa, rows, &x, first, &mut sums);
        }
        for (t, sums) in sums.iter().enumerate().take(n) {
            product.finish(kernel.out, t, row, *sums);
        }
    }
}

/// Products of some rows with some tokens, into places `first ..` of each token's sums.
#[inline(always)]
fn dot_rows<I: Isa, F: Format, const R: usize, const T: usize>(
    isa: I,
    rows: [&[u8]; R],
    x: &[&[Lanes]; T],
    first: usize,
    sums: &mut [[f32; ROWS]; T],
) {
    let mut acc = [[isa.splat(0.0); R]; T];
    let n_blocks = rows[0].len() / F::BYTES;
    let ahead = rows[0]
        .as_ptr()
        .wrapping_add(AHEAD + (R - 1) * rows[0].len());
    // Only where nothing else hides the time that a scale takes to widen.
    let stage = F::SCALED && T == 1;
    let mut scales = [[0.0; RUN]; R];
    for b in 0..n_blocks {
        if stage && b % RUN == 0 {
            let n = RUN.min(n_blocks - b);
            for r in 0..R {
                widen_scales::<I, F>(isa, &rows[r][b * F::BYTES..], n, &mut scales[r]);
            }
        }
        prefetch(isa, ahead.wrapping_add(R * b * F::BYTES), R * F::BYTES);
        let mut blocks = rows;
        for block in &mut blocks {
            *block = &block[b * F::BYTES..][..F::BYTES];
        }
        let mut heads = [head::<I, F>(isa, blocks[0], stage.then_some(scales[0][b % RUN])); R];
        for r in 1..R {
            heads[r] = head::<I, F>(isa, blocks[r], stage.then_some(scales[r][b % RUN]));
        }
        dot_block::<I, F, R, T>(isa, blocks, heads, x, b * F::SPANS, &mut acc);
    }
    if n_blocks * 2 * F::SPANS < x[0].len() {
        let tails = rows.map(|row| split_tail::<F>(row).1.unwrap_or([0; 128]));
        let blocks = tails.each_ref().map(|tail| &tail[..F::BYTES]);
        let mut heads = [F::head(isa, blocks[0]); R];
        for r in 1..R {
            heads[r] = F::head(isa, blocks[r]);
        }
        dot_block::<I, F, R, T>(isa, blocks, heads, x, n_blocks * F::SPANS, &mut acc);
    }
    if R == ROWS {
        for t in 0..T {
            sums[t] = isa.sum4([acc[t][0], acc[t][1], acc[t][2], acc[t][3]]);
        }
        return;
    }
    for t in (0..T).step_by(2) {
        let four = isa.sum4([acc[t][0], acc[t][1], acc[t + 1][0], acc[t + 1][1]]);
        sums[t][first..first + 2].copy_from_slice(&four[..2]);
        sums[t + 1][first..first + 2].copy_from_slice(&four[2..]);
    }
}

/// What is decoded once of a block, whose scale may be known.
#[inline(always)]
fn head<I: Isa, F: Format>(isa: I, block: &[u8], scale: Option<f32>) -> F::Head<I> {
    match scale {
        Some(scale) => F::scaled_head(isa, block, scale),
        None => F::head(isa, block),
    }
}

/// The half floats that begin `n` blocks, widened four at once. They meet in a register: a load of
/// what several stores have just written would wait for all of them.
#[inline(always)]
fn widen_scales<I: Isa, F: Format>(isa: I, blocks: &[u8], n: usize, out: &mut [f32; RUN]) {
    let (fours, rest) = blocks[..n * F::BYTES].split_at(n / 4 * 4 * F::BYTES);
    let (out_fours, out_rest) = out.split_at_mut(n / 4 * 4);
    let out_fours = out_fours.as_chunks_mut::<4>().0;
    for (four, out) in fours.chunks_exact(4 * F::BYTES).zip(out_fours) {
        let at = |i: usize| u16::from_le_bytes([four[i * F::BYTES], four[i * F::BYTES + 1]]);
        *out = isa.four_halves([at(0), at(1), at(2), at(3)]);
    }
    for (block, out) in rest.chunks_exact(F::BYTES).zip(out_rest) {
        *out = isa.half(u16::from_le_bytes([block[0], block[1]]));
    }
}

/// Adds the products of a block of each row, whose first span is number `span` of the row.
#[expect(
    clippy::needless_range_loop,
    reason = "iterators over vectors stay calls; plain indices unroll"
)]
#[inline(always)]
fn dot_block<I: Isa, F: Format, const R: usize, const T: usize>(
    isa: I,
    blocks: [&[u8]; R],
    heads: [F::Head<I>; R],
    x: &[&[Lanes]; T],
    span: usize,
    acc: &mut [[I::F; R]; T],
) {
    let mut vectors: [&[[Lanes; 2]]; T] = [&[]; T];
    for (vectors, x) in vectors.iter_mut().zip(x) {
        *vectors = &x.as_chunks().0[span..span + F::SPANS];
    }
    for j in 0..F::SPANS {
        // All rows are decoded first: a vector of activations is loaded once for them.
        let mut w = [F::span(isa, blocks[0], &heads[0], j); R];
        for r in 1..R {
            w[r] = F::span(isa, blocks[r], &heads[r], j);
        }
        for half in 0..2 {
            for t in 0..T {
                let x = isa.load(&vectors[t][j][half]);
                for r in 0..R {
                    acc[t][r] = isa.fma(w[r][half], x, acc[t][r]);
                }
            }
        }
    }
}
