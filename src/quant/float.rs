//! Weights stored as plain floats.

/// 32-bit floats.
pub(super) fn f32(bytes: &[u8], out: &mut [f32]) {
    for (b, w) in bytes.chunks_exact(4).zip(out) {
        *w = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
}

/// IEEE half floats.
pub(super) fn f16(bytes: &[u8], out: &mut [f32]) {
    for (b, w) in bytes.chunks_exact(2).zip(out) {
        *w = half::f16::from_le_bytes([b[0], b[1]]).to_f32();
    }
}

/// The upper half of a 32-bit float.
pub(super) fn bf16(bytes: &[u8], out: &mut [f32]) {
    for (b, w) in bytes.chunks_exact(2).zip(out) {
        *w = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
    }
}
