//! Products with many rows of activations: a panel of weights decoded to memory, then tiles.

use super::{AHEAD, Product, ROWS, TOKENS, prefetch, split_tail};
use crate::cpu::buffer::Shared;
use crate::cpu::format::{Format, FormatKernel, with_format};
use crate::cpu::simd::{Isa, Kernel, LANES, Lanes};
use crate::cpu::weight::WeightRows;
use crate::quant::SPAN;

/// Vectors of a row that a tile works through at once: 6 tokens of 64 vectors are 24 KiB, half of a
/// first-level cache of today.
const DEPTH: usize = 64;

/// Some rows of a product with many tokens.
pub struct Panel<'a> {
    pub product: &'a Product<'a>,
    pub out: &'a Shared<'a>,
    pub rows: std::ops::Range<usize>,
    pub scratch: &'a mut [Lanes],
}

impl Kernel for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let n_groups = self.rows.len().div_ceil(ROWS);
        let n_vectors = self.product.weight.cols.div_ceil(SPAN) * SPAN / LANES;
        let (panel, rest) = self.scratch.split_at_mut(n_groups * ROWS * n_vectors);
        struct Decode<'a, I>(
            I,
            &'a WeightRows<'a>,
            std::ops::Range<usize>,
            &'a mut [Lanes],
        );
        impl<I: Isa> FormatKernel for Decode<'_, I> {
            type Output = ();
            #[inline(always)]
            fn run<F: Format>(self) {
                decode_panel::<I, F>(self.0, self.1, self.2, self.3);
            }
        }
        let weight = &self.product.weight;
        with_format(weight.quant, Decode(isa, weight, self.rows.clone(), panel));
        let acc = rest.as_chunks_mut::<{ ROWS * TOKENS }>().0;
        multiply_panel(isa, self.product, self.out, self.rows.start, panel, acc);
    }
}

/// Decodes rows into groups of four, vector by vector: `[n_groups, n_vectors, ROWS]`, so that a
/// tile reads one stream. Rows past the last are its copies and never stored.
#[inline(always)]
fn decode_panel<I: Isa, F: Format>(
    isa: I,
    weight: &WeightRows<'_>,
    rows: std::ops::Range<usize>,
    panel: &mut [Lanes],
) {
    let n_groups = rows.len().div_ceil(ROWS);
    let group_len = panel.len() / n_groups;
    for (g, group) in panel.chunks_exact_mut(group_len).enumerate() {
        for r in 0..ROWS {
            let row = weight.row((rows.start + g * ROWS + r).min(rows.end - 1));
            let (blocks, tail) = split_tail::<F>(row);
            prefetch(isa, row.as_ptr().wrapping_add(AHEAD), row.len());
            let spans = group.as_chunks_mut::<{ 2 * ROWS }>().0;
            let mut spans = spans.chunks_mut(F::SPANS);
            for (block, spans) in blocks.chunks_exact(F::BYTES).zip(&mut spans) {
                decode_block::<I, F>(isa, block, r, spans);
            }
            if let (Some(tail), Some(spans)) = (tail, spans.next()) {
                decode_block::<I, F>(isa, &tail[..F::BYTES], r, spans);
            }
        }
    }
}

#[inline(always)]
fn decode_block<I: Isa, F: Format>(
    isa: I,
    block: &[u8],
    r: usize,
    spans: &mut [[Lanes; 2 * ROWS]],
) {
    let head = F::head(isa, block);
    for (j, span) in spans.iter_mut().enumerate() {
        let [low, high] = F::span(isa, block, &head, j);
        isa.store(low, &mut span[r]);
        isa.store(high, &mut span[ROWS + r]);
    }
}

