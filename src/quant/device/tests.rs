use super::*;
use crate::quant::k::scale_min;

/// A row as the shaders read it, function by function.
struct Row<'a> {
    layout: DeviceLayout,
    words: &'a [u32],
}

impl Row<'_> {
    fn half(&self, at: usize, i: usize) -> f32 {
        let word = self.words[at + i / 2];
        half::f16::from_bits((word >> (16 * (i % 2))) as u16).to_f32()
    }

    fn byte(&self, word: usize, byte: usize) -> u8 {
        self.words[word + byte / 4].to_le_bytes()[byte % 4]
    }

    /// `span_codes`, weight by weight.
    fn code(&self, i: usize) -> f32 {
        let (span, i) = (i / SPAN, i % SPAN);
        if self.layout.quant == QuantType::Q8_0 {
            return f32::from(self.byte(8 * span, i) as i8);
        }
        let low = self.byte(4 * span, i % 16) >> (4 * (i / 16)) & 15;
        let (quad, byte) = (i / 4, i % 4);
        let high = match self.layout.quant {
            QuantType::Q5_0 | QuantType::Q5_1 | QuantType::Q5_K => {
                self.words[self.layout.high_at + span] >> (8 * byte + quad) & 1
            }
            QuantType::Q6_K => {
                let word = self.words[self.layout.high_at + 2 * span + quad / 4];
                word >> (8 * byte + 2 * (quad % 4)) & 3
            }
            _ => 0,
        };
        f32::from(low | (high as u8) << 4)
    }

    /// The weight by the rule of `shaders/quant`, rounded where the CPU rounds.
    fn weight(&self, i: usize) -> f32 {
        let (span, block) = (i / SPAN, i / 256);
        let DeviceLayout {
            quant,
            scales_at,
            steps_at,
            ..
        } = self.layout;
        match quant {
            QuantType::F32 => f32::from_bits(self.words[i]),
            QuantType::F16 => self.half(0, i),
            QuantType::BF16 => f32::from_bits((self.words[i / 2] >> (16 * (i % 2))) << 16),
            QuantType::Q4_0 => self.half(scales_at, span) * (self.code(i) - 8.0),
            QuantType::Q5_0 => self.half(scales_at, span) * (self.code(i) - 16.0),
            QuantType::Q8_0 => self.half(scales_at, span) * self.code(i),
            QuantType::Q4_1 | QuantType::Q5_1 => {
                self.half(scales_at, 2 * span) * self.code(i) + self.half(scales_at, 2 * span + 1)
            }
            QuantType::Q4_K | QuantType::Q5_K => {
                let at = scales_at + 4 * block;
                let packed: Vec<u8> = (4..16).map(|b| self.byte(at, b)).collect();
                let (scale, min) = scale_min(&packed, span % 8);
                let (d, dmin) = (self.half(at, 0), self.half(at, 1));
                d * f32::from(scale) * self.code(i) - dmin * f32::from(min)
            }
            QuantType::Q6_K => {
                let scale = self.byte(scales_at, i / 16) as i8;
                self.half(steps_at, block) * f32::from(scale) * (self.code(i) - 32.0)
            }
        }
    }
}

/// Bytes without a pattern, from a linear congruential generator (Knuth's MMIX constants).
fn random_bytes(n: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn every_layout_decodes_to_the_cpus_floats() {
    for quant in QuantType::all() {
        for blocks in [1, 2, 3, 9] {
            let cols = if quant.is_float() {
                13 * blocks
            } else {
                quant.block_len() * blocks
            };
            let bytes = random_bytes(quant.row_bytes(cols));
            let mut want = vec![0.0; cols];
            quant.decode(&bytes, &mut want);
            let layout = DeviceLayout::new(quant, cols);
            let mut words = vec![u32::MAX; layout.row_words];
            layout.lay_out(&bytes, &mut words);
            let row = Row {
                layout,
                words: &words,
            };
            for (i, want) in want.iter().enumerate() {
                let got = row.weight(i);
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(
                    same,
                    "{} of {cols}, weight {i}: {got}, {want}",
                    quant.name()
                );
            }
        }
    }
}

#[test]
fn a_layout_is_nearly_the_size_of_the_file() {
    for quant in QuantType::all() {
        let layout = DeviceLayout::new(quant, 2048);
        let file = quant.row_bytes(2048);
        assert!(4 * layout.row_words <= file + 16, "{}", quant.name());
        assert_eq!(layout.row_words % VECTOR_WORDS, 0);
    }
}
