//! Many rows of activations: integers of some weight rows in memory, times tiles of tokens.
//!
//! A lane is a token. A pair of weights of each row goes through all lanes of its group, so that
//! weights stay in memory as they are decoded.

use bytemuck::{Pod, Zeroable};

use super::HALVES;
use super::round::{Group, Pair};
use crate::cpu::buffer::Shared;
use crate::cpu::format::integer::{
    BLOCK, IntegerFormat, IntegerKernel, VECTORS, weights, with_integer_format,
};
use crate::cpu::matmul::{self, AHEAD, Product, prefetch};
use crate::cpu::simd::{Isa, Kernel, LANES, Lanes};

/// Weight rows of a panel.
pub const ROWS: usize = 32;
/// Weight rows and groups of tokens of a tile: with one vector each, 24 accumulators.
const TILE_ROWS: usize = 8;
const TILE_GROUPS: usize = 3;
/// Weight rows of a tile of one group where registers are few.
const NARROW_ROWS: usize = 4;

/// A block of eight weight rows.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Weights {
    /// `[vector, even or odd, row, pair]`
    values: [[[[Pair; 16]; TILE_ROWS]; 2]; VECTORS],
    /// `[row, pair]`, of which four are used.
    minima: [[Pair; 16]; TILE_ROWS],
    /// `d` and `dmin` by rows.
    factors: [[f32; TILE_ROWS]; 2],
}

/// The sums of a tile: quarters of each row and token.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
struct Sums([[[Lanes; TILE_GROUPS]; TILE_ROWS]; 4]);

/// Vectors of memory for a panel of rows of `n_blocks` and its sums.
pub const fn n_scratch(n_blocks: usize) -> usize {
    let bytes = ROWS / TILE_ROWS * (n_blocks * size_of::<Weights>() + size_of::<Sums>());
    bytes / size_of::<Lanes>()
}

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
        struct Typed<'a, I>(I, Panel<'a>);
        impl<I: Isa> IntegerKernel for Typed<'_, I> {
            type Output = ();
            #[inline(always)]
            fn run<F: IntegerFormat>(self) {
                let Typed(isa, kernel) = self;
                multiply::<I, F>(isa, kernel);
            }
        }
        // `chunk` sends other types elsewhere.
        with_integer_format(self.product.weight.quant, Typed(isa, self));
    }
}

/// Decodes the rows and multiplies them with all tokens, shared out evenly among tiles.
#[inline(always)]
fn multiply<I: Isa, F: IntegerFormat>(isa: I, kernel: Panel<'_>) {
    let Panel { product, rows, .. } = kernel;
    let n_blocks = product.weight.cols / BLOCK;
    let n_vectors = ROWS / TILE_ROWS * n_blocks * size_of::<Weights>() / size_of::<Lanes>();
    let (panel, rest) = kernel.scratch.split_at_mut(n_vectors);
    let panel: &mut [Weights] = bytemuck::cast_slice_mut(panel);
    let n_sums = ROWS / TILE_ROWS * size_of::<Sums>() / size_of::<Lanes>();
    let sums: &mut [Sums] = bytemuck::cast_slice_mut(&mut rest[..n_sums]);
    decode::<I, F>(isa, product, &rows, panel);
    let n_groups = product.n_tokens().div_ceil(LANES);
    let most = if I::WIDE { TILE_GROUPS } else { 1 };
    let tile_groups = n_groups.div_ceil(n_groups.div_ceil(most));
    for first in (0..n_groups).step_by(tile_groups) {
        let tile = Tile {
            product,
            rows: rows.clone(),
            panel,
            first,
        };
        match tile_groups.min(n_groups - first) {
            _ if !I::WIDE => tile.run::<I, F, NARROW_ROWS, 1>(isa, kernel.out, sums),
            1 => tile.run::<I, F, TILE_ROWS, 1>(isa, kernel.out, sums),
            2 => tile.run::<I, F, TILE_ROWS, 2>(isa, kernel.out, sums),
            _ => tile.run::<I, F, TILE_ROWS, TILE_GROUPS>(isa, kernel.out, sums),
        }
    }
}

/// Fills the panel: `[TILE_ROWS rows, block]`. Rows past the last are its copies and never stored.
#[inline(always)]
fn decode<I: Isa, F: IntegerFormat>(
    isa: I,
    product: &Product<'_>,
    rows: &std::ops::Range<usize>,
    panel: &mut [Weights],
) {
    let n_blocks = product.weight.cols / BLOCK;
    for r in 0..ROWS {
        let row = product.weight.row((rows.start + r).min(rows.end - 1));
        prefetch(isa, row.as_ptr().wrapping_add(AHEAD), row.len());
        let blocks = &mut panel[r / TILE_ROWS * n_blocks..][..n_blocks];
        for (block, out) in row.chunks_exact(F::BYTES).zip(blocks) {
            let r = r % TILE_ROWS;
            let scales = F::scales(block);
            out.decode_vector::<I, F, 0>(isa, block, &scales, r);
            out.decode_vector::<I, F, 1>(isa, block, &scales, r);
            out.decode_vector::<I, F, 2>(isa, block, &scales, r);
            out.decode_vector::<I, F, 3>(isa, block, &scales, r);
            let minima = scales[8..].as_chunks().0;
            for (out, &[a, b]) in out.minima[r].iter_mut().zip(minima) {
                *out = [a.into(), b.into()];
            }
            for (out, factor) in out.factors.iter_mut().zip(F::factors(block)) {
                out[r] = isa.half(factor);
            }
        }
    }
}

