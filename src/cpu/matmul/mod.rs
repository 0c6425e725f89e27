//! Products of activations with quantised weights.
//!
//! Weights of K types are multiplied as integers (`integer/`), all others as floats:
//! every element is computed alone and always alike, lane `l` of sixteen runs along the row,
//! `acc[l] = fma(w[16 i + l], x[16 i + l], acc[l])` for rising `i`, and [`Isa::sum`] adds the
//! lanes. So neither the number of rows in the batch, nor threads, nor the instruction set, nor
//! which of the two kernels below runs changes a bit.
//!
//! Up to [`FEW_TOKENS`] rows of activations (one where registers are few): the weights are read and
//! decoded once, in registers (`vector.rs`). More, or a rare type: a panel of weight rows is decoded to
//! memory that the cache holds, and tiles of rows and tokens are multiplied in registers (`panel.rs`).

pub mod integer;
mod panel;
mod vector;

use super::buffer::{Buffer, Matrix, OutOfMemory, Shared};
use super::format::integer::is_integer;
use super::format::{Format, is_direct};
use super::pool::{Pool, PoolError};
use super::simd::{InstructionSet, Isa, LANES, Lanes};
use super::weight::WeightRows;
use crate::quant::{QuantType, SPAN};

/// Weight rows that go together through either kernel.
const ROWS: usize = 4;
/// Tokens of a tile: with [`ROWS`], 24 accumulators.
const TOKENS: usize = 6;
/// Bytes between a weight that is used and one that is asked for, beside the three rows that are
/// used at the same time: four short rows at once are no stream that the processor recognises.
const AHEAD: usize = 8192;
/// Most weight rows of a chunk whose weights are decoded in registers: two threads read up to a fifth faster than by 64,
/// probably since the first rows of a chunk are not asked for ahead.
const VECTOR_ROWS: usize = 256;
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
    pub input: Input<'a>,
    pub rows: Rows<'a>,
    pub bias: Option<&'a [f32]>,
    pub residual: Option<Matrix<'a>>,
}

