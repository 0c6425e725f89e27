//! How a device keeps a weight row: a plane of codes in whole 16-byte vectors, then a plane of
//! scales as GGUF packs them. Nearly GGUF's size, aligned reads, one layout per code width.
//!
//! The twin of `shaders/parts/codes_*.wgsl` and `shaders/quant/*.wgsl`, which read it.

#[cfg(test)]
mod tests;

use std::ops::Range;

use super::coded::Coded;
use super::{QuantType, SPAN, grids, k, legacy, lookup, ternary};

/// 32-bit words of the vectors that shaders read.
pub const VECTOR_WORDS: usize = 4;

/// Where the planes of a row lie. Offsets are in 32-bit words from the row's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceLayout {
    pub quant: QuantType,
    pub cols: usize,
    /// Words of a row, whole vectors.
    pub row_words: usize,
    /// Upper bits of codes or of indices into a grid.
    pub high_at: usize,
    /// Signs of codes that are points of a grid.
    pub signs_at: usize,
    /// Scales of spans, or of blocks for the K types.
    pub scales_at: usize,
    /// Steps of blocks (`d` of Q6_K), after their scales.
    pub steps_at: usize,
}

/// What the first plane holds, and where it is split the plane of upper bits too.
enum Codes {
    /// Plain floats as they are.
    Floats,
    /// Codes of `low + high` bits, repacked. `low` is 0, 2 or 4, `high` 0, 1 or 2.
    Packed { low: usize, high: usize },
    /// Bytes of a block: signed codes, or indices into a grid with their upper bits.
    Copied {
        codes: Range<usize>,
        high: Range<usize>,
        signs: Range<usize>,
    },
}

/// What a type's planes are made of. The planes of scales and steps copy bytes of each block.
struct Planes {
    codes: Codes,
    scales: Range<usize>,
    steps: Range<usize>,
}

fn planes(quant: QuantType) -> Planes {
    const NONE: Range<usize> = 0..0;
    let packed = |low, high, scales, steps| Planes {
        codes: Codes::Packed { low, high },
        scales,
        steps,
    };
    let copied = |codes, high, signs, scales, steps| Planes {
        codes: Codes::Copied { codes, high, signs },
        scales,
        steps,
    };
    match quant {
        QuantType::F32 | QuantType::F16 | QuantType::BF16 => Planes {
            codes: Codes::Floats,
            scales: NONE,
            steps: NONE,
        },
        QuantType::Q4_0 | QuantType::IQ4_NL => packed(4, 0, 0..2, NONE),
        QuantType::Q4_1 => packed(4, 0, 0..4, NONE),
        QuantType::Q5_0 => packed(4, 1, 0..2, NONE),
        QuantType::Q5_1 => packed(4, 1, 0..4, NONE),
        QuantType::Q8_0 => copied(2..34, NONE, NONE, 0..2, NONE),
        QuantType::Q2_K => packed(2, 0, 0..16, 80..84),
        QuantType::Q3_K => packed(2, 1, 96..108, 108..110),
        QuantType::Q4_K => packed(4, 0, 0..16, NONE),
        QuantType::Q5_K => packed(4, 1, 0..16, NONE),
        QuantType::Q6_K => packed(4, 2, 192..208, 208..210),
        QuantType::IQ1_S => copied(2..34, 34..50, NONE, 0..2, NONE),
        QuantType::IQ1_M => copied(0..32, 32..48, NONE, 48..56, NONE),
        QuantType::IQ2_XXS => copied(2..66, NONE, NONE, 0..2, NONE),
        QuantType::IQ2_XS => copied(2..66, NONE, NONE, 66..74, 0..2),
        QuantType::IQ2_S => copied(2..34, 66..74, 34..66, 74..82, 0..2),
        QuantType::IQ3_XXS => copied(2..66, NONE, 66..98, 0..2, NONE),
        QuantType::IQ3_S => copied(2..66, 66..74, 74..106, 106..110, 0..2),
        QuantType::IQ4_XS => packed(4, 0, 0..8, NONE),
        // Five digits a byte would need a division for each: they become pairs of bits.
        QuantType::TQ1_0 => packed(2, 0, 52..54, NONE),
        QuantType::TQ2_0 => packed(2, 0, 64..66, NONE),
        QuantType::MXFP4 => packed(4, 0, 0..1, NONE),
        QuantType::NVFP4 => packed(4, 0, 0..4, NONE),
        QuantType::Q1_0 => packed(0, 1, 0..2, NONE),
        QuantType::Q2_0 => packed(2, 0, 0..2, NONE),
    }
}