/// Multiplies a panel with all tokens. Long rows go in pieces of [`DEPTH`] vectors, the sums
/// resting in `acc` between pieces (`acc[group]` is `[TOKENS, ROWS]`).
#[inline(always)]
fn multiply_panel<I: Isa>(
    isa: I,
    product: &Product<'_>,
    out: &Shared<'_>,
    first_row: usize,
    panel: &[Lanes],
    acc: &mut [[Lanes; ROWS * TOKENS]],
) {
    let n_vectors = product.weight.cols.div_ceil(SPAN) * SPAN / LANES;
    let n_pieces = n_vectors.div_ceil(DEPTH);
    let depth = n_vectors.div_ceil(n_pieces);
    // Tokens are shared out evenly: 4 and 4 of 8, not 6 and 2.
    let n_tiles = product.n_tokens().div_ceil(TOKENS);
    let tile_tokens = product.n_tokens().div_ceil(n_tiles);
    for token in (0..product.n_tokens()).step_by(tile_tokens) {
        let n = tile_tokens.min(product.n_tokens() - token);
        let x: [&[Lanes]; TOKENS] = std::array::from_fn(|t| product.vectors(token + t.min(n - 1)));
        for start in (0..n_vectors).step_by(depth) {
            let end = n_vectors.min(start + depth);
            let piece = Piece {
                x: x.map(|x| &x[start..end]),
                n,
                is_first: start == 0,
                is_last: end == n_vectors,
            };
            let groups = panel.chunks_exact(ROWS * n_vectors).zip(&mut *acc);
            for (g, (group, acc)) in groups.enumerate() {
                let w = group[ROWS * start..ROWS * end].as_chunks().0;
                let sums = tiles(isa, w, &piece, acc);
                if piece.is_last {
                    for (t, sums) in sums.iter().take(n).enumerate() {
                        product.finish(out, token + t, first_row + g * ROWS, *sums);
                    }
                }
            }
        }
    }
}

/// Up to [`TOKENS`] tokens and the vectors of theirs that are multiplied now.
struct Piece<'a> {
    x: [&'a [Lanes]; TOKENS],
    n: usize,
    is_first: bool,
    is_last: bool,
}

/// The sums of each token with the rows of a group, once they are complete.
type Sums = [[f32; ROWS]; TOKENS];

/// One group of rows with a piece, in tiles that fit the registers.
#[inline(always)]
fn tiles<I: Isa>(
    isa: I,
    w: &[[Lanes; ROWS]],
    piece: &Piece<'_>,
    acc: &mut [Lanes; ROWS * TOKENS],
) -> Sums {
    let mut sums = [[0.0; ROWS]; TOKENS];
    if I::WIDE {
        match piece.n {
            1 => tile::<I, 4, 1>(isa, w, 0, piece, 0, acc, &mut sums),
            2 => tile::<I, 4, 2>(isa, w, 0, piece, 0, acc, &mut sums),
            3 => tile::<I, 4, 3>(isa, w, 0, piece, 0, acc, &mut sums),
            4 => tile::<I, 4, 4>(isa, w, 0, piece, 0, acc, &mut sums),
            5 => tile::<I, 4, 5>(isa, w, 0, piece, 0, acc, &mut sums),
            _ => tile::<I, 4, 6>(isa, w, 0, piece, 0, acc, &mut sums),
        }
        return sums;
    }
    for r in [0, 2] {
        for t in (0..piece.n).step_by(3) {
            match piece.n - t {
                1 => tile::<I, 2, 1>(isa, w, r, piece, t, acc, &mut sums),
                2 => tile::<I, 2, 2>(isa, w, r, piece, t, acc, &mut sums),
                _ => tile::<I, 2, 3>(isa, w, r, piece, t, acc, &mut sums),
            }
        }
    }
    sums
}

/// `R` rows from `r` on with `T` tokens from `t` on: `R * T` sums in registers.
#[inline(always)]
fn tile<I: Isa, const R: usize, const T: usize>(
    isa: I,
    w: &[[Lanes; ROWS]],
    r: usize,
    piece: &Piece<'_>,
    t: usize,
    acc: &mut [Lanes; ROWS * TOKENS],
    out: &mut Sums,
) {
    let mut x = [&piece.x[t][..w.len()]; T];
    for (i, x) in x.iter_mut().enumerate() {
        *x = &piece.x[t + i][..w.len()];
    }
    let mut sums = [[isa.splat(0.0); R]; T];
    if !piece.is_first {
        for i in 0..T {
            for j in 0..R {
                sums[i][j] = isa.load(&acc[(t + i) * ROWS + r + j]);
            }
        }
    }
    for (k, w) in w.iter().enumerate() {
        let mut rows = [isa.splat(0.0); R];
        for j in 0..R {
            rows[j] = isa.load(&w[r + j]);
        }
        for i in 0..T {
            let x = isa.load(&x[i][k]);
            for j in 0..R {
                sums[i][j] = isa.fma(rows[j], x, sums[i][j]);
            }
        }
    }
    for i in 0..T {
        if !piece.is_last {
            for j in 0..R {
                isa.store(sums[i][j], &mut acc[(t + i) * ROWS + r + j]);
            }
        } else if R == ROWS {
            out[t + i] = isa.sum4([sums[i][0], sums[i][1], sums[i][2], sums[i][3]]);
        } else {
            for j in 0..R {
                out[t + i][r + j] = isa.sum(sums[i][j]);
            }
        }
    }
}
