//! Many rows of activations: integers of 32 weight rows, side by side in memory, times tiles of
//! tokens.
//!
//! A lane is a weight row. Of a block the panel has `[quarter, vector, pair, half of the rows]` pairs
//! of weights, then the pairs of minima, then `d` and `dmin`.

use super::{Block, HALVES};
use crate::cpu::buffer::Shared;
use crate::cpu::format::integer::{
    IntegerFormat, IntegerKernel, VECTORS, weights, with_integer_format,
};
use crate::cpu::matmul::{self, AHEAD, Product, prefetch};
use crate::cpu::simd::{Isa, Kernel, LANES, Lanes};

/// Weight rows of a panel, in vectors and in all.
const SIDES: usize = 2;
pub const ROWS: usize = SIDES * LANES;
/// Vectors of weights in a quarter of a block: four pairs of each of its vectors.
const QUARTER: usize = 2 * VECTORS * 4;
const MINIMA: usize = 4;
/// Vectors of a block in the panel.
pub const BLOCK_VECTORS: usize = (4 * QUARTER + MINIMA + 2) * SIDES;
/// Tokens of a tile, where there are many registers and where not.
const TOKENS: usize = 12;
const NARROW_TOKENS: usize = 2;

/// Some rows of a product with many tokens.
pub struct Panel<'a> {
    pub product: &'a Product<'a>,
    pub out: &'a Shared<'a>,
    pub rows: std::ops::Range<usize>,
    pub scratch: &'a mut [Lanes],
}

/// The sums of a tile: quarters of each token and row.
type Sums<const T: usize> = [[[Lanes; SIDES]; 4]; T];

impl Kernel for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        struct Typed<'a, I>(I, Panel<'a>);
        impl<I: Isa> IntegerKernel for Typed<'_, I> {
            type Output = ();
            #[inline(always)]
            fn run<F: IntegerFormat>(self) {
                let Typed(isa, mut kernel) = self;
                decode::<I, F>(isa, &mut kernel);
                match I::WIDE {
                    true => multiply::<I, F, TOKENS>(isa, &kernel),
                    false => multiply::<I, F, NARROW_TOKENS>(isa, &kernel),
                }
            }
        }
        // `chunk` sends other types elsewhere.
        with_integer_format(self.product.weight.quant, Typed(isa, self));
    }
}

/// Fills the panel. Rows past the last are its copies and never stored.
#[inline(always)]
fn decode<I: Isa, F: IntegerFormat>(isa: I, kernel: &mut Panel<'_>) {
    let weight = &kernel.product.weight;
    for r in 0..ROWS {
        let row = weight.row((kernel.rows.start + r).min(kernel.rows.end - 1));
        prefetch(isa, row.as_ptr().wrapping_add(AHEAD), row.len());
        let (side, lane) = (r / LANES, r % LANES);
        let blocks = kernel.scratch.as_chunks_mut::<BLOCK_VECTORS>().0;
        for (block, panel) in row.chunks_exact(F::BYTES).zip(blocks) {
            let (factors, pairs) = panel.split_at_mut(2 * SIDES);
            for (i, factor) in F::factors(block).into_iter().enumerate() {
                factors[i * SIDES + side][lane] = isa.half(factor);
            }
            let scales = F::scales(block);
            let mut rows = Row { pairs, side, lane };
            rows.put::<I, F, 0>(isa, block, &scales);
            rows.put::<I, F, 1>(isa, block, &scales);
            rows.put::<I, F, 2>(isa, block, &scales);
            rows.put::<I, F, 3>(isa, block, &scales);
            if F::HAS_MINIMA {
                for (i, &[a, b]) in scales[8..].as_chunks().0.iter().enumerate() {
                    rows.put_pair(4 * QUARTER + i, [a.into(), b.into()]);
                }
            }
        }
    }
}

/// A row's places among the pairs of a block.
struct Row<'a> {
    pairs: &'a mut [Lanes],
    side: usize,
    lane: usize,
}

impl Row<'_> {
    #[inline(always)]
    fn put_pair(&mut self, at: usize, [a, b]: [i16; 2]) {
        let pair = u32::from(a as u16) | u32::from(b as u16) << 16;
        self.pairs[at * SIDES + self.side][self.lane] = f32::from_bits(pair);
    }

    /// The weights of vector `V` of codes.
    #[inline(always)]
    fn put<I: Isa, F: IntegerFormat, const V: usize>(
        &mut self,
        isa: I,
        block: &[u8],
        scales: &[u8; 16],
    ) {
        let [even, odd] = weights::<I, F, V>(isa, block, scales);
        let mut shorts = [[0; 32]; 2];
        isa.store_shorts(even, &mut shorts[0]);
        isa.store_shorts(odd, &mut shorts[1]);
        for (odd, shorts) in shorts.iter().enumerate() {
            for (j, &pair) in shorts.as_chunks::<2>().0.iter().enumerate() {
                self.put_pair(j / 4 * QUARTER + (2 * V + odd) * 4 + j % 4, pair);
            }
        }
    }
}

