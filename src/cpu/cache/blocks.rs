//! Pages of quantised numbers: blocks of 32 columns of a token, with codes and a half float as in
//! the weights' type of that name. Attention decodes them in registers.

use std::marker::PhantomData;

use super::{PAGE_VECTORS, Pages};
use crate::backend::{KV_BLOCK, KvDims, PAGE_TOKENS};
use crate::cpu::buffer::OutOfMemory;
use crate::cpu::simd::{Isa, LANES};

/// How codes are packed: `1 << SHARED` columns of a block, `KV_BLOCK >> SHARED` apart, share a byte.
pub trait Packing: Send + Sync {
    const SHARED: usize;

    /// The factor and the codes of a block; the factor is rounded afterwards, as for weights.
    fn quantize(x: &[f32; KV_BLOCK]) -> (f32, [u8; KV_BLOCK]);
    /// The numbers that codes stand for, `part` being which of the columns that share their bytes.
    fn codes<I: Isa>(isa: I, bytes: &[u8; LANES], part: usize) -> I::F;
}

/// `d * code` with a signed byte.
pub struct Q8_0;

impl Packing for Q8_0 {
    const SHARED: usize = 0;

    fn quantize(x: &[f32; KV_BLOCK]) -> (f32, [u8; KV_BLOCK]) {
        let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let d = largest / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        (d, x.map(|x| (x * inverse).round() as i8 as u8))
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, bytes: &[u8; LANES], _: usize) -> I::F {
        isa.to_float(isa.signed_bytes(bytes))
    }
}

/// `d * (code - 8)` with a nibble.
pub struct Q4_0;

impl Packing for Q4_0 {
    const SHARED: usize = 1;

    fn quantize(x: &[f32; KV_BLOCK]) -> (f32, [u8; KV_BLOCK]) {
        let further = |a: f32, b: f32| if b.abs() > a.abs() { b } else { a };
        let d = x.iter().copied().fold(0.0, further) / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        (d, x.map(|x| (x * inverse + 8.5).clamp(0.0, 15.0) as u8))
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, bytes: &[u8; LANES], part: usize) -> I::F {
        let codes = isa.int_shr(isa.bytes(bytes), 4 * part as u32);
        let codes = isa.int_and(codes, isa.splat_int(15));
        isa.sub(isa.to_float(codes), isa.splat(8.0))
    }
}

/// Pages of one layer. Heads are whole blocks.
pub struct BlockPages<P> {
    /// Of each page: keys `[keys >> SHARED, PAGE_TOKENS]`, values `[PAGE_TOKENS, values >> SHARED]`.
    codes: Vec<u8>,
    /// Of each page: `[keys / KV_BLOCK, PAGE_TOKENS]`, then `[PAGE_TOKENS, values / KV_BLOCK]`.
    scales: Vec<u16>,
    pub dims: KvDims,
    packing: PhantomData<P>,
}

/// A head's keys: codes by column, scales by block.
type Keys<'a> = (&'a [[u8; PAGE_TOKENS]], &'a [[u16; PAGE_TOKENS]]);
/// A token's values: codes, and scales by block.
type Values<'a> = (&'a [[u8; LANES]], &'a [u16]);

impl<P: Packing> BlockPages<P> {
    /// Bytes that the columns of a block take, per token.
    const BLOCK_BYTES: usize = KV_BLOCK >> P::SHARED;

    /// Zeroed pages. The system hands the memory out as it is first written.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(n_pages: usize, dims: KvDims) -> Result<BlockPages<P>, OutOfMemory> {
        let blocks = n_pages.checked_mul((dims.keys + dims.values) / KV_BLOCK * PAGE_TOKENS);
        let blocks = blocks.ok_or(OutOfMemory)?;
        let codes = blocks.checked_mul(Self::BLOCK_BYTES).ok_or(OutOfMemory)?;
        Ok(BlockPages {
            codes: bytemuck::allocation::try_zeroed_vec(codes).map_err(|()| OutOfMemory)?,
            scales: bytemuck::allocation::try_zeroed_vec(blocks).map_err(|()| OutOfMemory)?,
            dims,
            packing: PhantomData,
        })
    }

    /// Blocks of tokens before a page.
    #[inline(always)]
    fn blocks_before(&self, page: usize) -> usize {
        page * (self.dims.keys + self.dims.values) / KV_BLOCK * PAGE_TOKENS
    }
}

