//! AVX-512: the sixteen lanes are one register.

use std::arch::x86_64::*;

use super::avx512_dots::{dot_row, load_here};
use super::{Isa, Kernel, Lanes, Rule};

/// Proof of AVX-512 F, BW, DQ, VL and VNNI: only `detect` makes one.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

// SAFETY of every block below: the intrinsics need the features that a value of `Avx512` proves;
// pointers come from references to exactly the bytes that are read or written.
impl Isa for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m256i;
    type S = __m512i;
    const WIDE: bool = true;

    fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("f16c");
        found.then_some(Avx512(()))
    }

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi1,bmi2"
        )]
        fn enter<K: Kernel>(isa: Avx512, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` proves the features; AVX-512 implies AVX2, FMA and BMI in every processor.
        unsafe { enter(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &Lanes) -> Self::F {
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, x: Self::F, out: &mut Lanes) {
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    fn greater(self, a: Self::F, b: Self::F) -> u32 {
        u32::from(unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) })
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        unsafe {
            let x8 = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
            let x4 = _mm_add_ps(_mm256_castps256_ps128(x8), _mm256_extractf128_ps::<1>(x8));
            let x2 = _mm_add_ps(x4, _mm_movehl_ps(x4, x4));
            _mm_cvtss_f32(_mm_add_ss(x2, _mm_shuffle_ps::<1>(x2, x2)))
        }
    }
    // Four sums for the price of two: halves of two vectors meet in one register.
    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [Self::F; 4]) -> [f32; 4] {
        unsafe {
            let ab = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x44>(a, b),
                _mm512_shuffle_f32x4::<0xee>(a, b),
            );
            let cd = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x44>(c, d),
                _mm512_shuffle_f32x4::<0xee>(c, d),
            );
            let x4 = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x88>(ab, cd),
                _mm512_shuffle_f32x4::<0xdd>(ab, cd),
            );
            let x2 = _mm512_add_ps(x4, _mm512_permute_ps::<0x4e>(x4));
            let x1 = _mm512_add_ps(x2, _mm512_permute_ps::<0xb1>(x2));
            let first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            let sums = _mm512_castps512_ps128(_mm512_permutexvar_ps(first, x1));
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), sums);
            out
        }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; 16]) -> Self::I {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn signed_bytes(self, x: &[u8; 16]) -> Self::I {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn words(self, x: &[u8; 32]) -> Self::I {
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn int_add(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn int_and(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn int_shl(self, a: Self::I, n: u32) -> Self::I {
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    fn int_shr(self, a: Self::I, n: u32) -> Self::I {
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::F {
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    fn from_bits(self, x: Self::I) -> Self::F {
        unsafe { _mm512_castsi512_ps(x) }
    }
    #[inline(always)]
    fn to_bits(self, x: Self::F) -> Self::I {
        unsafe { _mm512_castps_si512(x) }
    }
    #[inline(always)]
    fn set_bit_4(self, x: Self::I, mask: u16) -> Self::I {
        unsafe { _mm512_mask_or_epi32(x, mask, x, _mm512_set1_epi32(16)) }
    }

    #[inline(always)]
    fn halves(self, x: &[u8; 32]) -> Self::F {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; 16]) -> Self::F {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store_halves(self, x: Self::F, out: &mut [u16; 16]) {
        unsafe {
            let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), halves);
        }
    }
    // Through all lanes: of one lane the compiler makes an insertion into a register it never set, and
    // each block waits for the one before.
    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        unsafe { _mm512_cvtss_f32(_mm512_cvtph_ps(_mm256_set1_epi16(bits as i16))) }
    }
    #[inline(always)]
    fn splat_half(self, bits: u16) -> Self::F {
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(bits as i16)) }
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

    // One conversion for both: the shuffle port is what decoding waits for.
    #[inline(always)]
    fn splat_halves(self, x: &[u8; 4]) -> [Self::F; 2] {
        unsafe {
            let both = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from_le_bytes(*x)));
            let wide = _mm512_castps128_ps512(both);
            [
                _mm512_broadcastss_ps(both),
                _mm512_permutexvar_ps(_mm512_set1_epi32(1), wide),
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
        unsafe { _mm256_mask_sub_epi8(x, signs, _mm256_setzero_si256(), x) }
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
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_shorts(self, x: Self::S, out: &mut [i16; 32]) {
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) }
    }
    #[inline(always)]
    fn join(self, low: Self::B, high: Self::B) -> Self::S {
        unsafe { _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high) }
    }
    #[inline(always)]
    fn shorts_and(self, a: Self::S, mask: i16) -> Self::S {
        unsafe { _mm512_and_si512(a, _mm512_set1_epi16(mask)) }
    }
    #[inline(always)]
    fn shorts_or(self, a: Self::S, b: Self::S) -> Self::S {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn shorts_shr(self, a: Self::S, n: u32) -> Self::S {
        unsafe { _mm512_srl_epi16(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    fn shorts_sub(self, a: Self::S, b: Self::S) -> Self::S {
        unsafe { _mm512_sub_epi16(a, b) }
    }
    #[inline(always)]
    fn shorts_mul(self, a: Self::S, b: Self::S) -> Self::S {
        unsafe { _mm512_mullo_epi16(a, b) }
    }
    #[inline(always)]
    fn splat_pair(self, [a, b]: [i16; 2]) -> Self::S {
        unsafe { _mm512_set1_epi32(i32::from(a as u16) | i32::from(b) << 16) }
    }
    #[inline(always)]
    fn splat_quarters(self, x: &[u8; 16], at: [u8; 4]) -> Self::S {
        // A byte and a zero, then the same again.
        let bytes = |i: usize| (i32::from(at[i]) * 0x0001_0001) | 0x8000_8000_u32 as i32;
        let (a, b, c, d) = (bytes(0), bytes(1), bytes(2), bytes(3));
        unsafe {
            let from = _mm512_broadcast_i32x4(_mm_loadu_si128(x.as_ptr().cast()));
            let order = _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d);
            _mm512_shuffle_epi8(from, order)
        }
    }
    #[inline(always)]
    fn eight_twice(self, x: u64) -> Self::S {
        unsafe {
            let shorts = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(x as i64));
            _mm512_maskz_broadcast_i32x4(0x00ff, shorts)
        }
    }
    #[inline(always)]
    fn dot_pairs(self, acc: Self::I, a: Self::S, b: Self::S) -> Self::I {
        unsafe { _mm512_dpwssd_epi32(acc, a, b) }
    }
    #[inline(always)]
    fn load_shorts_here(self, x: &[i16; 32]) -> Self::S {
        unsafe { load_here(x) }
    }
    #[inline(always)]
    fn dot_rows<const R: usize, const N: usize>(
        self,
        acc: &mut [[Self::I; N]; R],
        a: &[[[i16; 2]; 16]; R],
        pair: usize,
        b: &[Self::S; N],
    ) {
        let (Some(acc), Some(a)) = (acc.first_chunk_mut::<8>(), a.first_chunk()) else {
            unreachable!("tiles have eight rows where registers are many");
        };
        dot_row::<0, N>(self, &mut acc[0], a, pair, b);
        dot_row::<1, N>(self, &mut acc[1], a, pair, b);
        dot_row::<2, N>(self, &mut acc[2], a, pair, b);
        dot_row::<3, N>(self, &mut acc[3], a, pair, b);
        dot_row::<4, N>(self, &mut acc[4], a, pair, b);
        dot_row::<5, N>(self, &mut acc[5], a, pair, b);
        dot_row::<6, N>(self, &mut acc[6], a, pair, b);
        dot_row::<7, N>(self, &mut acc[7], a, pair, b);
    }
    #[inline(always)]
    fn sum_quarters(self, [a, b, c, d]: [Self::I; 4]) -> Self::I {
        unsafe {
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
        }
    }
    // Four rows in one vector: two products for a token, not four.
    #[inline(always)]
    fn sum_minima(self, minima: &[u64; 4], x: &[i16; 32]) -> Self::I {
        let [a, b, c, d] = minima.map(|row| row as i64);
        unsafe {
            let bytes = _mm256_set_epi64x(d, c, b, a);
            let rows = _mm512_cvtepu8_epi16(bytes);
            let eight =
                |i: usize| _mm512_broadcast_i32x4(_mm_loadu_si128(x.as_ptr().add(i).cast()));
            let zero = _mm512_setzero_si512();
            let first = _mm512_dpwssd_epi32(zero, rows, eight(0));
            let next = _mm512_dpwssd_epi32(zero, rows, eight(8));
            let (low, high) = (
                _mm512_unpacklo_epi32(first, next),
                _mm512_unpackhi_epi32(first, next),
            );
            let pairs = _mm512_add_epi32(low, high);
            let sums = _mm512_add_epi32(pairs, _mm512_shuffle_epi32::<0x4e>(pairs));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
            _mm512_maskz_permutexvar_epi32(0x00ff, order, sums)
        }
    }
    #[inline(always)]
    fn splat_four(self, x: [f32; 4]) -> Self::F {
        unsafe { _mm512_broadcast_f32x4(_mm_loadu_ps(x.as_ptr())) }
    }

    // One permutation replaces mask, conversion, product and sum. It ignores the upper bits.
    #[inline(always)]
    fn decode_4<R: Rule<Self>>(self, codes: Self::I, rule: R) -> Self::F {
        unsafe { _mm512_permutexvar_ps(codes, rule.weight(self, first_16())) }
    }
    #[inline(always)]
    fn decode_5<R: Rule<Self>>(self, codes: Self::I, rule: R) -> Self::F {
        let low = first_16();
        let high = self.add(low, self.splat(16.0));
        let (low, high) = (rule.weight(self, low), rule.weight(self, high));
        unsafe { _mm512_permutex2var_ps(low, codes, high) }
    }
}

/// The numbers 0 to 15.
#[inline(always)]
fn first_16() -> __m512 {
    // SAFETY: only called with an `Avx512` at hand.
    unsafe {
        _mm512_setr_ps(
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
        )
    }
}
