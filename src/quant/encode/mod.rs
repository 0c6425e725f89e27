//! Encoding weights on the CPU: floats to blocks, with the choices of scales that GGML makes without an importance
//! matrix, so that a file made here is as good as one of llama.cpp's.

mod fit;
mod k;
mod legacy;
#[cfg(test)]
mod tests;

use super::QuantType;

/// Largest magnitude that a scale in half precision can stand for with certainty.
const MAX_MAGNITUDE: f32 = 65504.0;

/// Why weights cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// The type is one that this program only reads.
    #[error("type {} is not written; written are F32, F16, BF16, Q4_0 to Q8_0 and Q2_K to Q6_K", .0.name())]
    Type(QuantType),
    /// A weight that is no number, or beyond what the type holds.
    #[error("the weight {0} does not fit type {name}", name = .1.name())]
    Weight(f32, QuantType),
}

impl QuantType {
    /// Encodes `weights`, whole blocks, into `out`, which they fill.
    ///
    /// # Errors
    /// [`EncodeError::Type`] for a type without an encoder, [`EncodeError::Weight`] for infinities, NaN, and what half
    /// precision does not hold where the type needs it.
    ///
    /// # Panics
    /// If `out` does not have exactly the size of those blocks.
    pub fn encode(self, weights: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
        assert_eq!(weights.len() % self.block_len(), 0, "whole blocks");
        assert_eq!(
            out.len(),
            self.row_bytes(weights.len()),
            "bytes of the blocks"
        );
        let limit = match self {
            QuantType::F32 | QuantType::BF16 => f32::MAX,
            _ => MAX_MAGNITUDE,
        };
        let fits = |weight: &f32| weight.abs() <= limit;
        if let Some(&weight) = weights.iter().find(|w| !fits(w)) {
            return Err(EncodeError::Weight(weight, self));
        }
        match self {
            QuantType::F32 => each(weights, out, |[w]: &[f32; 1], out| *out = w.to_le_bytes()),
            QuantType::F16 => each(weights, out, |[w]: &[f32; 1], out| {
                *out = half::f16::from_f32(*w).to_le_bytes();
            }),
            QuantType::BF16 => each(weights, out, |[w]: &[f32; 1], out| {
                *out = half::bf16::from_f32(*w).to_le_bytes();
            }),
            QuantType::Q4_0 => each(weights, out, legacy::q4_0),
            QuantType::Q4_1 => each(weights, out, legacy::q4_1),
            QuantType::Q5_0 => each(weights, out, legacy::q5_0),
            QuantType::Q5_1 => each(weights, out, legacy::q5_1),
            QuantType::Q8_0 => each(weights, out, legacy::q8_0),
            QuantType::Q2_K => each(weights, out, k::q2_k),
            QuantType::Q3_K => each(weights, out, k::q3_k),
            QuantType::Q4_K => each(weights, out, k::q4_k),
            QuantType::Q5_K => each(weights, out, k::q5_k),
            QuantType::Q6_K => each(weights, out, k::q6_k),
            other => return Err(EncodeError::Type(other)),
        }
        Ok(())
    }
}

/// Encodes block by block: `LEN` weights each, into bytes that are zero.
fn each<const LEN: usize, const BYTES: usize>(
    weights: &[f32],
    out: &mut [u8],
    block: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    let (blocks, _) = weights.as_chunks::<LEN>();
    let (outs, _) = out.as_chunks_mut::<BYTES>();
    for (weights, out) in blocks.iter().zip(outs) {
        out.fill(0);
        block(weights, out);
    }
}

/// Writes `value` as a half float at byte `at`, and returns what the decoder will read there.
fn put_f16(block: &mut [u8], at: usize, value: f32) -> f32 {
    let half = half::f16::from_f32(value);
    block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}
