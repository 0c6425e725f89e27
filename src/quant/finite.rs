//! Whether stored weights are numbers. Only scales can be none, so no code is read.

use super::QuantType;

/// Where the half floats lie in a block.
fn half_floats(quant: QuantType) -> Option<&'static [usize]> {
    Some(match quant {
        QuantType::F16 => &[0],
        QuantType::Q4_0 | QuantType::Q5_0 | QuantType::Q8_0 => &[0],
        QuantType::IQ1_S | QuantType::IQ2_XXS | QuantType::IQ2_XS | QuantType::IQ2_S => &[0],
        QuantType::IQ3_XXS | QuantType::IQ3_S | QuantType::IQ4_NL | QuantType::IQ4_XS => &[0],
        QuantType::Q1_0 | QuantType::Q2_0 => &[0],
        QuantType::Q4_1 | QuantType::Q5_1 | QuantType::Q4_K | QuantType::Q5_K => &[0, 2],
        QuantType::Q2_K => &[80, 82],
        QuantType::Q3_K => &[108],
        QuantType::Q6_K => &[208],
        QuantType::TQ1_0 => &[52],
        QuantType::TQ2_0 => &[64],
        // Whole floats, scales of another form or in scattered bits.
        QuantType::F32
        | QuantType::BF16
        | QuantType::IQ1_M
        | QuantType::MXFP4
        | QuantType::NVFP4 => return None,
    })
}

/// Blocks that are decoded at once where that is the way to look.
const DECODED_BLOCKS: usize = 16;

impl QuantType {
    /// Whether all weights of these blocks are finite.
    ///
    /// # Panics
    /// If `bytes` are no whole blocks.
    pub fn is_finite(self, bytes: &[u8]) -> bool {
        let n = self.block_bytes();
        assert_eq!(bytes.len() % n, 0, "whole blocks");
        // All bits of the exponent are set. Without an early end the loops vectorise.
        let bad_half = |bits: [u8; 2]| u16::from_le_bytes(bits) & 0x7C00 == 0x7C00;
        let count = match (self, half_floats(self)) {
            (QuantType::F32, _) => count(bytes.as_chunks().0, |&bits: &[u8; 4]| {
                u32::from_le_bytes(bits) & 0x7F80_0000 == 0x7F80_0000
            }),
            (QuantType::BF16, _) => count(bytes.as_chunks().0, |&bits: &[u8; 2]| {
                u16::from_le_bytes(bits) & 0x7F80 == 0x7F80
            }),
            (QuantType::F16, _) => count(bytes.as_chunks().0, |&bits| bad_half(bits)),
            (_, Some(places)) => {
                let blocks = bytes.chunks_exact(n);
                let bad = |block: &[u8]| {
                    places
                        .iter()
                        .any(|&at| bad_half([block[at], block[at + 1]]))
                };
                blocks.filter(|block| bad(block)).count()
            }
            (_, None) => {
                let mut weights = vec![0.0; DECODED_BLOCKS * self.block_len()];
                let bad = |blocks: &[u8]| {
                    let weights = &mut weights[..blocks.len() / n * self.block_len()];
                    self.decode(blocks, weights);
                    count(weights, |x| !x.is_finite())
                };
                bytes.chunks(DECODED_BLOCKS * n).map(bad).sum()
            }
        };
        count == 0
    }
}

fn count<T>(items: &[T], is_bad: impl Fn(&T) -> bool) -> usize {
    items.iter().map(|item| usize::from(is_bad(item))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pattern of two bytes at every place: what decodes to numbers is finite.
    #[test]
    fn blocks_are_finite_where_their_weights_are() {
        for quant in QuantType::all() {
            let zeros = vec![0; quant.block_bytes()];
            let mut weights = vec![0.0; quant.block_len()];
            let mut n_bad = 0;
            for at in 0..zeros.len() - 1 {
                for high in [0x00, 0x3C, 0x7B, 0x7C, 0x7E, 0x7F, 0xFB, 0xFC, 0xFF] {
                    for low in [0x00, 0x7F, 0x80, 0xFF] {
                        let mut block = zeros.clone();
                        (block[at], block[at + 1]) = (low, high);
                        quant.decode(&block, &mut weights);
                        let finite = weights.iter().all(|x| x.is_finite());
                        n_bad += usize::from(!finite);
                        let name = quant.name();
                        assert_eq!(quant.is_finite(&block), finite, "{name} {high:x} at {at}");
                    }
                }
            }
            let never = [QuantType::IQ1_M, QuantType::MXFP4, QuantType::NVFP4];
            assert!(n_bad > 0 || never.contains(&quant), "{}", quant.name());
        }
    }
}
