//! Weights that go through products as integers: the K types whose codes times the scales of their
//! sub-blocks fit 16 bits.
//!
//! Two 32-byte runs of codes make a vector of 64 bytes, and its even and odd bytes the two vectors
//! of 16-bit weights `scale * (code - centre)`. Activations are put in the same order.

use super::array;
use crate::cpu::simd::Isa;
use crate::quant::QuantType;

/// Weights of a block.
pub const BLOCK: usize = 256;
/// Vectors of codes in a block.
pub const VECTORS: usize = 4;

/// How blocks of one quant type become integers.
pub trait IntegerFormat {
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether weights are less a minimum: `d * scale * code - dmin * min`.
    const HAS_MINIMA: bool;
    /// What is subtracted from a code.
    const CENTRE: i16;
    /// Whether scales have signs.
    const HAS_SIGNS: bool;
    /// The largest activation: with it the products of 64 weights add up to less than 2^31.
    const MOST: i32;

    /// The half floats `d` and, where there are minima, `dmin`.
    fn factors(block: &[u8]) -> [u16; 2];
    /// Scales of the sub-blocks, plus 128 where they have signs. Where there are minima, eight of each.
    fn scales(block: &[u8]) -> [u8; 16];
    /// Vector `v` of codes.
    fn codes<I: Isa>(isa: I, block: &[u8], v: usize) -> I::S;
    /// The first weight of each 32-byte run of vector `v`.
    fn runs(v: usize) -> [usize; 2];
    /// The numbers of the scales of vector `v`, by quarters.
    fn quarters(v: usize) -> [u8; 4];
}

/// A computation that is compiled for each format.
pub trait IntegerKernel {
    type Output;
    fn run<F: IntegerFormat>(self) -> Self::Output;
}

/// Runs a computation with the format of a type, if it has one.
#[inline(always)]
pub fn with_integer_format<K: IntegerKernel>(quant: QuantType, kernel: K) -> Option<K::Output> {
    Some(match quant {
        QuantType::Q4_K => kernel.run::<WithMinima<4>>(),
        QuantType::Q5_K => kernel.run::<WithMinima<5>>(),
        QuantType::Q6_K => kernel.run::<Q6K>(),
        _ => return None,
    })
}

/// Whether products with weights of a type are computed with integers.
pub fn is_integer(quant: QuantType) -> bool {
    struct Nothing;
    impl IntegerKernel for Nothing {
        type Output = ();
        fn run<F: IntegerFormat>(self) {}
    }
    with_integer_format(quant, Nothing).is_some()
}

/// The weights of vector `V` of codes, even ones and odd ones. Its number is a constant, so that
/// shifts and the order of scales are too.
#[inline(always)]
pub fn weights<I: Isa, F: IntegerFormat, const V: usize>(
    isa: I,
    block: &[u8],
    scales: &[u8; 16],
) -> [I::S; 2] {
    let codes = F::codes(isa, block, V);
    let mut even = isa.shorts_and(codes, 0x00ff);
    let mut odd = isa.shorts_shr(codes, 8);
    if F::CENTRE != 0 {
        let centre = isa.splat_pair([F::CENTRE; 2]);
        even = isa.shorts_sub(even, centre);
        odd = isa.shorts_sub(odd, centre);
    }
    let mut scales = isa.splat_quarters(scales, F::quarters(V));
    if F::HAS_SIGNS {
        scales = isa.shorts_sub(scales, isa.splat_pair([128; 2]));
    }
    [isa.shorts_mul(even, scales), isa.shorts_mul(odd, scales)]
}

/// Scales of Q4_K and Q5_K, then their minima, unpacked as bytes of four words.
#[inline(always)]
fn k_scales(block: &[u8]) -> [u8; 16] {
    const LOW_6: u32 = 0x3f3f_3f3f;
    const LOW_4: u32 = 0x0f0f_0f0f;
    const LOW_2: u32 = 0x0303_0303;
    let word = |at| u32::from_le_bytes(*array(block, at));
    let (a, b, c) = (word(4), word(8), word(12));
    let words = [
        (a & LOW_6).to_le(),
        (c & LOW_4 | (a >> 6 & LOW_2) << 4).to_le(),
        (b & LOW_6).to_le(),
        (c >> 4 & LOW_4 | (b >> 6 & LOW_2) << 4).to_le(),
    ];
    bytemuck::cast(words)
}

