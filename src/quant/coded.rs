//! Types whose weights are a scale times a signed code of one byte, with a scale per 16 weights.

use super::SPAN;

/// How such a type packs codes and scales.
pub trait Coded {
    /// Spans of a block.
    const SPANS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// What packed codes stand for; where there is none, [`Self::codes`] gives signed bytes.
    const TABLE: Option<[i8; 16]>;
    /// Whether codes have their signs apart.
    const SIGNS: bool = false;

    /// The block's factor, a half float's bits.
    fn step(block: &[u8]) -> u16 {
        u16::from_le_bytes([block[0], block[1]])
    }

    /// Codes of span `span` of a block, in the order of the weights.
    fn codes(block: &[u8], span: usize) -> [u8; SPAN];

    /// The codes of the span that are negated, one bit each.
    fn signs(_block: &[u8], _span: usize) -> u32 {
        0
    }

    /// Scales of the span's halves, given the block's factor.
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2];
}

/// Decodes whole blocks.
pub(super) fn decode<T: Coded>(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.chunks_exact(T::BYTES);
    for (block, out) in blocks.zip(out.chunks_exact_mut(T::SPANS * SPAN)) {
        let step = half::f16::from_bits(T::step(block)).to_f32();
        for (j, out) in out.chunks_exact_mut(SPAN).enumerate() {
            let (codes, scales) = (T::codes(block, j), T::scales(step, block, j));
            let signs = T::signs(block, j);
            for (i, w) in out.iter_mut().enumerate() {
                let code = match T::TABLE {
                    Some(table) => table[usize::from(codes[i])],
                    None => codes[i] as i8,
                };
                let code = if signs >> i & 1 == 1 { -code } else { code };
                *w = scales[i / 16] * f32::from(code);
            }
        }
    }
}

/// The two nibbles of each byte: low ones, then high ones.
#[inline(always)]
pub(super) fn nibbles<const N: usize>(bytes: &[u8], out: &mut [u8]) {
    for i in 0..N {
        out[i] = bytes[i] & 15;
        out[N + i] = bytes[i] >> 4;
    }
}

/// The pairs of bits that lie `shift` bits up in each of 32 bytes.
#[inline(always)]
pub(super) fn pairs(bytes: &[u8], shift: usize) -> [u8; SPAN] {
    let mut out = [0; SPAN];
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = byte >> shift & 3;
    }
    out
}
