//! The inner loop of tiles on AVX-512, instruction by instruction: the compiler would make half of the
//! dot products a product and a sum, and load many operands ahead until it has to spill them.
//! Blocks that are not pure stay in their order.

use std::arch::asm;
use std::arch::x86_64::__m512i;

use super::avx512::Avx512;

#[target_feature(enable = "avx512f")]
#[inline]
pub fn load_here(x: &[i16; 32]) -> __m512i {
    let out;
    // SAFETY: the 64 bytes that are read are those of the reference.
    unsafe {
        asm!(
            "vmovdqu64 {out}, [{x}]",
            x = in(reg) x,
            out = lateout(zmm_reg) out,
            options(readonly, nostack, preserves_flags),
        );
    }
    out
}

/// Row `ROW` of [`super::Isa::dot_rows`].
#[inline(always)]
pub fn dot_row<const ROW: usize, const N: usize>(
    _: Avx512,
    acc: &mut [__m512i; N],
    a: &[[[i16; 2]; 16]; 8],
    pair: usize,
    b: &[__m512i; N],
) {
    assert!(ROW < 8 && pair < 16, "a pair of one of eight rows");
    let a = a.as_ptr().cast::<[i16; 2]>().wrapping_add(pair);
    // SAFETY: an `Avx512` proves the features; `a + 64 * ROW` is pair `pair` of row `ROW`, inside `a`.
    match (acc.as_mut_slice(), b.as_slice()) {
        ([c], [x]) => unsafe { dot_row_1::<ROW>(c, a, *x) },
        ([c, d], [x, y]) => unsafe { dot_row_2::<ROW>([c, d], a, [*x, *y]) },
        ([c, d, e], [x, y, z]) => unsafe { dot_row_3::<ROW>([c, d, e], a, [*x, *y, *z]) },
        _ => unreachable!("tiles have up to three groups"),
    }
}

/// # Safety
/// `a + 64 * ROW` points to a pair that may be read.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
unsafe fn dot_row_1<const ROW: usize>(c: &mut __m512i, a: *const [i16; 2], x: __m512i) {
    // SAFETY: the only memory read is the pair that the caller vouches for; all else are registers.
    unsafe {
        asm!(
            "vpdpwssd {c}, {x}, dword ptr [{a} + {row}]{{1to16}}",
            a = in(reg) a,
            row = const 64 * ROW,
            x = in(zmm_reg) x,
            c = inout(zmm_reg) *c,
            options(readonly, nostack, preserves_flags),
        );
    }
}

/// # Safety
/// `a + 64 * ROW` points to a pair that may be read.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
unsafe fn dot_row_2<const ROW: usize>(
    [c, d]: [&mut __m512i; 2],
    a: *const [i16; 2],
    [x, y]: [__m512i; 2],
) {
    let _w: __m512i;
    // SAFETY: the only memory read is the pair that the caller vouches for; all else are registers.
    unsafe {
        asm!(
            "vpbroadcastd {w}, dword ptr [{a} + {row}]",
            "vpdpwssd {c}, {w}, {x}",
            "vpdpwssd {d}, {w}, {y}",
            a = in(reg) a,
            row = const 64 * ROW,
            w = out(zmm_reg) _w,
            x = in(zmm_reg) x,
            y = in(zmm_reg) y,
            c = inout(zmm_reg) *c,
            d = inout(zmm_reg) *d,
            options(readonly, nostack, preserves_flags),
        );
    }
}

/// # Safety
/// `a + 64 * ROW` points to a pair that may be read.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
unsafe fn dot_row_3<const ROW: usize>(
    [c, d, e]: [&mut __m512i; 3],
    a: *const [i16; 2],
    [x, y, z]: [__m512i; 3],
) {
    let _w: __m512i;
    // SAFETY: the only memory read is the pair that the caller vouches for; all else are registers.
    unsafe {
        asm!(
            "vpbroadcastd {w}, dword ptr [{a} + {row}]",
            "vpdpwssd {c}, {w}, {x}",
            "vpdpwssd {d}, {w}, {y}",
            "vpdpwssd {e}, {w}, {z}",
            a = in(reg) a,
            row = const 64 * ROW,
            w = out(zmm_reg) _w,
            x = in(zmm_reg) x,
            y = in(zmm_reg) y,
            z = in(zmm_reg) z,
            c = inout(zmm_reg) *c,
            d = inout(zmm_reg) *d,
            e = inout(zmm_reg) *e,
            options(readonly, nostack, preserves_flags),
        );
    }
}
