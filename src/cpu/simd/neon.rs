//! NEON of 64-bit Arm: the sixteen lanes are four registers.

use std::arch::aarch64::*;
use std::array::from_fn;

use super::{Isa, Kernel, Lanes};

/// Proof of NEON: only `detect` makes one.
#[derive(Debug, Clone, Copy)]
pub struct Neon(());

// SAFETY of every block below: the intrinsics need NEON, which a value of `Neon` proves; pointers
// stay inside the arrays that are read or written.
impl Isa for Neon {
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    type B = [uint8x16_t; 2];
    type S = [int16x8_t; 4];
    const WIDE: bool = false;

    fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn enter<K: Kernel>(isa: Neon, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` proves the feature.
        unsafe { enter(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    fn load(self, x: &Lanes) -> Self::F {
        from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    fn store(self, x: Self::F, out: &mut Lanes) {
        for (i, x) in x.into_iter().enumerate() {
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), x) }
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| unsafe { vaddq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| unsafe { vsubq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| unsafe { vmulq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| unsafe { vdivq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    // NEON's own maximum and minimum spread what is not a number from either side.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        self.select_less(b, a, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        self.select_less(a, b, a, b)
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        from_fn(|i| unsafe { vbslq_f32(vcltq_f32(a[i], b[i]), x[i], y[i]) })
    }
    #[inline(always)]
    fn greater(self, a: Self::F, b: Self::F) -> u32 {
        let bits = [1, 2, 4, 8];
        let quarter = |i: usize| unsafe {
            let set = vandq_u32(vcgtq_f32(a[i], b[i]), vld1q_u32(bits.as_ptr()));
            vaddvq_u32(set) << (4 * i)
        };
        quarter(0) | quarter(1) | quarter(2) | quarter(3)
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        unsafe {
            let x4 = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
            let x2 = vadd_f32(vget_low_f32(x4), vget_high_f32(x4));
            vget_lane_f32::<0>(x2) + vget_lane_f32::<1>(x2)
        }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; 16]) -> Self::I {
        unsafe {
            let x = vld1q_u8(x.as_ptr());
            let (low, high) = (vmovl_u8(vget_low_u8(x)), vmovl_u8(vget_high_u8(x)));
            widen(low, high)
        }
    }
    #[inline(always)]
    fn signed_bytes(self, x: &[u8; 16]) -> Self::I {
        unsafe {
            let x = vreinterpretq_s8_u8(vld1q_u8(x.as_ptr()));
            let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_s8(vget_high_s8(x)));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_s16(vget_high_s16(low)),
                vmovl_s16(vget_low_s16(high)),
                vmovl_s16(vget_high_s16(high)),
            ]
        }
    }
    #[inline(always)]
    fn words(self, x: &[u8; 32]) -> Self::I {
        unsafe {
            let low = vreinterpretq_u16_u8(vld1q_u8(x.as_ptr()));
            let high = vreinterpretq_u16_u8(vld1q_u8(x.as_ptr().add(16)));
            widen(low, high)
        }
    }
    #[inline(always)]
    fn int_add(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| unsafe { vaddq_s32(a[i], b[i]) })
    }
    #[inline(always)]
    fn int_and(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| unsafe { vandq_s32(a[i], b[i]) })
    }
    #[inline(always)]
    fn int_shl(self, a: Self::I, n: u32) -> Self::I {
        from_fn(|i| unsafe { vshlq_s32(a[i], vdupq_n_s32(n as i32)) })
    }
    // A shift to the left by a negative count is one to the right.
    #[inline(always)]
    fn int_shr(self, a: Self::I, n: u32) -> Self::I {
        from_fn(|i| unsafe {
            let shifted = vshlq_u32(vreinterpretq_u32_s32(a[i]), vdupq_n_s32(-(n as i32)));
            vreinterpretq_s32_u32(shifted)
        })
    }
    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::F {
        from_fn(|i| unsafe { vcvtq_f32_s32(x[i]) })
    }
    #[inline(always)]
    fn from_bits(self, x: Self::I) -> Self::F {
        from_fn(|i| unsafe { vreinterpretq_f32_s32(x[i]) })
    }
    #[inline(always)]
    fn to_bits(self, x: Self::F) -> Self::I {
        from_fn(|i| unsafe { vreinterpretq_s32_f32(x[i]) })
    }
    #[inline(always)]
    fn set_bit_4(self, x: Self::I, mask: u16) -> Self::I {
        let bits: [i32; 16] = from_fn(|i| 1 << i);
        from_fn(|i| unsafe {
            let lane = vld1q_s32(bits.as_ptr().add(4 * i));
            let set = vtstq_s32(vdupq_n_s32(i32::from(mask)), lane);
            let bit = vandq_s32(vreinterpretq_s32_u32(set), vdupq_n_s32(16));
            vorrq_s32(x[i], bit)
        })
    }

    // The intrinsics for half floats need a type that is not stable; conversion by integers is
    // exact: the exponent is rebased by a product, which also normalises subnormal numbers.
    #[inline(always)]
    fn halves(self, x: &[u8; 32]) -> Self::F {
        let words = self.words(x);
        let sign = self.int_shl(self.int_and(words, self.splat_int(0x8000)), 16);
        let rest = self.int_shl(self.int_and(words, self.splat_int(0x7fff)), 13);
        let rebase = self.splat(f32::from_bits((127 + 112) << 23));
        let number = self.mul(self.from_bits(rest), rebase);
        // Infinite and no numbers have the largest exponent there and here.
        let special = self.from_bits(self.int_add(rest, self.splat_int(224 << 23)));
        let number = self.select_less(number, self.splat(65536.0), number, special);
        self.from_bits(self.int_add(self.to_bits(number), sign))
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; 16]) -> Self::F {
        let mut bytes = [0; 32];
        for (bytes, x) in bytes.as_chunks_mut().0.iter_mut().zip(x) {
            *bytes = x.to_le_bytes();
        }
        self.halves(&bytes)
    }
    #[inline(always)]
    fn store_halves(self, x: Self::F, out: &mut [u16; 16]) {
        let mut floats = [0.0; 16];
        self.store(x, &mut floats);
        *out = floats.map(|x| half::f16::from_f32(x).to_bits());
    }
    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }

    #[inline(always)]
    fn load_32(self, x: &[u8; 32]) -> Self::B {
        unsafe { [vld1q_u8(x.as_ptr()), vld1q_u8(x.as_ptr().add(16))] }
    }
    #[inline(always)]
    fn store_32(self, x: Self::B, out: &mut [u8; 32]) {
        unsafe {
            vst1q_u8(out.as_mut_ptr(), x[0]);
            vst1q_u8(out.as_mut_ptr().add(16), x[1]);
        }
    }
    #[inline(always)]
    fn shr_and(self, x: Self::B, n: u32, mask: u8) -> Self::B {
        from_fn(|i| unsafe { vandq_u8(vshlq_u8(x[i], vdupq_n_s8(-(n as i8))), vdupq_n_u8(mask)) })
    }
    #[inline(always)]
    fn shl_and(self, x: Self::B, n: u32, mask: u8) -> Self::B {
        from_fn(|i| unsafe { vandq_u8(vshlq_u8(x[i], vdupq_n_s8(n as i8)), vdupq_n_u8(mask)) })
    }
    #[inline(always)]
    fn or_32(self, a: Self::B, b: Self::B) -> Self::B {
        from_fn(|i| unsafe { vorrq_u8(a[i], b[i]) })
    }
    #[inline(always)]
    fn negate(self, x: Self::B, signs: u32) -> Self::B {
        let own = [1, 2, 4, 8, 16, 32, 64, 128];
        let [a, b, c, d] = signs.to_le_bytes();
        let half = |x, low, high| unsafe {
            let own = vld1_u8(own.as_ptr());
            let own = vcombine_u8(own, own);
            let set = vtstq_u8(vcombine_u8(vdup_n_u8(low), vdup_n_u8(high)), own);
            vsubq_u8(veorq_u8(x, set), set)
        };
        [half(x[0], a, b), half(x[1], c, d)]
    }
    #[inline(always)]
    fn lookup(self, x: Self::B, table: &[i8; 16]) -> Self::B {
        from_fn(|i| unsafe { vqtbl1q_u8(vld1q_u8(table.as_ptr().cast()), x[i]) })
    }

    #[inline(always)]
    fn load_shorts(self, x: &[i16; 32]) -> Self::S {
        from_fn(|i| unsafe { vld1q_s16(x.as_ptr().add(8 * i)) })
    }
    #[inline(always)]
    fn store_shorts(self, x: Self::S, out: &mut [i16; 32]) {
        for (i, x) in x.into_iter().enumerate() {
            unsafe { vst1q_s16(out.as_mut_ptr().add(8 * i), x) }
        }
    }
    #[inline(always)]
    fn join(self, low: Self::B, high: Self::B) -> Self::S {
        from_fn(|i| unsafe { vreinterpretq_s16_u8(if i < 2 { low[i] } else { high[i - 2] }) })
    }
    #[inline(always)]
    fn shorts_and(self, a: Self::S, mask: i16) -> Self::S {
        from_fn(|i| unsafe { vandq_s16(a[i], vdupq_n_s16(mask)) })
    }
    #[inline(always)]
    fn shorts_or(self, a: Self::S, b: Self::S) -> Self::S {
        from_fn(|i| unsafe { vorrq_s16(a[i], b[i]) })
    }
    // A shift to the left by a negative count is one to the right.
    #[inline(always)]
    fn shorts_shr(self, a: Self::S, n: u32) -> Self::S {
        from_fn(|i| unsafe {
            let shifted = vshlq_u16(vreinterpretq_u16_s16(a[i]), vdupq_n_s16(-(n as i16)));
            vreinterpretq_s16_u16(shifted)
        })
    }
    #[inline(always)]
    fn shorts_sub(self, a: Self::S, b: Self::S) -> Self::S {
        from_fn(|i| unsafe { vsubq_s16(a[i], b[i]) })
    }
    #[inline(always)]
    fn shorts_mul(self, a: Self::S, b: Self::S) -> Self::S {
        from_fn(|i| unsafe { vmulq_s16(a[i], b[i]) })
    }
    #[inline(always)]
    fn splat_pair(self, [a, b]: [i16; 2]) -> Self::S {
        let pair = i32::from(a as u16) | i32::from(b) << 16;
        unsafe { [vreinterpretq_s16_s32(vdupq_n_s32(pair)); 4] }
    }
    #[inline(always)]
    fn splat_quarters(self, x: &[u8; 16], at: [u8; 4]) -> Self::S {
        from_fn(|i| unsafe { vdupq_n_s16(i16::from(x[usize::from(at[i])])) })
    }
    #[inline(always)]
    fn eight_twice(self, x: u64) -> Self::S {
        unsafe {
            let shorts = vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(x)));
            let zero = vdupq_n_s16(0);
            [shorts, shorts, zero, zero]
        }
    }
    #[inline(always)]
    fn dot_pairs(self, acc: Self::I, a: Self::S, b: Self::S) -> Self::I {
        from_fn(|i| unsafe {
            let low = vmull_s16(vget_low_s16(a[i]), vget_low_s16(b[i]));
            let high = vmull_high_s16(a[i], b[i]);
            vaddq_s32(acc[i], vpaddq_s32(low, high))
        })
    }
    #[inline(always)]
    fn sum_quarters(self, [a, b, c, d]: [Self::I; 4]) -> Self::I {
        from_fn(|i| unsafe { vpaddq_s32(vpaddq_s32(a[i], b[i]), vpaddq_s32(c[i], d[i])) })
    }
    #[inline(always)]
    fn splat_four(self, x: [f32; 4]) -> Self::F {
        unsafe { [vld1q_f32(x.as_ptr()); 4] }
    }
}

/// Sixteen unsigned words as integers.
#[inline(always)]
fn widen(low: uint16x8_t, high: uint16x8_t) -> [int32x4_t; 4] {
    // SAFETY: NEON is part of every processor this file is compiled for, and `Neon` proves it.
    unsafe {
        [
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
            vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
            vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high))),
        ]
    }
}
