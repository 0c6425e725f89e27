//! Products of activations with quantised weights.
//!
//! Every element is computed alone and always alike: lane `l` of sixteen runs along the row,
//! `acc[l] = fma(w[16 i + l], x[16 i + l], acc[l])` for rising `i`, and [`Isa::sum`] adds the
//! lanes. So neither the number of rows in the batch, nor threads, nor the instruction set, nor
//! which of the two kernels below runs changes a bit.
//!
//! One row of activations: the weights are read once, decoded in registers ([`vector`]). More, or
//! a rare type: a panel of weight rows is decoded to memory that the cache holds, and tiles of rows and tokens
//! are multiplied in registers ([`tile`]).

use super::buffer::{Buffer, Matrix, OutOfMemory, Shared};
use super::format::{Format, FormatKernel, is_direct, with_direct_format, with_format};
use super::pool::{Pool, PoolError};
use super::simd::{InstructionSet, Isa, Kernel, LANES, Lanes};
use super::weight::WeightRows;
use crate::quant::SPAN;

/// Weight rows that go together through either kernel.
const ROWS: usize = 4;
/// Tokens of a tile: with [`ROWS`], 24 accumulators.
const TOKENS: usize = 6;
/// Vectors of a row that a tile works through at once: 6 tokens of 40 vectors are 15 KiB, half
/// of the smallest first-level cache.
const DEPTH: usize = 40;
/// Weight rows of a panel, and its size in vectors: 256 KiB, a share of the second-level cache.
const PANEL_ROWS: usize = 32;
const PANEL_VECTORS: usize = 4096;

/// One product: `out = input * weight^T (+ bias) (+ residual)`.
pub struct Product<'a> {
    pub weight: WeightRows<'a>,
    pub input: Matrix<'a>,
    pub rows: Rows<'a>,
    pub bias: Option<&'a [f32]>,
    pub residual: Option<Matrix<'a>>,
}

/// Which rows of the input a product has, and where their results lie.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// So many, from the first on; results side by side.
    All(usize),
    /// Some of them; results `out_offset` past each place.
    Listed {
        places: &'a [Place],
        out_offset: usize,
    },
}

/// Where a row begins in the floats of input and output.
#[derive(Clone, Copy)]
pub struct Place {
    pub input: usize,
    pub out: usize,
}

/// Computes a product into `out`, `[n_tokens, weight.rows]`. `padded` is memory for inputs whose
/// rows end within a span.
///
/// # Errors
/// Those of the pool.
pub fn matmul<'a>(
    isa: InstructionSet,
    pool: &mut Pool,
    padded: &'a mut Buffer,
    mut product: Product<'a>,
    out: &mut [f32],
) -> Result<(), PoolError> {
    if !product.weight.cols.is_multiple_of(SPAN) {
        product.input = pad(product.input, product.n_tokens(), padded)?;
    }
    let product = &product;
    let out = &Shared::new(out);
    let chunks = Chunks::new(product, 1, pool.n_threads());
    let task = |i: usize, scratch: &mut [Lanes]| {
        chunk(isa, product, out, chunks.rows(i), scratch);
    };
    pool.run(chunks.n, chunks.n_scratch, &task)
}

/// How the weight rows of a product are shared out among threads.
pub struct Chunks {
    pub n: usize,
    /// Vectors of scratch memory that a chunk needs.
    pub n_scratch: usize,
    n_rows: usize,
    chunk_rows: usize,
}

impl Chunks {
    /// The chunks of one of `n_products` products that run together.
    pub fn new(product: &Product<'_>, n_products: usize, n_threads: usize) -> Chunks {
        let n_rows = product.weight.rows;
        let n_vectors = product.weight.cols.div_ceil(SPAN) * SPAN / LANES;
        let most = match product.is_vector() {
            true => (n_rows * n_products / (8 * n_threads)).clamp(1, 64),
            false => (PANEL_VECTORS / n_vectors).clamp(1, PANEL_ROWS),
        };
        let chunk_rows = most.next_multiple_of(ROWS);
        Chunks {
            n: n_rows.div_ceil(chunk_rows),
            n_scratch: match product.is_vector() {
                true => 0,
                false => chunk_rows * (n_vectors + TOKENS),
            },
            n_rows,
            chunk_rows,
        }
    }

    /// Weight rows of chunk `i`.
    pub fn rows(&self, i: usize) -> std::ops::Range<usize> {
        i * self.chunk_rows..self.n_rows.min((i + 1) * self.chunk_rows)
    }
}

/// Computes the columns of some weight rows.
pub fn chunk(
    isa: InstructionSet,
    product: &Product<'_>,
    out: &Shared<'_>,
    rows: std::ops::Range<usize>,
    scratch: &mut [Lanes],
) {
    match product.is_vector() {
        true => isa.run(Vector { product, out, rows }),
        false => isa.run(Panel {
            product,
            out,
            rows,
            scratch,
        }),
    }
}