impl<P: Packing> Pages for BlockPages<P> {
    type Keys<'a>
        = Keys<'a>
    where
        Self: 'a;
    type Values<'a>
        = Values<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn keys(&self, page: u32, column: usize, head_dim: usize) -> Keys<'_> {
        let at = self.blocks_before(page as usize) + column / KV_BLOCK * PAGE_TOKENS;
        let n_blocks = head_dim / KV_BLOCK;
        let codes = self.codes[at * Self::BLOCK_BYTES..].as_chunks().0;
        let scales = self.scales[at..].as_chunks().0;
        (&codes[..n_blocks * Self::BLOCK_BYTES], &scales[..n_blocks])
    }

    #[inline(always)]
    fn key<I: Isa>(isa: I, (codes, scales): Keys<'_>, d: usize) -> [I::F; PAGE_VECTORS] {
        let (block, column) = (d / KV_BLOCK, d % KV_BLOCK);
        let (row, part) = (column % Self::BLOCK_BYTES, column / Self::BLOCK_BYTES);
        let codes = codes[block * Self::BLOCK_BYTES + row].as_chunks().0;
        let scales = scales[block].as_chunks().0;
        [
            isa.mul(isa.load_halves(&scales[0]), P::codes(isa, &codes[0], part)),
            isa.mul(isa.load_halves(&scales[1]), P::codes(isa, &codes[1], part)),
        ]
    }

    #[inline(always)]
    fn values(&self, page: u32, token: usize, head: usize, first: usize, n: usize) -> Values<'_> {
        let KvDims { keys, values } = self.dims;
        // Vectors come in pairs, since heads are whole blocks: `first` and `n` are even.
        let row = keys / KV_BLOCK * PAGE_TOKENS + token * (values / KV_BLOCK);
        let at = self.blocks_before(page as usize) + row + head / KV_BLOCK + first / 2;
        let codes = self.codes[at * Self::BLOCK_BYTES..].as_chunks().0;
        (&codes[..n >> P::SHARED], &self.scales[at..][..n / 2])
    }

    #[inline(always)]
    fn value<I: Isa>(isa: I, (codes, scales): Values<'_>, d: usize) -> I::F {
        let (vector, part) = match P::SHARED {
            0 => (d, 0),
            _ => (d / 2, d % 2),
        };
        let scale = isa.splat_half(scales[d / 2]);
        isa.mul(scale, P::codes(isa, &codes[vector], part))
    }

    #[inline(always)]
    fn write<I: Isa>(&mut self, _: I, slot: usize, k: &[f32], v: &[f32]) {
        let (page, token) = (slot / PAGE_TOKENS, slot % PAGE_TOKENS);
        let first = self.blocks_before(page);
        for (b, x) in k.as_chunks().0.iter().enumerate() {
            let at = first + b * PAGE_TOKENS;
            let (d, codes) = P::quantize(x);
            self.scales[at + token] = half::f16::from_f32(d).to_bits();
            let places = self.codes[at * Self::BLOCK_BYTES + token..].iter_mut();
            pack::<P>(&codes, places.step_by(PAGE_TOKENS));
        }
        let row = first + self.dims.keys / KV_BLOCK * PAGE_TOKENS;
        let row = row + token * (self.dims.values / KV_BLOCK);
        for (b, x) in v.as_chunks().0.iter().enumerate() {
            let (d, codes) = P::quantize(x);
            self.scales[row + b] = half::f16::from_f32(d).to_bits();
            pack::<P>(
                &codes,
                self.codes[(row + b) * Self::BLOCK_BYTES..].iter_mut(),
            );
        }
    }
}

/// Writes a block's codes, one byte for those that share it.
fn pack<'a, P: Packing>(codes: &[u8; KV_BLOCK], places: impl Iterator<Item = &'a mut u8>) {
    let n = KV_BLOCK >> P::SHARED;
    for (i, place) in (0..n).zip(places) {
        *place = match P::SHARED {
            0 => codes[i],
            _ => codes[i] | codes[i + n] << 4,
        };
    }
}