/// Multiplies the panel with all tokens, shared out evenly among tiles; a tile's missing tokens are
/// its last.
#[inline(always)]
fn multiply<I: Isa, F: IntegerFormat, const T: usize>(isa: I, kernel: &Panel<'_>) {
    let product = kernel.product;
    let n_tokens = product.n_tokens();
    let tile_tokens = n_tokens.div_ceil(n_tokens.div_ceil(T));
    for token in (0..n_tokens).step_by(tile_tokens) {
        let n = tile_tokens.min(n_tokens - token);
        let mut x = [product.blocks(token); T];
        for (t, x) in x.iter_mut().enumerate() {
            *x = product.blocks(token + t.min(n - 1));
        }
        let mut sums: Sums<T> = [[[[0.0; LANES]; SIDES]; 4]; T];
        let blocks = kernel.scratch.as_chunks::<BLOCK_VECTORS>().0;
        for (b, panel) in blocks.iter().take(x[0].len()).enumerate() {
            let mut blocks = [&x[0][b]; T];
            for (block, x) in blocks.iter_mut().zip(&x) {
                *block = &x[b];
            }
            tile::<I, F, T>(isa, panel, &blocks, &mut sums);
        }
        for (t, sums) in sums.iter().enumerate().take(n) {
            store(kernel, token + t, sums);
        }
    }
}

/// Adds the products of a block.
#[expect(
    clippy::needless_range_loop,
    reason = "iterators over vectors stay calls; plain indices unroll"
)]
#[inline(always)]
fn tile<I: Isa, F: IntegerFormat, const T: usize>(
    isa: I,
    panel: &[Lanes; BLOCK_VECTORS],
    x: &[&Block; T],
    sums: &mut Sums<T>,
) {
    let (factors, pairs) = panel.split_at(2 * SIDES);
    let pairs: &[[[i16; 32]; SIDES]] = bytemuck::cast_slice(pairs);
    for q in 0..4 {
        let mut acc = [[isa.splat_int(0); SIDES]; T];
        for vector in 0..2 * VECTORS {
            for j in 0..4 {
                let w = &pairs[q * QUARTER + vector * 4 + j];
                dot::<I, T>(isa, w, x, |x| x.pair(vector, 4 * q + j), &mut acc);
            }
        }
        add::<I, T>(isa, &factors[..SIDES], x, 1.0, &acc, q, sums);
    }
    if F::HAS_MINIMA {
        for half in 0..2 {
            let mut acc = [[isa.splat_int(0); SIDES]; T];
            for j in 0..MINIMA {
                let w = &pairs[4 * QUARTER + j];
                let at = 8 * half + 2 * j;
                dot::<I, T>(isa, w, x, |x| [x.sums[at], x.sums[at + 1]], &mut acc);
            }
            add::<I, T>(isa, &factors[SIDES..], x, HALVES[half], &acc, half, sums);
        }
    }
}

/// Adds the products of a pair of weights of each row with one of each token.
#[inline(always)]
fn dot<I: Isa, const T: usize>(
    isa: I,
    w: &[[i16; 32]; SIDES],
    x: &[&Block; T],
    pair: impl Fn(&Block) -> [i16; 2],
    acc: &mut [[I::I; SIDES]; T],
) {
    let w = [isa.load_shorts(&w[0]), isa.load_shorts(&w[1])];
    for t in 0..T {
        let x = isa.splat_pair(pair(x[t]));
        for side in 0..SIDES {
            acc[t][side] = isa.dot_pairs(acc[t][side], w[side], x);
        }
    }
}

/// Adds integers to a quarter of the sums.
#[inline(always)]
fn add<I: Isa, const T: usize>(
    isa: I,
    factors: &[Lanes],
    x: &[&Block; T],
    times: f32,
    acc: &[[I::I; SIDES]; T],
    quarter: usize,
    sums: &mut Sums<T>,
) {
    for t in 0..T {
        for side in 0..SIDES {
            let factor = isa.mul(isa.load(&factors[side]), isa.splat(x[t].step));
            let factor = isa.mul(factor, isa.splat(times));
            let sum = &mut sums[t][quarter][side];
            let next = isa.fma(isa.to_float(acc[t][side]), factor, isa.load(sum));
            isa.store(next, sum);
        }
    }
}

/// Stores a token's products with the rows that there are.
#[inline(always)]
fn store(kernel: &Panel<'_>, token: usize, sums: &[[Lanes; SIDES]; 4]) {
    for r in (0..kernel.rows.len()).step_by(matmul::ROWS) {
        let (side, lane) = (r / LANES, r % LANES);
        let mut four = [0.0; matmul::ROWS];
        for (i, sum) in four.iter_mut().enumerate() {
            let quarter = |q: usize| sums[q][side][lane + i];
            *sum = (quarter(0) + quarter(2)) + (quarter(1) + quarter(3));
        }
        kernel
            .product
            .finish(kernel.out, token, kernel.rows.start + r, four);
    }
}