/// Copies rows to whole spans, the rest zero.
fn pad<'a>(
    input: Matrix<'_>,
    n_tokens: usize,
    padded: &'a mut Buffer,
) -> Result<Matrix<'a>, PoolError> {
    let stride = input.cols.next_multiple_of(SPAN);
    let bytes = (n_tokens * stride * size_of::<f32>()) as u64;
    let grown = padded.grow_floats(n_tokens * stride);
    grown.map_err(|OutOfMemory| PoolError::OutOfMemory(bytes))?;
    for (i, row) in padded
        .floats_mut()
        .chunks_exact_mut(stride)
        .take(n_tokens)
        .enumerate()
    {
        row[..input.cols].copy_from_slice(input.row(i));
        row[input.cols..].fill(0.0);
    }
    Ok(Matrix::new(padded.floats(), stride, 0, stride))
}

impl Product<'_> {
    /// Adds bias and residual to the product of weight rows from `row` on with a token.
    #[inline(always)]
    fn finish(&self, out: &Shared<'_>, token: usize, row: usize, sums: &[f32]) {
        let rows = self.weight.rows;
        let n = sums.len().min(rows - row);
        let start = match self.rows {
            Rows::All(_) => token * rows,
            Rows::Listed { places, out_offset } => places[token].out + out_offset,
        };
        // SAFETY: a chunk writes the columns of its own weight rows, one part at a time.
        let out = unsafe { out.part(start + row, n) };
        out.copy_from_slice(&sums[..n]);
        if let Some(bias) = self.bias {
            out.iter_mut().zip(&bias[row..]).for_each(|(o, b)| *o += b);
        }
        if let Some(residual) = self.residual {
            let residual = &residual.row(token)[row..];
            out.iter_mut().zip(residual).for_each(|(o, r)| *o += r);
        }
    }

    /// A token's activations as vectors.
    #[inline(always)]
    fn vectors(&self, token: usize) -> &[Lanes] {
        let row = match self.rows {
            Rows::All(_) => self.input.row(token),
            Rows::Listed { places, .. } => self.input.at(places[token].input),
        };
        row.as_chunks().0
    }

    /// Whether weights are decoded in registers.
    fn is_vector(&self) -> bool {
        self.n_tokens() == 1 && is_direct(self.weight.quant)
    }

    fn n_tokens(&self) -> usize {
        match self.rows {
            Rows::All(n) => n,
            Rows::Listed { places, .. } => places.len(),
        }
    }
}

/// The blocks of a row and what is left of a last one, which only types without blocks have.
#[inline(always)]
fn split_tail<F: Format>(row: &[u8]) -> (&[u8], Option<[u8; 128]>) {
    let whole = row.len() / F::BYTES * F::BYTES;
    let (blocks, rest) = row.split_at(whole);
    let tail = (!rest.is_empty()).then(|| {
        let mut tail = [0; 128];
        tail[..rest.len()].copy_from_slice(rest);
        tail
    });
    (blocks, tail)
}

/// Some rows of a product with one token.
struct Vector<'a> {
    product: &'a Product<'a>,
    out: &'a Shared<'a>,
    rows: std::ops::Range<usize>,
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

/// Rows in fours: one load of the activations serves four rows, and four sums hide the latency
/// of the multiply-add. The rows of an incomplete four are repeated.
#[inline(always)]
fn vector<I: Isa, F: Format>(isa: I, kernel: &Vector<'_>) {
    let product = kernel.product;
    let x = product.vectors(0);
    let last = kernel.rows.end - 1;
    for row in kernel.rows.clone().step_by(ROWS) {
        let rows: [&[u8]; ROWS] = std::array::from_fn(|r| product.weight.row((row + r).min(last)));
        let sums = dot_rows::<I, F>(isa, rows, x);
        let n = ROWS.min(kernel.rows.end - row);
        product.finish(kernel.out, 0, row, &sums[..n]);
    }
}

#[inline(always)]
fn dot_rows<I: Isa, F: Format>(isa: I, rows: [&[u8]; ROWS], x: &[Lanes]) -> [f32; ROWS] {
    let mut acc = [isa.splat(0.0); ROWS];
    let n_blocks = rows[0].len() / F::BYTES;
    let (blocks, rest) = x.split_at(n_blocks * 2 * F::SPANS);
    for (b, x) in blocks.chunks_exact(2 * F::SPANS).enumerate() {
        let mut blocks = rows;
        for block in &mut blocks {
            *block = &block[b * F::BYTES..][..F::BYTES];
        }
        dot_block::<I, F>(isa, blocks, x, &mut acc);
    }
    if !rest.is_empty() {
        let tails = rows.map(|row| split_tail::<F>(row).1.unwrap_or([0; 128]));
        let blocks = tails.each_ref().map(|tail| &tail[..F::BYTES]);
        dot_block::<I, F>(isa, blocks, rest, &mut acc);
    }
    isa.sum4(acc)
}

