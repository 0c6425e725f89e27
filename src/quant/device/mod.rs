//! How a device keeps a weight row: a plane of codes in whole 16-byte vectors, then a plane of
//! scales as GGUF packs them. Nearly GGUF's size, aligned reads, one layout per code width.
//!
//! The twin of `shaders/parts/codes_*.wgsl` and `shaders/quant/*.wgsl`, which read it.

#[cfg(test)]
mod tests;

use super::{QuantType, SPAN, k, legacy};

/// 32-bit words of the vectors that shaders read.
pub const VECTOR_WORDS: usize = 4;

/// Where the planes of a row lie. Offsets are in 32-bit words from the row's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceLayout {
    pub quant: QuantType,
    pub cols: usize,
    /// Words of a row, whole vectors.
    pub row_words: usize,
    /// Upper bits of codes of five and six bits.
    pub high_at: usize,
    /// Scales of spans, or of blocks for the K types.
    pub scales_at: usize,
    /// Steps of blocks (`d` of Q6_K), after their scales.
    pub steps_at: usize,
}

/// Words of each plane, of whole spans or blocks.
struct Planes {
    codes: usize,
    high: usize,
    scales: usize,
    steps: usize,
}

impl DeviceLayout {
    /// The layout of rows of `cols` weights. Rows of floats are filled up to whole spans.
    pub fn new(quant: QuantType, cols: usize) -> DeviceLayout {
        let planes = planes(quant, cols.div_ceil(SPAN));
        let high_at = planes.codes;
        let scales_at = (high_at + planes.high).next_multiple_of(VECTOR_WORDS);
        let steps_at = scales_at + planes.scales;
        DeviceLayout {
            quant,
            cols,
            row_words: (steps_at + planes.steps).next_multiple_of(VECTOR_WORDS),
            high_at,
            scales_at,
            steps_at,
        }
    }

    /// Spans of a row, the last one filled up with zeros.
    pub fn spans(&self) -> usize {
        self.cols.div_ceil(SPAN)
    }

    /// Lays one row of the file out anew: `words` takes [`Self::row_words`].
    ///
    /// # Panics
    /// If `row` or `words` is not one row long.
    pub fn lay_out(&self, row: &[u8], words: &mut [u32]) {
        assert_eq!(row.len(), self.quant.row_bytes(self.cols));
        assert_eq!(words.len(), self.row_words);
        words.fill(0);
        if self.quant.is_float() {
            return copy_bytes(row, words);
        }
        let block_bytes = self.quant.block_bytes();
        let block_spans = self.quant.block_len() / SPAN;
        for (b, block) in row.chunks_exact(block_bytes).enumerate() {
            for s in 0..block_spans {
                self.put_codes(b * block_spans + s, codes(self.quant, block, s), words);
            }
            self.put_scales(b, block, words);
        }
    }

    fn put_codes(&self, span: usize, codes: [u8; SPAN], words: &mut [u32]) {
        if self.quant == QuantType::Q8_0 {
            return copy_bytes(&codes, &mut words[8 * span..][..8]);
        }
        for i in 0..4 {
            let quad = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|b| codes[at + b] & 15));
            words[4 * span + i] = quad(4 * i) | quad(16 + 4 * i) << 4;
        }
        for (i, code) in codes.iter().enumerate() {
            let (quad, byte) = (i / 4, i % 4);
            let upper = u32::from(code >> 4);
            match self.quant {
                QuantType::Q5_0 | QuantType::Q5_1 | QuantType::Q5_K => {
                    words[self.high_at + span] |= upper << (8 * byte + quad);
                }
                QuantType::Q6_K => {
                    let word = self.high_at + 2 * span + quad / 4;
                    words[word] |= upper << (8 * byte + 2 * (quad % 4));
                }
                _ => {}
            }
        }
    }

    fn put_scales(&self, block: usize, bytes: &[u8], words: &mut [u32]) {
        let half = |at: usize| u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        match self.quant {
            QuantType::Q4_0 | QuantType::Q5_0 | QuantType::Q8_0 => {
                words[self.scales_at + block / 2] |= half(0) << (16 * (block % 2));
            }
            QuantType::Q4_1 | QuantType::Q5_1 => {
                words[self.scales_at + block] = half(0) | half(2) << 16;
            }
            QuantType::Q4_K | QuantType::Q5_K => {
                copy_bytes(&bytes[..16], &mut words[self.scales_at + 4 * block..][..4]);
            }
            QuantType::Q6_K => {
                copy_bytes(
                    &bytes[192..208],
                    &mut words[self.scales_at + 4 * block..][..4],
                );
                words[self.steps_at + block / 2] |= half(208) << (16 * (block % 2));
            }
            QuantType::F32 | QuantType::F16 | QuantType::BF16 => {}
        }
    }
}

fn planes(quant: QuantType, spans: usize) -> Planes {
    let blocks = spans.div_ceil(8);
    let halves = spans.div_ceil(2);
    let (codes, high, scales, steps) = match quant {
        QuantType::F32 => (32 * spans, 0, 0, 0),
        QuantType::F16 | QuantType::BF16 => (16 * spans, 0, 0, 0),
        QuantType::Q4_0 => (4 * spans, 0, halves, 0),
        QuantType::Q4_1 => (4 * spans, 0, spans, 0),
        QuantType::Q5_0 => (4 * spans, spans, halves, 0),
        QuantType::Q5_1 => (4 * spans, spans, spans, 0),
        QuantType::Q8_0 => (8 * spans, 0, halves, 0),
        QuantType::Q4_K => (4 * spans, 0, 4 * blocks, 0),
        QuantType::Q5_K => (4 * spans, spans, 4 * blocks, 0),
        QuantType::Q6_K => (4 * spans, 2 * spans, 4 * blocks, blocks.div_ceil(2)),
    };
    Planes {
        codes,
        high,
        scales,
        steps,
    }
}

/// The codes of span `span` of a block, in the order of the weights.
fn codes(quant: QuantType, block: &[u8], span: usize) -> [u8; SPAN] {
    match quant {
        QuantType::Q4_0 => legacy::codes(&block[2..], 0),
        QuantType::Q4_1 => legacy::codes(&block[4..], 0),
        QuantType::Q5_0 => legacy::codes(&block[6..], legacy::high_bits(block, 2)),
        QuantType::Q5_1 => legacy::codes(&block[8..], legacy::high_bits(block, 4)),
        QuantType::Q8_0 => std::array::from_fn(|i| block[2 + i]),
        QuantType::Q4_K => std::array::from_fn(|i| k::q4_k_code(block, span, i)),
        QuantType::Q5_K => std::array::from_fn(|i| k::q5_k_code(block, span, i)),
        QuantType::Q6_K => std::array::from_fn(|i| k::q6_k_code(block, SPAN * span + i)),
        QuantType::F32 | QuantType::F16 | QuantType::BF16 => [0; SPAN],
    }
}

/// Copies bytes into little-endian words; the last word is filled up with zeros.
fn copy_bytes(bytes: &[u8], words: &mut [u32]) {
    for (chunk, word) in bytes.chunks(4).zip(words) {
        let mut four = [0; 4];
        four[..chunk.len()].copy_from_slice(chunk);
        *word = u32::from_le_bytes(four);
    }
}