impl Weights {
    #[inline(always)]
    fn decode_vector<I: Isa, F: IntegerFormat, const V: usize>(
        &mut self,
        isa: I,
        block: &[u8],
        scales: &[u8; 16],
        r: usize,
    ) {
        let [even, odd] = weights::<I, F, V>(isa, block, scales);
        isa.store_shorts(even, bytemuck::cast_mut(&mut self.values[V][0][r]));
        isa.store_shorts(odd, bytemuck::cast_mut(&mut self.values[V][1][r]));
    }
}

/// A panel and the tokens from group `first` on.
struct Tile<'a> {
    product: &'a Product<'a>,
    rows: std::ops::Range<usize>,
    panel: &'a [Weights],
    first: usize,
}

impl Tile<'_> {
    /// Products of the panel with `G` groups, of `R` rows at once.
    #[inline(always)]
    fn run<I: Isa, F: IntegerFormat, const R: usize, const G: usize>(
        &self,
        isa: I,
        out: &Shared<'_>,
        sums: &mut [Sums],
    ) {
        let n_blocks = self.product.weight.cols / BLOCK;
        let mut x = [self.product.group(self.first); G];
        for (g, x) in x.iter_mut().enumerate() {
            *x = self.product.group(self.first + g);
        }
        sums.fill(Sums::zeroed());
        for b in 0..n_blocks {
            let mut blocks = [&x[0][b]; G];
            for (block, x) in blocks.iter_mut().zip(&x) {
                *block = &x[b];
            }
            for q in 0..4 {
                for (weights, sums) in self.panel.chunks_exact(n_blocks).zip(&mut *sums) {
                    for r in (0..TILE_ROWS).step_by(R) {
                        multiply_quarter::<I, F, R, G>(isa, &weights[b], r, &blocks, q, sums);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for g in 0..G {
                self.store(isa, out, i * TILE_ROWS, g, sums);
            }
        }
    }

    /// Stores the products of the rows from `r` on, as many as there are, with group `g`.
    #[inline(always)]
    fn store<I: Isa>(&self, isa: I, out: &Shared<'_>, r: usize, g: usize, Sums(sums): &Sums) {
        let mut lanes = [[0.0; LANES]; TILE_ROWS];
        for (i, lanes) in lanes.iter_mut().enumerate() {
            let quarter = |q: usize| isa.load(&sums[q][i][g]);
            let [even, odd] = [
                isa.add(quarter(0), quarter(2)),
                isa.add(quarter(1), quarter(3)),
            ];
            isa.store(isa.add(even, odd), lanes);
        }
        let first = (self.first + g) * LANES;
        let n = LANES.min(self.product.n_tokens() - first);
        let fours: &[[Lanes; matmul::ROWS]] = lanes.as_chunks().0;
        for (row, four) in (r..self.rows.len()).step_by(matmul::ROWS).zip(fours) {
            let row = self.rows.start + row;
            for t in 0..n {
                let sums = four.each_ref().map(|lanes| lanes[t]);
                self.product.finish(out, first + t, row, sums);
            }
        }
    }
}

/// Adds the products of a quarter of a block of `R` rows from `r` on, and of minima.
#[inline(always)]
fn multiply_quarter<I: Isa, F: IntegerFormat, const R: usize, const G: usize>(
    isa: I,
    w: &Weights,
    r: usize,
    x: &[&Group; G],
    q: usize,
    Sums(sums): &mut Sums,
) {
    let mut acc = [[isa.splat_int(0); G]; R];
    for vector in 0..VECTORS {
        for odd in 0..2 {
            for j in 0..4 {
                let mut lanes = [isa.load_shorts_here(values(&x[0].values[q][vector][odd][j])); G];
                for g in 1..G {
                    lanes[g] = isa.load_shorts_here(values(&x[g].values[q][vector][odd][j]));
                }
                let w = rows::<R>(&w.values[vector][odd], r);
                isa.dot_rows(&mut acc, w, 4 * q + j, &lanes);
            }
        }
    }
    for i in 0..R {
        for g in 0..G {
            let factor = isa.mul(isa.splat(w.factors[0][r + i]), isa.load(&x[g].steps));
            add(isa, acc[i][g], factor, &mut sums[q][r + i][g]);
        }
    }
    if F::HAS_MINIMA && q < HALVES.len() {
        let mut acc = [[isa.splat_int(0); G]; R];
        for j in 0..4 {
            let mut lanes = [isa.load_shorts_here(values(&x[0].sums[4 * q + j])); G];
            for g in 1..G {
                lanes[g] = isa.load_shorts_here(values(&x[g].sums[4 * q + j]));
            }
            isa.dot_rows(&mut acc, rows::<R>(&w.minima, r), j, &lanes);
        }
        for i in 0..R {
            for g in 0..G {
                let factor = isa.mul(isa.splat(w.factors[1][r + i]), isa.load(&x[g].steps));
                let factor = isa.mul(factor, isa.splat(HALVES[q]));
                add(isa, acc[i][g], factor, &mut sums[q][r + i][g]);
            }
        }
    }
}

/// `R` rows from `r` on.
#[inline(always)]
fn rows<const R: usize>(all: &[[Pair; 16]; TILE_ROWS], r: usize) -> &[[Pair; 16]; R] {
    let rows = all[r..].first_chunk();
    rows.expect("a tile's rows divide those of a block")
}

#[inline(always)]
fn values(pairs: &[Pair; LANES]) -> &[i16; 2 * LANES] {
    bytemuck::cast_ref(pairs)
}

/// Adds integers times a factor.
#[inline(always)]
fn add<I: Isa>(isa: I, acc: I::I, factor: I::F, sum: &mut Lanes) {
    let next = isa.fma(isa.to_float(acc), factor, isa.load(sum));
    isa.store(next, sum);
}