#[inline(always)]
fn dot_block<I: Isa, F: Format>(
    isa: I,
    blocks: [&[u8]; ROWS],
    x: &[Lanes],
    acc: &mut [I::F; ROWS],
) {
    let mut heads = [F::head(isa, blocks[0]); ROWS];
    for r in 1..ROWS {
        heads[r] = F::head(isa, blocks[r]);
    }
    for (j, x) in x.as_chunks::<2>().0.iter().enumerate() {
        let x = [isa.load(&x[0]), isa.load(&x[1])];
        for r in 0..ROWS {
            let w = F::span(isa, blocks[r], &heads[r], j);
            acc[r] = isa.fma(w[0], x[0], acc[r]);
            acc[r] = isa.fma(w[1], x[1], acc[r]);
        }
    }
}

/// Some rows of a product with many tokens.
struct Panel<'a> {
    product: &'a Product<'a>,
    out: &'a Shared<'a>,
    rows: std::ops::Range<usize>,
    scratch: &'a mut [Lanes],
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
    for token in (0..product.n_tokens()).step_by(TOKENS) {
        let n = TOKENS.min(product.n_tokens() - token);
        let x: [&[Lanes]; TOKENS] = std::array::from_fn(|t| product.vectors(token + t.min(n - 1)));
        for start in (0..n_vectors).step_by(depth) {
            let end = n_vectors.min(start + depth);
            let x = x.map(|x| &x[start..end]);
            for (group, acc) in panel.chunks_exact(ROWS * n_vectors).zip(&mut *acc) {
                let w = group[ROWS * start..ROWS * end].as_chunks().0;
                tiles(isa, w, x, n, start == 0, acc);
            }
        }
        for (g, acc) in acc
            .iter()
            .take(panel.len() / (ROWS * n_vectors))
            .enumerate()
        {
            for (t, acc) in acc.as_chunks::<ROWS>().0.iter().take(n).enumerate() {
                let [a, b, c, d] = acc;
                let sums = isa.sum4([isa.load(a), isa.load(b), isa.load(c), isa.load(d)]);
                product.finish(out, token + t, first_row + g * ROWS, &sums);
            }
        }
    }
}

/// One group of rows with up to [`TOKENS`] tokens, in tiles that fit the registers.
#[inline(always)]
fn tiles<I: Isa>(
    isa: I,
    w: &[[Lanes; ROWS]],
    x: [&[Lanes]; TOKENS],
    n: usize,
    first: bool,
    acc: &mut [Lanes; ROWS * TOKENS],
) {
    if I::WIDE {
        match n {
            1 => tile::<I, 4, 1>(isa, w, 0, &x, 0, first, acc),
            2 => tile::<I, 4, 2>(isa, w, 0, &x, 0, first, acc),
            3 => tile::<I, 4, 3>(isa, w, 0, &x, 0, first, acc),
            4 => tile::<I, 4, 4>(isa, w, 0, &x, 0, first, acc),
            5 => tile::<I, 4, 5>(isa, w, 0, &x, 0, first, acc),
            _ => tile::<I, 4, 6>(isa, w, 0, &x, 0, first, acc),
        }
        return;
    }
    for r in [0, 2] {
        for t in (0..n).step_by(3) {
            match n - t {
                1 => tile::<I, 2, 1>(isa, w, r, &x, t, first, acc),
                2 => tile::<I, 2, 2>(isa, w, r, &x, t, first, acc),
                _ => tile::<I, 2, 3>(isa, w, r, &x, t, first, acc),
            }
        }
    }
}

/// `R` rows from `r` on with `T` tokens from `t` on: `R * T` sums in registers.
#[inline(always)]
fn tile<I: Isa, const R: usize, const T: usize>(
    isa: I,
    w: &[[Lanes; ROWS]],
    r: usize,
    x: &[&[Lanes]; TOKENS],
    t: usize,
    first: bool,
    acc: &mut [Lanes; ROWS * TOKENS],
) {
    let mut rows = [&x[t][..w.len()]; T];
    for i in 1..T {
        rows[i] = &x[t + i][..w.len()];
    }
    let x = rows;
    let mut sums = [[isa.splat(0.0); R]; T];
    if !first {
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
        for j in 0..R {
            isa.store(sums[i][j], &mut acc[(t + i) * ROWS + r + j]);
        }
    }
}
