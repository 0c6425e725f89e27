//! Pages of floats.

use bytemuck::Pod;

use super::{PAGE_VECTORS, Pages};
use crate::backend::{KvDims, PAGE_TOKENS};
use crate::cpu::buffer::OutOfMemory;
use crate::cpu::simd::{Isa, LANES};

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
pub struct FloatPages<E> {
    memory: Vec<E>,
    /// Where the memory is aligned to cache lines.
    start: usize,
    pub dims: KvDims,
    n_pages: usize,
}

impl<E: Element> FloatPages<E> {
    /// Zeroed pages. The system hands the memory out as it is first written.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(n_pages: usize, dims: KvDims) -> Result<FloatPages<E>, OutOfMemory> {
        let line = 64 / size_of::<E>();
        let floats = n_pages.checked_mul((dims.keys + dims.values) * PAGE_TOKENS);
        // A vector of values may reach past the last head.
        let len = floats.and_then(|n| n.checked_add(LANES + line));
        let memory: Vec<E> = bytemuck::allocation::try_zeroed_vec(len.ok_or(OutOfMemory)?)
            .map_err(|()| OutOfMemory)?;
        let start = memory.as_ptr().align_offset(64).min(line);
        Ok(FloatPages {
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
}

impl<E: Element> Pages for FloatPages<E> {
    type Keys<'a>
        = &'a [[E; PAGE_TOKENS]]
    where
        Self: 'a;
    type Values<'a>
        = &'a [[E; LANES]]
    where
        Self: 'a;

    #[inline(always)]
    fn keys(&self, page: u32, column: usize, head_dim: usize) -> &[[E; PAGE_TOKENS]] {
        let keys = &self.memory[self.page_start(page as usize) + column * PAGE_TOKENS..];
        &keys.as_chunks().0[..head_dim]
    }

    #[inline(always)]
    fn key<I: Isa>(isa: I, keys: &[[E; PAGE_TOKENS]], d: usize) -> [I::F; PAGE_VECTORS] {
        let key = keys[d].as_chunks::<LANES>().0;
        [E::load(isa, &key[0]), E::load(isa, &key[1])]
    }

    #[inline(always)]
    fn values(
        &self,
        page: u32,
        token: usize,
        head: usize,
        first: usize,
        n: usize,
    ) -> &[[E; LANES]] {
        let row = self.dims.keys * PAGE_TOKENS + token * self.dims.values;
        let at = self.page_start(page as usize) + row + head + first * LANES;
        &self.memory[at..].as_chunks().0[..n]
    }

    #[inline(always)]
    fn value<I: Isa>(isa: I, values: &[[E; LANES]], d: usize) -> I::F {
        E::load(isa, &values[d])
    }

    #[inline(always)]
    fn write<I: Isa>(&mut self, isa: I, slot: usize, k: &[f32], v: &[f32]) {
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
