//! Products of activations with quantised weights.
//!
//! Every element is computed alone and always alike: lane `l` of sixteen runs along the row,
//! `acc[l] = fma(w[16 i + l], x[16 i + l], acc[l])` for rising `i`, and [`Isa::sum`] adds the
//! lanes. So neither the number of rows in the batch, nor threads, nor the instruction set, nor
//! which of the two kernels below runs changes a bit.
//!
//! Up to [`FEW_TOKENS`] rows of activations (one where registers are few): the weights are read and
//! decoded once, in registers ([`vector`]). More, or a rare type: a panel of weight rows is decoded to
//! memory that the cache holds, and tiles of rows and tokens are multiplied in registers ([`tile`]).

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
/// Vectors of a row that a tile works through at once: 6 tokens of 64 vectors are 24 KiB, half of a
/// first-level cache of today.
const DEPTH: usize = 64;
/// Bytes between a weight that is used and one that is asked for, beside the three rows that are
/// used at the same time: four short rows at once are no stream that the processor recognises.
const AHEAD: usize = 8192;
/// Blocks whose scales are widened together.
const RUN: usize = 32;
/// Weight rows of a panel, and its size in vectors: 256 KiB, a share of the second-level cache.
const PANEL_ROWS: usize = 32;
const PANEL_VECTORS: usize = 4096;
/// Few tokens, such as one of each client; a panel is then used so little that it had better stay in
/// the first-level cache.
const FEW_TOKENS: usize = 8;
const FEW_ROWS: usize = 8;

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
    let chunks = Chunks::new(isa, product, 1, pool.n_threads());
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
    pub fn new(
        isa: InstructionSet,
        product: &Product<'_>,
        n_products: usize,
        n_threads: usize,
    ) -> Chunks {
        let n_rows = product.weight.rows;
        let n_vectors = product.weight.cols.div_ceil(SPAN) * SPAN / LANES;
        let most = match product.n_tokens() {
            _ if product.is_vector(isa) => (n_rows * n_products / (8 * n_threads)).clamp(1, 64),
            0..=FEW_TOKENS => (PANEL_VECTORS / n_vectors).clamp(1, FEW_ROWS),
            _ => (PANEL_VECTORS / n_vectors).clamp(1, PANEL_ROWS),
        };
        let chunk_rows = most.next_multiple_of(ROWS);
        Chunks {
            n: n_rows.div_ceil(chunk_rows),
            n_scratch: match product.is_vector(isa) {
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
    match product.is_vector(isa) {
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
    /// Adds bias and residual to the products of weight rows from `row` on with a token, and
    /// stores those of them that there are.
    #[inline(always)]
    fn finish(&self, out: &Shared<'_>, token: usize, row: usize, mut sums: [f32; ROWS]) {
        let rows = self.weight.rows;
        let n = ROWS.min(rows - row);
        if let Some(bias) = self.bias {
            add_to(&mut sums, &bias[row..]);
        }
        if let Some(residual) = self.residual {
            add_to(&mut sums, &residual.row(token)[row..]);
        }
        let start = match self.rows {
            Rows::All(_) => token * rows,
            Rows::Listed { places, out_offset } => places[token].out + out_offset,
        };
        // SAFETY: a chunk writes the columns of its own weight rows, one part at a time.
        let out = unsafe { out.part(start + row, n) };
        match out.as_mut_array() {
            Some(out) => *out = sums,
            None => copy_some(&sums, out),
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
    fn is_vector(&self, isa: InstructionSet) -> bool {
        let most_tokens = if isa.is_wide() { FEW_TOKENS } else { 1 };
        self.n_tokens() <= most_tokens && is_direct(self.weight.quant)
    }

    fn n_tokens(&self) -> usize {
        match self.rows {
            Rows::All(n) => n,
            Rows::Listed { places, .. } => places.len(),
        }
    }
}

/// The end of a row that is no whole group. Apart, so that whole groups are not stored by the same
/// call of `memcpy`.
#[cold]
#[inline(never)]
fn copy_some(sums: &[f32; ROWS], out: &mut [f32]) {
    out.copy_from_slice(&sums[..out.len()]);
}

/// Adds the first numbers of a row. A whole group goes without a loop: short loops over slices cost
/// more than the sums.
#[inline(always)]
fn add_to(sums: &mut [f32; ROWS], row: &[f32]) {
    match row.first_chunk::<ROWS>() {
        Some(row) => (0..ROWS).for_each(|i| sums[i] += row[i]),
        None => sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x),
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

/// Some rows of a product with few tokens.
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

/// As many rows and tokens at once as there are registers for sums: a weight is decoded once for
/// all tokens, and several sums hide the latency of the multiply-add.
#[inline(always)]
fn vector<I: Isa, F: Format>(isa: I, kernel: &Vector<'_>) {
    match kernel.product.n_tokens() {
        1 => vector_of::<I, F, 4, 1>(isa, kernel),
        _ if !I::WIDE => unreachable!("`matmul` sends tokens to panels where registers are few"),
        2..=4 => vector_of::<I, F, 4, 4>(isa, kernel),
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
    let mut scales = [[0.0; RUN]; R];
    for b in 0..n_blocks {
        if F::SCALED && b % RUN == 0 {
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
        let mut heads = [F::scaled_head(isa, blocks[0], scales[0][b % RUN]); R];
        for r in 1..R {
            heads[r] = F::scaled_head(isa, blocks[r], scales[r][b % RUN]);
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

/// Asks for some bytes ahead of their use.
#[inline(always)]
fn prefetch<I: Isa>(isa: I, at: *const u8, n_bytes: usize) {
    for line in (0..n_bytes).step_by(64) {
        isa.prefetch(at.wrapping_add(line));
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
        for r in 0..R {
            let w = F::span(isa, blocks[r], &heads[r], j);
            for t in 0..T {
                let [low, high] = &vectors[t][j];
                acc[t][r] = isa.fma(w[0], isa.load(low), acc[t][r]);
                acc[t][r] = isa.fma(w[1], isa.load(high), acc[t][r]);
            }
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
