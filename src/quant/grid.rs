//! Types whose codes are points of a grid: an index stands for eight codes, or four.

use super::coded::Coded;
use super::{SPAN, grids};

/// A span's codes, of four words of eight.
#[inline(always)]
fn bytes(words: [u64; 4]) -> [u8; SPAN] {
    bytemuck::cast(words.map(u64::to_le))
}

/// Four times eight signs of seven bits each, one above the other: the number of set ones is even.
#[inline(always)]
fn even_signs(sevens: u32) -> u32 {
    let bits =
        sevens & 0x7f | sevens << 1 & 0x7f00 | sevens << 2 & 0x7f_0000 | sevens << 3 & 0x7f00_0000;
    // The lowest bit of each byte becomes the sum of its bits.
    let sum = bits ^ bits >> 4;
    let sum = sum ^ sum >> 2;
    let sum = sum ^ sum >> 1;
    bits | (sum & 0x0101_0101) << 7
}

#[inline(always)]
fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

#[inline(always)]
fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The scales that a byte's nibbles give the halves of a span.
#[inline(always)]
fn nibble_scales(step: f32, byte: u8) -> [f32; 2] {
    let scale = |nibble: u8| step * (0.5 + f32::from(nibble)) * 0.25;
    [scale(byte & 15), scale(byte >> 4)]
}

/// `d * (scale + 1/2) / 4 * code`: f16 d; per span four indices of eight bits, then four times
/// seven signs and a scale of four bits.
pub struct Iq2Xxs;

impl Coded for Iq2Xxs {
    const SPANS: usize = 8;
    const BYTES: usize = 66;
    const TABLE: Option<[i8; 16]> = None;
    const SIGNS: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let indices = &block[2 + 8 * span..];
        let mut out = [0; 4];
        for (k, out) in out.iter_mut().enumerate() {
            *out = grids::IQ2_XXS[usize::from(indices[k])];
        }
        bytes(out)
    }

    #[inline(always)]
    fn signs(block: &[u8], span: usize) -> u32 {
        even_signs(u32_at(block, 6 + 8 * span))
    }

    #[inline(always)]
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2] {
        let scale = (u32_at(block, 6 + 8 * span) >> 28) as f32;
        [step * (0.5 + scale) * 0.25; 2]
    }
}

/// As [`Iq2Xxs`] with nine bits of index and seven signs in each pair of bytes, and eight bytes with
/// a nibble of scale per 16 weights.
pub struct Iq2Xs;

impl Coded for Iq2Xs {
    const SPANS: usize = 8;
    const BYTES: usize = 74;
    const TABLE: Option<[i8; 16]> = None;
    const SIGNS: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let mut out = [0; 4];
        for (k, out) in out.iter_mut().enumerate() {
            let packed = u16_at(block, 2 + 8 * span + 2 * k);
            *out = grids::IQ2_XS[usize::from(packed & 511)];
        }
        bytes(out)
    }

    #[inline(always)]
    fn signs(block: &[u8], span: usize) -> u32 {
        let seven = |k: usize| u32::from(u16_at(block, 2 + 8 * span + 2 * k) >> 9) << (7 * k);
        even_signs(seven(0) | seven(1) | seven(2) | seven(3))
    }

    #[inline(always)]
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2] {
        nibble_scales(step, block[66 + span])
    }
}

/// As [`Iq2Xs`] with ten bits of index: f16 d, low bytes, eight signs for each, upper pairs, scales.
pub struct Iq2S;

impl Coded for Iq2S {
    const SPANS: usize = 8;
    const BYTES: usize = 82;
    const TABLE: Option<[i8; 16]> = None;
    const SIGNS: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let low = &block[2 + 4 * span..];
        let high = usize::from(block[66 + span]);
        let mut out = [0; 4];
        for (k, out) in out.iter_mut().enumerate() {
            *out = grids::IQ2_S[usize::from(low[k]) | (high >> (2 * k) & 3) << 8];
        }
        bytes(out)
    }

    #[inline(always)]
    fn signs(block: &[u8], span: usize) -> u32 {
        u32_at(block, 34 + 4 * span)
    }

    #[inline(always)]
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2] {
        nibble_scales(step, block[74 + span])
    }
}

/// `d * (scale + 1/2) / 2 * code`: f16 d; eight indices per span, each of four codes; then per span
/// the signs and scale of [`Iq2Xxs`].
pub struct Iq3Xxs;

