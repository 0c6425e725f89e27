//! The K types: 256 weights a block, with scales that are quantised themselves.

use super::f16_at;

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
            let nibbles = &block[16 + j / 2 * 32..];
            for (w, &byte) in out.iter_mut().zip(nibbles) {
                *w = scale * f32::from(byte >> (4 * (j % 2)) & 15) - bias;
            }
        }
    }
}

/// As [`q4_k`] with a fifth bit: bit j of high byte l belongs to weight l of sub-block j.
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(176).zip(out.chunks_exact_mut(256)) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let high = &block[16..48];
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_min(&block[4..16], j);
            let (scale, bias) = (d * f32::from(scale), dmin * f32::from(min));
            let nibbles = &block[48 + j / 2 * 32..];
            for (l, w) in out.iter_mut().enumerate() {
                let code = nibbles[l] >> (4 * (j % 2)) & 15 | (high[l] >> j & 1) << 4;
                *w = scale * f32::from(code) - bias;
            }
        }
    }
}

/// `d * scale * (code - 32)`, 16 weights a scale: 128 bytes of low nibbles, 64 bytes of upper bit
/// pairs, 16 signed scales, f16 d. Each half of 128 weights is four planes of 32.
pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(210).zip(out.chunks_exact_mut(256)) {
        let d = f16_at(block, 208);
        for (i, w) in out.iter_mut().enumerate() {
            let (half, plane, l) = (i / 128, i / 32 % 4, i % 32);
            let low = block[half * 64 + plane % 2 * 32 + l] >> (4 * (plane / 2)) & 15;
            let high = block[128 + half * 32 + l] >> (2 * plane) & 3;
            let scale = block[192 + i / 16] as i8;
            *w = d * f32::from(scale) * (f32::from(low | high << 4) - 32.0);
        }
    }
}