impl DeviceLayout {
    /// The layout of rows of `cols` weights. Rows of floats are filled up to whole spans.
    pub fn new(quant: QuantType, cols: usize) -> DeviceLayout {
        let spans = cols.div_ceil(SPAN);
        let n_blocks = cols / quant.block_len();
        let words = |part: &Range<usize>| (n_blocks * part.len()).div_ceil(4);
        let Planes {
            codes,
            scales,
            steps,
        } = planes(quant);
        let (codes, high, signs) = match &codes {
            Codes::Floats => (spans * SPAN * quant.block_bytes() / 4, 0, 0),
            // A word per span and bit.
            Codes::Packed { low, high } => (spans * low, spans * high, 0),
            Codes::Copied { codes, high, signs } => (words(codes), words(high), words(signs)),
        };
        let signs_at = codes + high;
        let scales_at = (signs_at + signs).next_multiple_of(VECTOR_WORDS);
        let steps_at = scales_at + words(&scales);
        DeviceLayout {
            quant,
            cols,
            row_words: (steps_at + words(&steps)).next_multiple_of(VECTOR_WORDS),
            high_at: codes,
            signs_at,
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
        let planes = planes(self.quant);
        match &planes.codes {
            Codes::Floats => copy(row, words, 0),
            Codes::Packed { low, high } => self.pack(row, words, *low, *high),
            Codes::Copied { codes, high, signs } => {
                self.copy_blocks(row, words, codes, 0);
                self.copy_blocks(row, words, high, self.high_at);
                self.copy_blocks(row, words, signs, self.signs_at);
            }
        }
        self.copy_blocks(row, words, &planes.scales, self.scales_at);
        self.copy_blocks(row, words, &planes.steps, self.steps_at);
    }

    /// Copies a part of each block to the plane at word `at`.
    fn copy_blocks(&self, row: &[u8], words: &mut [u32], part: &Range<usize>, at: usize) {
        for (i, block) in row.chunks_exact(self.quant.block_bytes()).enumerate() {
            copy(&block[part.clone()], words, 4 * at + i * part.len());
        }
    }

    /// Packs all codes, span by span.
    fn pack(&self, row: &[u8], words: &mut [u32], low: usize, high: usize) {
        let blocks = row.chunks_exact(self.quant.block_bytes());
        let block_spans = self.quant.block_len() / SPAN;
        for (i, block) in blocks.enumerate() {
            for j in 0..block_spans {
                let codes = codes(self.quant, block, j);
                let span = i * block_spans + j;
                put(low, &codes, 0, &mut words[low * span..]);
                put(high, &codes, low, &mut words[self.high_at + high * span..]);
            }
        }
    }
}

/// The table that a type's shader reads behind the last row, in whole vectors; none for most types.
pub fn table(quant: QuantType) -> Vec<u32> {
    let eight = |points: &[u64]| -> Vec<u32> {
        let words = points.iter().flat_map(|&p| [p as u32, (p >> 32) as u32]);
        words.collect()
    };
    match quant {
        QuantType::IQ1_S | QuantType::IQ1_M => eight(&grids::IQ1),
        QuantType::IQ2_XXS => eight(&grids::IQ2_XXS),
        QuantType::IQ2_XS => eight(&grids::IQ2_XS),
        QuantType::IQ2_S => eight(&grids::IQ2_S),
        QuantType::IQ3_XXS => grids::IQ3_XXS.to_vec(),
        QuantType::IQ3_S => grids::IQ3_S.to_vec(),
        _ => Vec::new(),
    }
}

/// Packed codes of span `span` of a block, in the order of the weights.
fn codes(quant: QuantType, block: &[u8], span: usize) -> [u8; SPAN] {
    match quant {
        QuantType::Q4_0 => legacy::codes(&block[2..], 0),
        QuantType::Q4_1 => legacy::codes(&block[4..], 0),
        QuantType::Q5_0 => legacy::codes(&block[6..], legacy::high_bits(block, 2)),
        QuantType::Q5_1 => legacy::codes(&block[8..], legacy::high_bits(block, 4)),
        QuantType::Q2_K => k::q2_k_codes(block, span),
        QuantType::Q3_K => k::Q3K::codes(block, span),
        QuantType::Q4_K => std::array::from_fn(|i| k::q4_k_code(block, span, i)),
        QuantType::Q5_K => std::array::from_fn(|i| k::q5_k_code(block, span, i)),
        QuantType::Q6_K => std::array::from_fn(|i| k::q6_k_code(block, SPAN * span + i)),
        QuantType::IQ4_NL => lookup::Iq4Nl::codes(block, span),
        QuantType::IQ4_XS => lookup::Iq4Xs::codes(block, span),
        QuantType::TQ1_0 => ternary::Tq1_0::codes(block, span),
        QuantType::TQ2_0 => ternary::Tq2_0::codes(block, span),
        QuantType::MXFP4 => lookup::Mxfp4::codes(block, span),
        QuantType::NVFP4 => lookup::Nvfp4::codes(block, span),
        QuantType::Q1_0 => ternary::Q1_0::codes(block, span),
        QuantType::Q2_0 => ternary::Q2_0::codes(block, span),
        // Types whose codes are copied.
        _ => [0; SPAN],
    }
}

/// Puts the `bits` bits above `shift` of each code into as many words.
fn put(bits: usize, codes: &[u8; SPAN], shift: usize, words: &mut [u32]) {
    for (i, code) in codes.iter().enumerate() {
        let (half, quad, byte) = (i / 16, i / 4, i % 4);
        let (word, bit) = match bits {
            4 => (quad % 4, 4 * half),
            2 => (half, 2 * (quad % 4)),
            1 => (0, quad),
            _ => return,
        };
        let code = u32::from(code >> shift) & ((1 << bits) - 1);
        words[word] |= code << (8 * byte + bit);
    }
}

/// Copies bytes into little-endian words that are zero there, from byte `at` on.
fn copy(bytes: &[u8], words: &mut [u32], at: usize) {
    if at.is_multiple_of(4) && bytes.len().is_multiple_of(4) {
        for (chunk, word) in bytes.as_chunks().0.iter().zip(&mut words[at / 4..]) {
            *word = u32::from_le_bytes(*chunk);
        }
        return;
    }
    for (at, byte) in (at..).zip(bytes) {
        words[at / 4] |= u32::from(*byte) << (8 * (at % 4));
    }
}
