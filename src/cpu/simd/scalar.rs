//! Plain Rust: the reference for the other instruction sets, and all that other processors need.

use super::{Isa, Kernel, LANES, Lanes};

#[derive(Debug, Clone, Copy)]
pub struct Scalar;

/// Applies a function to each lane.
#[inline(always)]
fn each<T: Copy, U: Copy, const N: usize>(x: [T; N], f: impl Fn(T) -> U) -> [U; N] {
    std::array::from_fn(|i| f(x[i]))
}

/// Applies a function to each pair of lanes.
#[inline(always)]
fn both<T: Copy, const N: usize>(a: [T; N], b: [T; N], f: impl Fn(T, T) -> T) -> [T; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Isa for Scalar {
    type F = Lanes;
    type I = [i32; LANES];
    type B = [u8; 32];
    type S = [i16; 32];
    const WIDE: bool = false;

    fn detect() -> Option<Self> {
        Some(Scalar)
    }

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &Lanes) -> Self::F {
        *x
    }
    #[inline(always)]
    fn store(self, x: Self::F, out: &mut Lanes) {
        *out = x;
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    fn greater(self, a: Self::F, b: Self::F) -> u32 {
        (0..LANES).fold(0, |mask, i| mask | u32::from(a[i] > b[i]) << i)
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        let x8: [f32; 8] = std::array::from_fn(|i| x[i] + x[i + 8]);
        let x4: [f32; 4] = std::array::from_fn(|i| x8[i] + x8[i + 4]);
        (x4[0] + x4[2]) + (x4[1] + x4[3])
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; 16]) -> Self::I {
        each(*x, i32::from)
    }
    #[inline(always)]
    fn signed_bytes(self, x: &[u8; 16]) -> Self::I {
        each(*x, |x| i32::from(x as i8))
    }
    #[inline(always)]
    fn words(self, x: &[u8; 32]) -> Self::I {
        std::array::from_fn(|i| i32::from(u16::from_le_bytes([x[2 * i], x[2 * i + 1]])))
    }
    #[inline(always)]
    fn int_add(self, a: Self::I, b: Self::I) -> Self::I {
        both(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn int_and(self, a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn int_shl(self, a: Self::I, n: u32) -> Self::I {
        each(a, |a| a << n)
    }
    #[inline(always)]
    fn int_shr(self, a: Self::I, n: u32) -> Self::I {
        each(a, |a| (a as u32 >> n) as i32)
    }
    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::F {
        each(x, |x| x as f32)
    }
    #[inline(always)]
    fn from_bits(self, x: Self::I) -> Self::F {
        each(x, |x| f32::from_bits(x as u32))
    }
    #[inline(always)]
    fn to_bits(self, x: Self::F) -> Self::I {
        each(x, |x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn set_bit_4(self, x: Self::I, mask: u16) -> Self::I {
        std::array::from_fn(|i| x[i] | i32::from(mask >> i & 1) << 4)
    }

    #[inline(always)]
    fn halves(self, x: &[u8; 32]) -> Self::F {
        each(self.words(x), |x| half::f16::from_bits(x as u16).to_f32())
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; 16]) -> Self::F {
        each(*x, |x| half::f16::from_bits(x).to_f32())
    }
    #[inline(always)]
    fn store_halves(self, x: Self::F, out: &mut [u16; 16]) {
        *out = each(x, |x| half::f16::from_f32(x).to_bits());
    }
    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }

    #[inline(always)]
    fn load_32(self, x: &[u8; 32]) -> Self::B {
        *x
    }
    #[inline(always)]
    fn store_32(self, x: Self::B, out: &mut [u8; 32]) {
        *out = x;
    }
    #[inline(always)]
    fn shr_and(self, x: Self::B, n: u32, mask: u8) -> Self::B {
        each(x, |x| x >> n & mask)
    }
    #[inline(always)]
    fn shl_and(self, x: Self::B, n: u32, mask: u8) -> Self::B {
        each(x, |x| x << n & mask)
    }
    #[inline(always)]
    fn or_32(self, a: Self::B, b: Self::B) -> Self::B {
        both(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn negate(self, x: Self::B, signs: u32) -> Self::B {
        let sign = |i: usize, x: u8| {
            if signs >> i & 1 == 1 {
                x.wrapping_neg()
            } else {
                x
            }
        };
        std::array::from_fn(|i| sign(i, x[i]))
    }
    #[inline(always)]
    fn lookup(self, x: Self::B, table: &[i8; 16]) -> Self::B {
        each(x, |x| table[usize::from(x)] as u8)
    }

    #[inline(always)]
    fn load_shorts(self, x: &[i16; 32]) -> Self::S {
        *x
    }
    #[inline(always)]
    fn store_shorts(self, x: Self::S, out: &mut [i16; 32]) {
        *out = x;
    }
    #[inline(always)]
    fn join(self, low: Self::B, high: Self::B) -> Self::S {
        let bytes = |i: usize| match i {
            0..16 => [low[2 * i], low[2 * i + 1]],
            _ => [high[2 * i - 32], high[2 * i - 31]],
        };
        std::array::from_fn(|i| i16::from_le_bytes(bytes(i)))
    }
    #[inline(always)]
    fn shorts_and(self, a: Self::S, mask: i16) -> Self::S {
        each(a, |a| a & mask)
    }
    #[inline(always)]
    fn shorts_or(self, a: Self::S, b: Self::S) -> Self::S {
        both(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn shorts_shr(self, a: Self::S, n: u32) -> Self::S {
        each(a, |a| (a as u16 >> n) as i16)
    }
    #[inline(always)]
    fn shorts_sub(self, a: Self::S, b: Self::S) -> Self::S {
        both(a, b, i16::wrapping_sub)
    }
    #[inline(always)]
    fn shorts_mul(self, a: Self::S, b: Self::S) -> Self::S {
        both(a, b, i16::wrapping_mul)
    }
    #[inline(always)]
    fn splat_pair(self, x: [i16; 2]) -> Self::S {
        std::array::from_fn(|i| x[i % 2])
    }
    #[inline(always)]
    fn splat_quarters(self, x: &[u8; 16], at: [u8; 4]) -> Self::S {
        std::array::from_fn(|i| i16::from(x[usize::from(at[i / 8])]))
    }
    #[inline(always)]
    fn eight_twice(self, x: u64) -> Self::S {
        std::array::from_fn(|i| {
            if i < 16 {
                i16::from(x.to_le_bytes()[i % 8])
            } else {
                0
            }
        })
    }
    #[inline(always)]
    fn dot_pairs(self, acc: Self::I, a: Self::S, b: Self::S) -> Self::I {
        let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
        std::array::from_fn(|i| acc[i] + product(2 * i) + product(2 * i + 1))
    }
    #[inline(always)]
    fn sum_quarters(self, x: [Self::I; 4]) -> Self::I {
        let sum = |x: &[i32]| x[0] + x[1] + x[2] + x[3];
        std::array::from_fn(|i| sum(&x[i % 4][i / 4 * 4..]))
    }
    #[inline(always)]
    fn splat_four(self, x: [f32; 4]) -> Self::F {
        std::array::from_fn(|i| x[i % 4])
    }
}