impl Coded for Iq3Xxs {
    const SPANS: usize = 8;
    const BYTES: usize = 98;
    const TABLE: Option<[i8; 16]> = None;
    const SIGNS: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let indices = &block[2 + 8 * span..];
        let mut out = [0; 8];
        for (i, out) in out.iter_mut().enumerate() {
            *out = grids::IQ3_XXS[usize::from(indices[i])].to_le();
        }
        bytemuck::cast(out)
    }

    #[inline(always)]
    fn signs(block: &[u8], span: usize) -> u32 {
        even_signs(u32_at(block, 66 + 4 * span))
    }

    #[inline(always)]
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2] {
        let scale = (u32_at(block, 66 + 4 * span) >> 28) as f32;
        [step * (0.5 + scale) * 0.5; 2]
    }
}

/// `d * (2 * scale + 1) * code`: f16 d, low bytes of indices, their ninth bits, signs, a nibble of
/// scale per span.
pub struct Iq3S;

impl Coded for Iq3S {
    const SPANS: usize = 8;
    const BYTES: usize = 110;
    const TABLE: Option<[i8; 16]> = None;
    const SIGNS: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let low = &block[2 + 8 * span..];
        let high = usize::from(block[66 + span]);
        let mut out = [0; 8];
        for (i, out) in out.iter_mut().enumerate() {
            *out = grids::IQ3_S[usize::from(low[i]) | (high >> i & 1) << 8].to_le();
        }
        bytemuck::cast(out)
    }

    #[inline(always)]
    fn signs(block: &[u8], span: usize) -> u32 {
        u32_at(block, 74 + 4 * span)
    }

    #[inline(always)]
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2] {
        let nibble = block[106 + span / 2] >> (4 * (span % 2)) & 15;
        [step * f32::from(2 * nibble + 1); 2]
    }
}

/// Codes of the IQ1 types in eighths: eight times a point of -1, 0 and 1, plus or minus one.
#[inline(always)]
fn iq1_codes(index: usize, minus: bool) -> u64 {
    // The grid is moved up by 8: the bytes are at most 18, and 9 less is what they stand for. They
    // are taken apart by setting the upper bits first, so that no byte borrows from the next.
    const ONES: u64 = 0x0101_0101_0101_0101;
    const UPPER: u64 = 0x80 * ONES;
    let shifted = grids::IQ1[index] + if minus { 0 } else { 2 * ONES };
    ((shifted | UPPER) - 9 * ONES) ^ UPPER
}

/// `d * (2 * scale + 1) * (point + delta)`, delta being an eighth of either sign: f16 d, low bytes of
/// indices; per span four times three upper bits, a scale of three bits and delta's sign.
pub struct Iq1S;

impl Coded for Iq1S {
    const SPANS: usize = 8;
    const BYTES: usize = 50;
    const TABLE: Option<[i8; 16]> = None;

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let (low, high) = (&block[2 + 4 * span..], u16_at(block, 34 + 2 * span));
        let mut out = [0; 4];
        for (k, out) in out.iter_mut().enumerate() {
            let index = usize::from(low[k]) | usize::from(high >> (3 * k) & 7) << 8;
            *out = iq1_codes(index, high >> 15 == 1);
        }
        bytes(out)
    }

    #[inline(always)]
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2] {
        let scale = u16_at(block, 34 + 2 * span) >> 12 & 7;
        [step * f32::from(2 * scale + 1) * 0.125; 2]
    }
}

/// As [`Iq1S`] with a sign of delta per eight weights and a scale per 16: low bytes of indices, per
/// index a nibble of three upper bits and the sign, then four pairs of bytes, each with four scales
/// of three bits and four bits of f16 d.
pub struct Iq1M;

impl Coded for Iq1M {
    const SPANS: usize = 8;
    const BYTES: usize = 56;
    const TABLE: Option<[i8; 16]> = None;

    #[inline(always)]
    fn step(block: &[u8]) -> u16 {
        let bits = |i: usize| (u16_at(block, 48 + 2 * i) >> 12) << (4 * i);
        bits(0) | bits(1) | bits(2) | bits(3)
    }

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let (low, high) = (&block[4 * span..], u16_at(block, 32 + 2 * span));
        let mut out = [0; 4];
        for (k, out) in out.iter_mut().enumerate() {
            let nibble = usize::from(high >> (4 * k) & 15);
            let index = usize::from(low[k]) | (nibble & 7) << 8;
            *out = iq1_codes(index, nibble >> 3 == 1);
        }
        bytes(out)
    }

    #[inline(always)]
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2] {
        let packed = u16_at(block, 48 + span / 2 * 2) >> (6 * (span % 2));
        let scale = |bits: u16| step * f32::from(2 * (bits & 7) + 1) * 0.125;
        [scale(packed), scale(packed >> 3)]
    }
}
