//! AVX2 with FMA and F16C: the sixteen lanes are two registers.

use std::arch::x86_64::*;

use super::{Isa, Kernel, Lanes};

/// Proof of AVX2, FMA and F16C: only `detect` makes one.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// Applies an intrinsic to both halves.
macro_rules! both {
    ($f:expr, $a:expr $(, $rest:expr)*) => {
        unsafe { [$f($a[0] $(, $rest[0])*), $f($a[1] $(, $rest[1])*)] }
    };
}

// SAFETY of every block below: the intrinsics need the features that a value of `Avx2` proves;
// pointers stay inside the arrays that are read or written.
impl Isa for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = __m256i;
    type S = [__m256i; 2];
    const WIDE: bool = false;

    fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enter<K: Kernel>(isa: Avx2, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` proves the features.
        unsafe { enter(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(self, x: &Lanes) -> Self::F {
        unsafe {
            [
                _mm256_loadu_ps(x.as_ptr()),
                _mm256_loadu_ps(x.as_ptr().add(8)),
            ]
        }
    }
    #[inline(always)]
    fn store(self, x: Self::F, out: &mut Lanes) {
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), x[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        let less = both!(_mm256_cmp_ps::<_CMP_LT_OQ>, a, b);
        both!(_mm256_blendv_ps, y, x, less)
    }
    #[inline(always)]
    fn greater(self, a: Self::F, b: Self::F) -> u32 {
        let greater = both!(_mm256_cmp_ps::<_CMP_GT_OQ>, a, b);
        let [low, high] = both!(_mm256_movemask_ps, greater);
        (low | high << 8) as u32
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        unsafe {
            let x8 = _mm256_add_ps(x[0], x[1]);
            let x4 = _mm_add_ps(_mm256_castps256_ps128(x8), _mm256_extractf128_ps::<1>(x8));
            let x2 = _mm_add_ps(x4, _mm_movehl_ps(x4, x4));
            _mm_cvtss_f32(_mm_add_ss(x2, _mm_shuffle_ps::<1>(x2, x2)))
        }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; 16]) -> Self::I {
        let halves = unsafe {
            [
                _mm_loadu_si64(x.as_ptr()),
                _mm_loadu_si64(x.as_ptr().add(8)),
            ]
        };
        both!(_mm256_cvtepu8_epi32, halves)
    }
    #[inline(always)]
    fn signed_bytes(self, x: &[u8; 16]) -> Self::I {
        let halves = unsafe {
            [
                _mm_loadu_si64(x.as_ptr()),
                _mm_loadu_si64(x.as_ptr().add(8)),
            ]
        };
        both!(_mm256_cvtepi8_epi32, halves)
    }
    #[inline(always)]
    fn words(self, x: &[u8; 32]) -> Self::I {
        both!(_mm256_cvtepu16_epi32, load_halves(x.as_ptr()))
    }
    #[inline(always)]
    fn int_add(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_add_epi32, a, b)
    }
    #[inline(always)]
    fn int_and(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_and_si256, a, b)
    }
    #[inline(always)]
    fn int_shl(self, a: Self::I, n: u32) -> Self::I {
        let n = unsafe { [_mm_cvtsi32_si128(n as i32); 2] };
        both!(_mm256_sll_epi32, a, n)
    }
    #[inline(always)]
    fn int_shr(self, a: Self::I, n: u32) -> Self::I {
        let n = unsafe { [_mm_cvtsi32_si128(n as i32); 2] };
        both!(_mm256_srl_epi32, a, n)
    }
    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::F {
        both!(_mm256_cvtepi32_ps, x)
    }
    #[inline(always)]
    fn from_bits(self, x: Self::I) -> Self::F {
        both!(_mm256_castsi256_ps, x)
    }
    #[inline(always)]
    fn to_bits(self, x: Self::F) -> Self::I {
        both!(_mm256_castps_si256, x)
    }
    #[inline(always)]
    fn set_bit_4(self, x: Self::I, mask: u16) -> Self::I {
        let lanes = unsafe {
            [
                _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128),
                _mm256_setr_epi32(256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
            ]
        };
        let set = self.int_and(lanes, self.splat_int(i32::from(mask)));
        let set = both!(_mm256_cmpeq_epi32, set, lanes);
        let bits = self.int_and(set, self.splat_int(16));
        both!(_mm256_or_si256, x, bits)
    }

    #[inline(always)]
    fn halves(self, x: &[u8; 32]) -> Self::F {
        both!(_mm256_cvtph_ps, load_halves(x.as_ptr()))
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; 16]) -> Self::F {
        both!(_mm256_cvtph_ps, load_halves(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn store_halves(self, x: Self::F, out: &mut [u16; 16]) {
        let [low, high] = both!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>, x);
        unsafe {
            _mm_storeu_si128(out.as_mut_ptr().cast(), low);
            _mm_storeu_si128(out.as_mut_ptr().add(8).cast(), high);
        }
    }
    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
    }
    #[inline(always)]
    fn four_halves(self, [a, b, c, d]: [u16; 4]) -> [f32; 4] {
        let low = u32::from(a) | u32::from(b) << 16;
        let high = u32::from(c) | u32::from(d) << 16;
        let bits = u64::from(low) | u64::from(high) << 32;
        let mut out = [0.0; 4];
        unsafe {
            let wide = _mm_cvtph_ps(_mm_cvtsi64_si128(bits as i64));
            _mm_storeu_ps(out.as_mut_ptr(), wide);
        }
        out
    }

    #[inline(always)]
    fn splat_halves(self, x: &[u8; 4]) -> [Self::F; 2] {
        unsafe {
            let both = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from_le_bytes(*x)));
            [
                [_mm256_broadcastss_ps(both); 2],
                [_mm256_broadcastss_ps(_mm_movehdup_ps(both)); 2],
            ]
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn load_32(self, x: &[u8; 32]) -> Self::B {
        unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_32(self, x: Self::B, out: &mut [u8; 32]) {
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x) }
    }
    // Bytes are shifted in pairs; the mask drops what came from the neighbour.
    #[inline(always)]
    fn shr_and(self, x: Self::B, n: u32, mask: u8) -> Self::B {
        unsafe {
            let shifted = _mm256_srl_epi16(x, _mm_cvtsi32_si128(n as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
        }
    }
    #[inline(always)]
    fn shl_and(self, x: Self::B, n: u32, mask: u8) -> Self::B {
        unsafe {
            let shifted = _mm256_sll_epi16(x, _mm_cvtsi32_si128(n as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
        }
    }
    #[inline(always)]
    fn or_32(self, a: Self::B, b: Self::B) -> Self::B {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    fn negate(self, x: Self::B, signs: u32) -> Self::B {
        unsafe {
            // Each byte gets the byte of signs that has its own, and keeps that one.
            const ONES: i64 = 0x0101_0101_0101_0101;
            let bytes = _mm256_setr_epi64x(0, ONES, 2 * ONES, 3 * ONES);
            let signs = _mm256_shuffle_epi8(_mm256_set1_epi32(signs as i32), bytes);
            let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(signs, own), own);
            _mm256_sub_epi8(_mm256_xor_si256(x, set), set)
        }
    }
    #[inline(always)]
    fn lookup(self, x: Self::B, table: &[i8; 16]) -> Self::B {
        unsafe {
            let table = _mm_loadu_si128(table.as_ptr().cast());
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), x)
        }
    }

    #[inline(always)]
    fn load_shorts(self, x: &[i16; 32]) -> Self::S {
        unsafe {
            [
                _mm256_loadu_si256(x.as_ptr().cast()),
                _mm256_loadu_si256(x.as_ptr().add(16).cast()),
            ]
        }
    }
    #[inline(always)]
    fn store_shorts(self, x: Self::S, out: &mut [i16; 32]) {
        unsafe {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), x[0]);
            _mm256_storeu_si256(out.as_mut_ptr().add(16).cast(), x[1]);
        }
    }
    #[inline(always)]
    fn join(self, low: Self::B, high: Self::B) -> Self::S {
        [low, high]
    }
    #[inline(always)]
    fn shorts_and(self, a: Self::S, mask: i16) -> Self::S {
        let mask = unsafe { [_mm256_set1_epi16(mask); 2] };
        both!(_mm256_and_si256, a, mask)
    }
    #[inline(always)]
    fn shorts_or(self, a: Self::S, b: Self::S) -> Self::S {
        both!(_mm256_or_si256, a, b)
    }
    #[inline(always)]
    fn shorts_shr(self, a: Self::S, n: u32) -> Self::S {
        let n = unsafe { [_mm_cvtsi32_si128(n as i32); 2] };
        both!(_mm256_srl_epi16, a, n)
    }
    #[inline(always)]
    fn shorts_sub(self, a: Self::S, b: Self::S) -> Self::S {
        both!(_mm256_sub_epi16, a, b)
    }
    #[inline(always)]
    fn shorts_mul(self, a: Self::S, b: Self::S) -> Self::S {
        both!(_mm256_mullo_epi16, a, b)
    }
    #[inline(always)]
    fn splat_pair(self, [a, b]: [i16; 2]) -> Self::S {
        unsafe { [_mm256_set1_epi32(i32::from(a as u16) | i32::from(b) << 16); 2] }
    }
    #[inline(always)]
    fn splat_quarters(self, x: &[u8; 16], at: [u8; 4]) -> Self::S {
        // A byte and a zero, then the same again.
        let bytes = |i: usize| (i32::from(at[i]) * 0x0001_0001) | 0x8000_8000_u32 as i32;
        let (a, b, c, d) = (bytes(0), bytes(1), bytes(2), bytes(3));
        unsafe {
            let from = _mm256_broadcastsi128_si256(_mm_loadu_si128(x.as_ptr().cast()));
            [
                _mm256_shuffle_epi8(from, _mm256_setr_epi32(a, a, a, a, b, b, b, b)),
                _mm256_shuffle_epi8(from, _mm256_setr_epi32(c, c, c, c, d, d, d, d)),
            ]
        }
    }
    #[inline(always)]
    fn eight_twice(self, x: u64) -> Self::S {
        unsafe {
            let shorts = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(x as i64));
            [_mm256_broadcastsi128_si256(shorts), _mm256_setzero_si256()]
        }
    }
    #[inline(always)]
    fn dot_pairs(self, acc: Self::I, a: Self::S, b: Self::S) -> Self::I {
        self.int_add(acc, both!(_mm256_madd_epi16, a, b))
    }
    #[inline(always)]
    fn sum_quarters(self, [a, b, c, d]: [Self::I; 4]) -> Self::I {
        let (ab, cd) = (
            both!(_mm256_hadd_epi32, a, b),
            both!(_mm256_hadd_epi32, c, d),
        );
        both!(_mm256_hadd_epi32, ab, cd)
    }
    #[inline(always)]
    fn splat_four(self, x: [f32; 4]) -> Self::F {
        unsafe { [_mm256_broadcast_ps(&_mm_loadu_ps(x.as_ptr())); 2] }
    }
}

/// The two halves of 32 bytes; `from` points to as many.
#[inline(always)]
fn load_halves(from: *const u8) -> [__m128i; 2] {
    // SAFETY: every caller passes the address of an array of 32 bytes.
    unsafe {
        [
            _mm_loadu_si128(from.cast()),
            _mm_loadu_si128(from.add(16).cast()),
        ]
    }
}
