//! Memory for floats: aligned, grown on demand, and an error where there is none.

use bytemuck::{Pod, Zeroable};

use super::simd::{LANES, Lanes};

/// The memory could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

/// A cache line, so that no vector straddles two.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line(Lanes);

/// Floats at a multiple of 64 bytes.
#[derive(Debug, Default)]
pub struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// Makes room for `n` vectors. The contents are lost if it has to grow.
    ///
    /// # Errors
    /// [`OutOfMemory`], with the buffer as it was or empty.
    pub fn grow(&mut self, n: usize) -> Result<(), OutOfMemory> {
        if n <= self.lines.len() {
            return Ok(());
        }
        self.lines = Vec::new();
        self.lines = bytemuck::allocation::try_zeroed_vec(n).map_err(|()| OutOfMemory)?;
        Ok(())
    }

    /// Makes room for `n` floats, as [`Buffer::grow`].
    pub fn grow_floats(&mut self, n: usize) -> Result<(), OutOfMemory> {
        self.grow(n.div_ceil(LANES))
    }

    /// All of it, as floats.
    pub fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(&self.lines)
    }

    /// All of it, as floats.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }

    /// All of it, as vectors.
    pub fn vectors(&self) -> &[Lanes] {
        bytemuck::cast_slice(&self.lines)
    }

    /// All of it, as vectors.
    pub fn vectors_mut(&mut self) -> &mut [Lanes] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

/// A matrix whose parts are written by several threads, no part by two.
pub struct Shared<'a> {
    start: *mut f32,
    len: usize,
    of: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: threads only reach the floats through `part`, whose callers keep the parts apart.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares a slice for as long as it is borrowed.
    pub fn new(floats: &'a mut [f32]) -> Shared<'a> {
        Shared {
            start: floats.as_mut_ptr(),
            len: floats.len(),
            of: std::marker::PhantomData,
        }
    }

    /// Floats of the matrix.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Floats `start .. start + len`.
    ///
    /// # Safety
    /// No other part that overlaps this one may be alive.
    ///
    /// # Panics
    /// If the part is not inside the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start <= self.len && len <= self.len - start, "part inside");
        // SAFETY: inside the slice, which is borrowed mutably for `'a`; the caller keeps the
        // parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// A read-only matrix: rows of `cols` floats that lie `stride` apart.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    floats: &'a [f32],
    stride: usize,
    pub cols: usize,
}

impl<'a> Matrix<'a> {
    /// Columns `offset .. offset + cols` of a row-major matrix with rows of `stride`.
    pub fn new(floats: &'a [f32], stride: usize, offset: usize, cols: usize) -> Matrix<'a> {
        Matrix {
            floats: floats.get(offset..).unwrap_or(&[]),
            stride,
            cols,
        }
    }

    /// Floats from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// As many floats as a row has columns, from float `start` on.
    #[inline(always)]
    pub fn at(&self, start: usize) -> &'a [f32] {
        &self.floats[start..][..self.cols]
    }

    /// One row.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.floats[i * self.stride..][..self.cols]
    }
}
