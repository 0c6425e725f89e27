//! The types with 32 weights a block. The low nibble of byte j is weight j, the high one j + 16.

use super::f16_at;

/// Splits 16 nibble bytes into 32 codes, `high[i]` being bit 4 of code i.
pub(super) fn codes(nibbles: &[u8], high: u32) -> [u8; 32] {
    std::array::from_fn(|i| {
        let nibble = nibbles[i % 16] >> (4 * (i / 16)) & 15;
        nibble | ((high >> i & 1) as u8) << 4
    })
}

/// The little-endian word of fifth bits at byte `at`.
pub(super) fn high_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// `d * (code - 8)`: f16 d, 16 bytes of nibbles.
pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(18).zip(out.chunks_exact_mut(32)) {
        let d = f16_at(block, 0);
        for (w, code) in out.iter_mut().zip(codes(&block[2..], 0)) {
            *w = d * (f32::from(code) - 8.0);
        }
    }
}

/// `d * code + m`: f16 d, f16 m, nibbles.
pub(super) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(20).zip(out.chunks_exact_mut(32)) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        for (w, code) in out.iter_mut().zip(codes(&block[4..], 0)) {
            *w = d * f32::from(code) + m;
        }
    }
}

/// `d * (code - 16)`: f16 d, 32 high bits, nibbles.
pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(22).zip(out.chunks_exact_mut(32)) {
        let d = f16_at(block, 0);
        let codes = codes(&block[6..], high_bits(block, 2));
        for (w, code) in out.iter_mut().zip(codes) {
            *w = d * (f32::from(code) - 16.0);
        }
    }
}

/// `d * code + m`: f16 d, f16 m, 32 high bits, nibbles.
pub(super) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(24).zip(out.chunks_exact_mut(32)) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        let codes = codes(&block[8..], high_bits(block, 4));
        for (w, code) in out.iter_mut().zip(codes) {
            *w = d * f32::from(code) + m;
        }
    }
}

/// `d * code`: f16 d, 32 signed bytes.
pub(super) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(34).zip(out.chunks_exact_mut(32)) {
        let d = f16_at(block, 0);
        for (w, &code) in out.iter_mut().zip(&block[2..]) {
            *w = d * f32::from(code as i8);
        }
    }
}
