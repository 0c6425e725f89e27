//! The paged cache of one layer.
//!
//! A page holds its keys by column, `[keys, PAGE_TOKENS]`, so that scores of sixteen positions
//! are one vector and need no horizontal sum; and its values by token, `[PAGE_TOKENS, values]`,
//! so that they add up to rows of the output.

mod blocks;
mod floats;

pub use blocks::{BlockPages, Q4_0, Q8_0};
pub use floats::FloatPages;

use super::buffer::OutOfMemory;
use super::simd::{Isa, LANES};
use crate::backend::{KV_BLOCK, KvDims, KvType, PAGE_TOKENS};

/// Vectors of a column of keys.
pub const PAGE_VECTORS: usize = PAGE_TOKENS / LANES;

/// Pages of one layer, in some type.
pub trait Pages: Sync {
    /// Keys of some columns of a page.
    type Keys<'a>: Copy
    where
        Self: 'a;
    /// Values of some columns of a token.
    type Values<'a>: Copy
    where
        Self: 'a;

    /// Keys of a page from column `column` on, the first of a head of `head_dim`.
    fn keys(&self, page: u32, column: usize, head_dim: usize) -> Self::Keys<'_>;
    /// Column `d` of a head's keys, all positions of the page.
    fn key<I: Isa>(isa: I, keys: Self::Keys<'_>, d: usize) -> [I::F; PAGE_VECTORS];

    /// Values of a page's token, `n` vectors from vector `first` on of the head at column `head`.
    fn values(
        &self,
        page: u32,
        token: usize,
        head: usize,
        first: usize,
        n: usize,
    ) -> Self::Values<'_>;
    /// Vector `d` of those values.
    fn value<I: Isa>(isa: I, values: Self::Values<'_>, d: usize) -> I::F;

    /// Stores one token's keys and values.
    fn write<I: Isa>(&mut self, isa: I, slot: usize, k: &[f32], v: &[f32]);
}

/// The cache of one layer, of any type.
pub enum LayerCache {
    F32(FloatPages<f32>),
    F16(FloatPages<u16>),
    Q8_0(BlockPages<Q8_0>),
    Q4_0(BlockPages<Q4_0>),
}

/// Runs `$body` with the pages of a cache as `$pages`.
macro_rules! with_pages {
    ($cache:expr, $pages:ident => $body:expr) => {
        match $cache {
            LayerCache::F32($pages) => $body,
            LayerCache::F16($pages) => $body,
            LayerCache::Q8_0($pages) => $body,
            LayerCache::Q4_0($pages) => $body,
        }
    };
}
pub(super) use with_pages;

impl LayerCache {
    /// Zeroed pages.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(kv_type: KvType, n_pages: usize, dims: KvDims) -> Result<LayerCache, OutOfMemory> {
        Ok(match kv_type {
            KvType::F32 => LayerCache::F32(FloatPages::new(n_pages, dims)?),
            KvType::F16 => LayerCache::F16(FloatPages::new(n_pages, dims)?),
            KvType::Q8_0 => LayerCache::Q8_0(BlockPages::new(n_pages, dims)?),
            KvType::Q4_0 => LayerCache::Q4_0(BlockPages::new(n_pages, dims)?),
        })
    }

    /// Numbers of one token's keys and values.
    pub fn dims(&self) -> KvDims {
        with_pages!(self, pages => pages.dims)
    }

    /// Numbers that are stored together: a head must be a multiple.
    pub fn block(&self) -> usize {
        match self {
            LayerCache::F32(_) | LayerCache::F16(_) => 1,
            LayerCache::Q8_0(_) | LayerCache::Q4_0(_) => KV_BLOCK,
        }
    }
}
