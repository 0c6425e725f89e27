//! The paged cache of one layer.
//!
//! A page holds its keys by column, `[keys, PAGE_TOKENS]`, so that scores of sixteen positions
//! are one vector and need no horizontal sum; and its values by token, `[PAGE_TOKENS, values]`,
//! so that they add up to rows of the output.

use bytemuck::Pod;

use super::buffer::OutOfMemory;
use super::simd::{Isa, LANES};
use crate::backend::{KvDims, KvType, PAGE_TOKENS};

/// A stored number.
pub trait Element: Pod + Send + Sync {
    /// Sixteen numbers, widened.
    fn load<I: Isa>(isa: I, from: &[Self; LANES]) -> I::F;
    /// Sixteen numbers, rounded.
    fn store<I: Isa>(isa: I, x: I::F, to: &mut [Self; LANES]);
}

impl Element for f32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[f32; LANES]) -> I::F {
        isa.load(from)
    }
    #[inline(always)]
    fn store<I: Isa>(isa: I, x: I::F, to: &mut [f32; LANES]) {
        isa.store(x, to);
    }
}

/// A half float's bits.
impl Element for u16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[u16; LANES]) -> I::F {
        isa.load_halves(from)
    }
    #[inline(always)]
    fn store<I: Isa>(isa: I, x: I::F, to: &mut [u16; LANES]) {
        isa.store_halves(x, to);
    }
}

/// Pages of one layer.
pub struct Pages<E> {
    memory: Vec<E>,
    /// Where the memory is aligned to cache lines.
    start: usize,
    pub dims: KvDims,
    n_pages: usize,
}

impl<E: Element> Pages<E> {
    /// Zeroed pages. The system hands the memory out as it is first written.
    fn new(n_pages: usize, dims: KvDims) -> Result<Pages<E>, OutOfMemory> {
        let line = 64 / size_of::<E>();
        let floats = n_pages.checked_mul((dims.keys + dims.values) * PAGE_TOKENS);
        // A vector of values may reach past the last head.
        let len = floats.and_then(|n| n.checked_add(LANES + line));
        let memory: Vec<E> = bytemuck::allocation::try_zeroed_vec(len.ok_or(OutOfMemory)?)
            .map_err(|()| OutOfMemory)?;
        let start = memory.as_ptr().align_offset(64).min(line);
        Ok(Pages {
            memory,
            start,
            dims,
            n_pages,
        })
    }

    #[inline(always)]
    fn page_start(&self, page: usize) -> usize {
        debug_assert!(page < self.n_pages);
        self.start + page * (self.dims.keys + self.dims.values) * PAGE_TOKENS
    }

    /// Keys of a page from column `column` on.
    #[inline(always)]
    pub fn keys(&self, page: u32, column: usize) -> &[E] {
        &self.memory[self.page_start(page as usize) + column * PAGE_TOKENS..]
    }

    /// Values of a page from column `column` of its first token on; tokens are `dims.values` apart.
    #[inline(always)]
    pub fn values(&self, page: u32, column: usize) -> &[E] {
        let values = self.page_start(page as usize) + self.dims.keys * PAGE_TOKENS;
        &self.memory[values + column..]
    }

    /// Stores one token's keys and values.
    #[inline(always)]
    pub fn write<I: Isa>(&mut self, isa: I, slot: usize, k: &[f32], v: &[f32]) {
        let start = self.page_start(slot / PAGE_TOKENS);
        let (dims, token) = (self.dims, slot % PAGE_TOKENS);
        let page = &mut self.memory[start..start + (dims.keys + dims.values) * PAGE_TOKENS];
        let (keys, values) = page.split_at_mut(dims.keys * PAGE_TOKENS);
        let keys = keys[token..].iter_mut().step_by(PAGE_TOKENS);
        round(isa, k, keys);
        round(isa, v, values[token * dims.values..].iter_mut());
    }
}

/// Rounds numbers into their places.
#[inline(always)]
fn round<'a, I: Isa, E: Element>(isa: I, x: &[f32], mut places: impl Iterator<Item = &'a mut E>) {
    for x in x.chunks(LANES) {
        let mut lanes = [0.0; LANES];
        lanes[..x.len()].copy_from_slice(x);
        let mut rounded = [E::zeroed(); LANES];
        E::store(isa, isa.load(&lanes), &mut rounded);
        for (rounded, place) in rounded[..x.len()].iter().zip(&mut places) {
            *place = *rounded;
        }
    }
}

/// The cache of one layer, of either type.
pub enum LayerCache {
    F32(Pages<f32>),
    F16(Pages<u16>),
}

impl LayerCache {
    /// Zeroed pages.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(kv_type: KvType, n_pages: usize, dims: KvDims) -> Result<LayerCache, OutOfMemory> {
        Ok(match kv_type {
            KvType::F32 => LayerCache::F32(Pages::new(n_pages, dims)?),
            KvType::F16 => LayerCache::F16(Pages::new(n_pages, dims)?),
        })
    }

    /// Numbers of one token's keys and values.
    pub fn dims(&self) -> KvDims {
        match self {
            LayerCache::F32(pages) => pages.dims,
            LayerCache::F16(pages) => pages.dims,
        }
    }
}
