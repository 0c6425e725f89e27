//! The K types: 256 weights a block, with scales that are quantised themselves.

use super::coded::{Coded, pairs};
use super::{SPAN, f16_at};

/// `d * scale * code - dmin * min`, 16 weights a scale: 16 bytes of a nibble of scale and one of
/// minimum, 64 bytes of pairs, f16 d, f16 dmin.
pub(super) fn q2_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(84).zip(out.chunks_exact_mut(256)) {
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for (i, w) in out.iter_mut().enumerate() {
            let packed = block[i / 16];
            let (scale, bias) = (d * f32::from(packed & 15), dmin * f32::from(packed >> 4));
            let code = q2_k_codes(block, i / SPAN)[i % SPAN];
            *w = scale * f32::from(code) - bias;
        }
    }
}

/// Codes of span `span` of a Q2_K block: each 32 bytes hold four spans, the lowest bits first.
#[inline(always)]
pub fn q2_k_codes(block: &[u8], span: usize) -> [u8; SPAN] {
    pairs(&block[16 + span / 4 * 32..], 2 * (span % 4))
}

/// `d * (scale - 32) * (code - 4)`, 16 weights a scale: 32 bytes of upper bits, 64 bytes of pairs, 12
/// bytes of scales, f16 d. Bit `j` of the upper bits belongs to span `j`.
pub struct Q3K;

impl Coded for Q3K {
    const SPANS: usize = 8;
    const BYTES: usize = 110;
    const TABLE: Option<[i8; 16]> = Some([-4, -3, -2, -1, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]);

    #[inline(always)]
    fn step(block: &[u8]) -> u16 {
        u16::from_le_bytes([block[108], block[109]])
    }

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let mut out = pairs(&block[32 + span / 4 * 32..], 2 * (span % 4));
        for (out, upper) in out.iter_mut().zip(&block[..SPAN]) {
            *out |= (upper >> span & 1) << 2;
        }
        out
    }

    #[inline(always)]
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2] {
        let packed = &block[96..108];
        let scale = |i: usize| {
            let low = packed[i % 8] >> (4 * (i / 8)) & 15;
            let high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
            step * (f32::from(low | high << 4) - 32.0)
        };
        [scale(2 * span), scale(2 * span + 1)]
    }
}

/// Scale and minimum (0..=63) of sub-block `j` (0..8) from the 12 bytes that Q4_K and Q5_K pack
/// them in.
pub fn scale_min(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
            packed[j + 4] >> 4 | packed[j] >> 6 << 4,
        )
    }
}

/// `d * scale * code - dmin * min`, 32 weights a scale: f16 d, f16 dmin, 12 bytes of scales,
/// 128 bytes of nibbles. Each 32 nibble bytes hold 64 weights, the low nibbles first.
pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(144).zip(out.chunks_exact_mut(256)) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_min(&block[4..16], j);
            let (scale, bias) = (d * f32::from(scale), dmin * f32::from(min));
            for (i, w) in out.iter_mut().enumerate() {
                *w = scale * f32::from(q4_k_code(block, j, i)) - bias;
            }
        }
    }
}

/// As [`q4_k`] with a fifth bit: bit j of high byte l belongs to weight l of sub-block j.
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(176).zip(out.chunks_exact_mut(256)) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_min(&block[4..16], j);
            let (scale, bias) = (d * f32::from(scale), dmin * f32::from(min));
            for (i, w) in out.iter_mut().enumerate() {
                *w = scale * f32::from(q5_k_code(block, j, i)) - bias;
            }
        }
    }
}

/// Code `i` of sub-block `j` of a Q4_K block.
pub(super) fn q4_k_code(block: &[u8], j: usize, i: usize) -> u8 {
    block[16 + j / 2 * 32 + i] >> (4 * (j % 2)) & 15
}

/// Code `i` of sub-block `j` of a Q5_K block.
pub(super) fn q5_k_code(block: &[u8], j: usize, i: usize) -> u8 {
    block[48 + j / 2 * 32 + i] >> (4 * (j % 2)) & 15 | (block[16 + i] >> j & 1) << 4
}

/// Code `i` (0..256) of a Q6_K block.
pub(super) fn q6_k_code(block: &[u8], i: usize) -> u8 {
    let (half, plane, l) = (i / 128, i / 32 % 4, i % 32);
    let low = block[half * 64 + plane % 2 * 32 + l] >> (4 * (plane / 2)) & 15;
    low | (block[128 + half * 32 + l] >> (2 * plane) & 3) << 4
}

/// `d * scale * (code - 32)`, 16 weights a scale: 128 bytes of low nibbles, 64 bytes of upper bit
/// pairs, 16 signed scales, f16 d. Each half of 128 weights is four planes of 32.
pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(210).zip(out.chunks_exact_mut(256)) {
        let d = f16_at(block, 208);
        for (i, w) in out.iter_mut().enumerate() {
            let scale = block[192 + i / 16] as i8;
            *w = d * f32::from(scale) * (f32::from(q6_k_code(block, i)) - 32.0);
        }
    }
}