/// The activations of a product.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// Rows of whole spans. For [`Rows::Listed`], rows of one place each.
    Floats(Matrix<'a>),
    /// For few tokens and weights that are [`is_integer`]: the rows, one after the other.
    Rounded(&'a [integer::Block]),
    /// For many: those of this product, sixteen by sixteen.
    Grouped(&'a [integer::Group]),
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

/// A row of the input, and where it begins in the floats of the output.
#[derive(Clone, Copy)]
pub struct Place {
    /// Floats before it, or rows before it where they are rounded.
    pub input: usize,
    pub out: usize,
}

/// Computes products, of which product `i` goes to `out(i)`, `[n_tokens, weight.rows]` or where its
/// rows are listed.
///
/// # Errors
/// Those of the pool.
pub fn matmul_all<'a>(
    isa: InstructionSet,
    pool: &mut Pool,
    products: &[Product<'_>],
    out: impl Fn(usize) -> &'a Shared<'a> + Sync,
) -> Result<(), PoolError> {
    let chunks: Vec<Chunks> = products
        .iter()
        .map(|product| Chunks::new(isa, product, products.len(), pool.n_threads()))
        .collect();
    let n_scratch = chunks.iter().map(|c| c.n_scratch).max().unwrap_or(0);
    // First chunk of each product.
    let mut n_chunks = 0;
    let mut starts = Vec::with_capacity(chunks.len());
    for chunks in &chunks {
        starts.push(n_chunks);
        n_chunks += chunks.n;
    }
    let task = |i: usize, scratch: &mut [Lanes]| {
        let product = starts.partition_point(|&start| start <= i) - 1;
        let rows = chunks[product].rows(i - starts[product]);
        chunk(isa, &products[product], out(product), rows, scratch);
    };
    pool.run(n_chunks, n_scratch, &task)
}

/// How the weight rows of a product are shared out among threads.
struct Chunks {
    n: usize,
    /// Vectors of scratch memory that a chunk needs.
    n_scratch: usize,
    n_rows: usize,
    chunk_rows: usize,
}

impl Chunks {
    /// The chunks of one of `n_products` products that run together.
    fn new(
        isa: InstructionSet,
        product: &Product<'_>,
        n_products: usize,
        n_threads: usize,
    ) -> Chunks {
        if is_integer(product.weight.quant) {
            return integer::chunks(product, n_products, n_threads);
        }
        let n_rows = product.weight.rows;
        let n_vectors = product.weight.cols.div_ceil(SPAN) * SPAN / LANES;
        let most = match product.n_tokens() {
            _ if product.is_vector(isa) => vector_rows(n_rows * n_products, n_threads),
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
    fn rows(&self, i: usize) -> std::ops::Range<usize> {
        i * self.chunk_rows..self.n_rows.min((i + 1) * self.chunk_rows)
    }
}

/// Weight rows of a chunk where weights are decoded in registers: a few chunks for each thread.
fn vector_rows(n_rows: usize, n_threads: usize) -> usize {
    let rows = (n_rows / (8 * n_threads)).clamp(1, VECTOR_ROWS);
    rows.next_multiple_of(ROWS)
}

/// Computes the columns of some weight rows.
fn chunk(
    isa: InstructionSet,
    product: &Product<'_>,
    out: &Shared<'_>,
    rows: std::ops::Range<usize>,
    scratch: &mut [Lanes],
) {
    if is_integer(product.weight.quant) {
        return integer::chunk(isa, product, out, rows, scratch);
    }
    match product.is_vector(isa) {
        true => isa.run(vector::Vector { product, out, rows }),
        false => isa.run(panel::Panel {
            product,
            out,
            rows,
            scratch,
        }),
    }
}

/// The input of a product with weights of a type: as it is, rounded, or its rows copied to whole
/// spans. `changed` is the memory.
///
/// # Errors
/// Those of the pool.
pub fn prepare<'a>(
    isa: InstructionSet,
    pool: &mut Pool,
    quant: QuantType,
    input: Matrix<'a>,
    n_tokens: usize,
    changed: &'a mut Buffer,
) -> Result<Input<'a>, PoolError> {
    if is_integer(quant) {
        if n_tokens <= integer::FEW_TOKENS {
            let row = |i| input.row(i);
            let rounded = integer::round_rows(isa, pool, quant, n_tokens, &row, changed)?;
            return Ok(Input::Rounded(rounded));
        }
        let size = [n_tokens.div_ceil(LANES), input.cols / integer::BLOCK];
        let row = |group, lane| {
            let i = group * LANES + lane;
            (i < n_tokens).then(|| input.row(i))
        };
        let grouped = integer::round_groups(isa, pool, quant, size, &row, changed)?;
        return Ok(Input::Grouped(grouped));
    }
    Ok(Input::Floats(match input.cols.is_multiple_of(SPAN) {
        true => input,
        false => pad(input, n_tokens, changed)?,
    }))
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
        let Input::Floats(input) = self.input else {
            unreachable!("`prepare` rounds for integer products only");
        };
        let row = match self.rows {
            Rows::All(_) => input.row(token),
            Rows::Listed { places, .. } => input.at(places[token].input),
        };
        row.as_chunks().0
    }

    /// The number of a token's row, where rows are rounded.
    #[inline(always)]
    fn input_row(&self, token: usize) -> usize {
        match self.rows {
            Rows::All(_) => token,
            Rows::Listed { places, .. } => places[token].input,
        }
    }

    /// Whether weights are decoded in registers.
    fn is_vector(&self, isa: InstructionSet) -> bool {
        let most_tokens = if isa.is_wide() { FEW_TOKENS } else { 1 };
        self.n_tokens() <= most_tokens && is_direct(self.weight.quant)
    }

    pub fn n_tokens(&self) -> usize {
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

/// Asks for some bytes ahead of their use.
#[inline(always)]
fn prefetch<I: Isa>(isa: I, at: *const u8, n_bytes: usize) {
    for line in (0..n_bytes).step_by(64) {
        isa.prefetch(at.wrapping_add(line));
    }
}