#[inline(always)]
fn half_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*array(block, at))
}

/// The nibbles of 64 bytes: the low ones of even vectors, the high ones of odd.
#[inline(always)]
fn nibbles<I: Isa>(isa: I, block: &[u8], at: usize, v: usize) -> I::S {
    let bytes = isa.load_shorts(&bytemuck::pod_read_unaligned(array::<64>(block, at)));
    isa.shorts_and(isa.shorts_shr(bytes, 4 * (v as u32 % 2)), 0x0f0f)
}

/// `d * scale * code - dmin * min`: codes of `BITS`, scales to 63.
pub struct WithMinima<const BITS: u32>;

impl<const BITS: u32> IntegerFormat for WithMinima<BITS> {
    const BYTES: usize = BLOCK * BITS as usize / 8 + 16;
    const HAS_MINIMA: bool = true;
    const CENTRE: i16 = 0;
    const HAS_SIGNS: bool = false;
    const MOST: i32 = 32767 >> (BITS - 4);

    #[inline(always)]
    fn factors(block: &[u8]) -> [u16; 2] {
        [half_at(block, 0), half_at(block, 2)]
    }
    #[inline(always)]
    fn scales(block: &[u8]) -> [u8; 16] {
        k_scales(block)
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8], v: usize) -> I::S {
        let low = nibbles(isa, block, Self::BYTES - 128 + v / 2 * 64, v);
        if BITS == 4 {
            return low;
        }
        let bits = isa.load_32(array(block, 16));
        let first = (v / 2 * 4 + v % 2) as u32;
        let high = match first {
            0 | 1 => [
                isa.shl_and(bits, 4 - first, 16),
                isa.shl_and(bits, 2 - first, 16),
            ],
            _ => [
                isa.shr_and(bits, first - 4, 16),
                isa.shr_and(bits, first - 2, 16),
            ],
        };
        isa.shorts_or(low, isa.join(high[0], high[1]))
    }
    /// Sub-blocks of 32: those of a vector are two apart.
    #[inline(always)]
    fn runs(v: usize) -> [usize; 2] {
        let first = v / 2 * 128 + v % 2 * 32;
        [first, first + 64]
    }
    #[inline(always)]
    fn quarters(v: usize) -> [u8; 4] {
        let first = (v / 2 * 4 + v % 2) as u8;
        [first, first, first + 2, first + 2]
    }
}

/// `d * scale * (code - 32)`: codes to 63, scales from -128 to 127 for 16 weights each.
pub struct Q6K;

impl IntegerFormat for Q6K {
    const BYTES: usize = 210;
    const HAS_MINIMA: bool = false;
    const CENTRE: i16 = 32;
    const HAS_SIGNS: bool = true;
    const MOST: i32 = 8191;

    #[inline(always)]
    fn factors(block: &[u8]) -> [u16; 2] {
        [half_at(block, 208), 0]
    }
    #[inline(always)]
    fn scales(block: &[u8]) -> [u8; 16] {
        (u128::from_le_bytes(*array(block, 192)) ^ u128::from_le_bytes([0x80; 16])).to_le_bytes()
    }
    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8], v: usize) -> I::S {
        let low = nibbles(isa, block, v / 2 * 64, v);
        let bits = isa.load_32(array(block, 128 + v / 2 * 32));
        let high = match v % 2 {
            0 => [isa.shl_and(bits, 4, 0x30), isa.shl_and(bits, 2, 0x30)],
            _ => [isa.shr_and(bits, 0, 0x30), isa.shr_and(bits, 2, 0x30)],
        };
        isa.shorts_or(low, isa.join(high[0], high[1]))
    }
    #[inline(always)]
    fn runs(v: usize) -> [usize; 2] {
        let first = v / 2 * 128 + v % 2 * 64;
        [first, first + 32]
    }
    #[inline(always)]
    fn quarters(v: usize) -> [u8; 4] {
        let first = v as u8 * 4;
        [first, first + 1, first + 2, first + 3]
    }
}
