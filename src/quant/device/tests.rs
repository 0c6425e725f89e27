use super::*;
use crate::quant::k::scale_min;

/// A row as the shaders read it, function by function.
struct Row<'a> {
    layout: DeviceLayout,
    words: &'a [u32],
    table: Vec<u32>,
}

impl Row<'_> {
    fn half(&self, at: usize, i: usize) -> f32 {
        let word = self.words[at + i / 2];
        half::f16::from_bits((word >> (16 * (i % 2))) as u16).to_f32()
    }

    fn byte(&self, at: usize, i: usize) -> u8 {
        self.words[at + i / 4].to_le_bytes()[i % 4]
    }

    /// Bits `at` to `at + n` of a word.
    fn bits(&self, word: usize, at: usize, n: usize) -> u32 {
        self.words[word] >> at & ((1 << n) - 1)
    }

    /// The part of a code that the plane of `bits` bits at word `at` holds.
    fn part(&self, bits: usize, at: usize, i: usize) -> u8 {
        let (span, half, quad, byte) = (i / SPAN, i % SPAN / 16, i % SPAN / 4, i % 4);
        let (word, bit) = match bits {
            4 => (quad % 4, 4 * half),
            2 => (half, 2 * (quad % 4)),
            1 => (0, quad),
            _ => return 0,
        };
        self.bits(at + bits * span + word, 8 * byte + bit, bits) as u8
    }

    /// A code that `parts/codes_*` unpack.
    fn packed(&self, low: usize, high: usize, i: usize) -> f32 {
        let low_part = self.part(low, 0, i);
        f32::from(low_part | self.part(high, self.layout.high_at, i) << low)
    }

    /// A code that is a point's coordinate, `i` being the weight's number: `parts/grid`.
    fn grid(&self, i: usize) -> f32 {
        let (span, eight) = (i / SPAN, i % SPAN / 8);
        let DeviceLayout {
            quant,
            high_at,
            signs_at,
            ..
        } = self.layout;
        let even = |seven: u32| seven | (seven.count_ones() & 1) << 7;
        let (index, signs) = match quant {
            QuantType::IQ2_XXS => (
                self.bits(2 * span, 8 * eight, 8),
                even(self.bits(2 * span + 1, 7 * eight, 7)),
            ),
            QuantType::IQ2_XS => {
                let (word, at) = (2 * span + eight / 2, 16 * (eight % 2));
                (self.bits(word, at, 9), even(self.bits(word, at + 9, 7)))
            }
            QuantType::IQ2_S => {
                let high = u32::from(self.byte(high_at, span)) >> (2 * eight) & 3;
                let signs = self.bits(signs_at + span, 8 * eight, 8);
                (self.bits(span, 8 * eight, 8) | high << 8, signs)
            }
            QuantType::IQ3_XXS => (
                u32::from(self.byte(0, i / 4)),
                even(self.bits(signs_at + span, 7 * eight, 7)),
            ),
            QuantType::IQ3_S => {
                let high = u32::from(self.byte(high_at, span)) >> (i % SPAN / 4) & 1;
                let signs = self.bits(signs_at + span, 8 * eight, 8);
                (u32::from(self.byte(0, i / 4)) | high << 8, signs)
            }
            _ => unreachable!("the other grids have no signs"),
        };
        let coordinates = match quant {
            QuantType::IQ3_XXS | QuantType::IQ3_S => 4,
            _ => 8,
        };
        let at = index as usize * coordinates + i % coordinates;
        let code = f32::from(self.table[at / 4].to_le_bytes()[at % 4]);
        if signs >> (i % 8) & 1 == 1 {
            -code
        } else {
            code
        }
    }

    /// A code of the IQ1 types in eighths, given the index' upper bits and whether delta is negative.
    fn eighths(&self, i: usize, high: u32, minus: bool) -> f32 {
        let index = self.bits(i / SPAN, i % SPAN / 8 * 8, 8) | high << 8;
        let at = 8 * index as usize + i % 8;
        let code = self.table[at / 4].to_le_bytes()[at % 4] + if minus { 0 } else { 2 };
        f32::from(code) - 9.0
    }

    /// The weight by the rule of `shaders/quant`, rounded where the CPU rounds.
    fn weight(&self, i: usize) -> f32 {
        let (span, block) = (i / SPAN, i / 256);
        let DeviceLayout {
            quant,
            high_at,
            signs_at,
            scales_at,
            steps_at,
            ..
        } = self.layout;
        let nibble_scale = || {
            let nibble = self.byte(scales_at, span) >> (4 * (i % SPAN / 16)) & 15;
            self.half(steps_at, block) * (0.5 + f32::from(nibble)) * 0.25
        };
        match quant {
            QuantType::F32 => f32::from_bits(self.words[i]),
            QuantType::F16 => self.half(0, i),
            QuantType::BF16 => f32::from_bits((self.words[i / 2] >> (16 * (i % 2))) << 16),
            QuantType::Q4_0 => self.half(scales_at, span) * (self.packed(4, 0, i) - 8.0),
            QuantType::Q5_0 => self.half(scales_at, span) * (self.packed(4, 1, i) - 16.0),
            QuantType::Q8_0 => self.half(scales_at, span) * f32::from(self.byte(0, i) as i8),
            QuantType::Q4_1 | QuantType::Q5_1 => {
                let code = self.packed(4, usize::from(quant == QuantType::Q5_1), i);
                self.half(scales_at, 2 * span) * code + self.half(scales_at, 2 * span + 1)
            }
            QuantType::Q2_K => {
                let packed = self.byte(scales_at, i / 16);
                let (d, dmin) = (
                    self.half(steps_at, 2 * block),
                    self.half(steps_at, 2 * block + 1),
                );
                d * f32::from(packed & 15) * self.packed(2, 0, i) - dmin * f32::from(packed >> 4)
            }
            QuantType::Q3_K => {
                let (word, s) = (scales_at + 3 * block, span % 8);
                let byte = 16 * (s % 2) + 8 * (i % SPAN / 16);
                let low = self.bits(word + s % 4 / 2, byte + 4 * (s / 4), 4);
                let high = self.bits(word + 2, byte + 2 * (s / 2), 2);
                let scale = (low | high << 4) as f32 - 32.0;
                self.half(steps_at, block) * scale * (self.packed(2, 1, i) - 4.0)
            }
            QuantType::Q4_K | QuantType::Q5_K => {
                let at = scales_at + 4 * block;
                let packed: Vec<u8> = (4..16).map(|b| self.byte(at, b)).collect();
                let (scale, min) = scale_min(&packed, span % 8);
                let (d, dmin) = (self.half(at, 0), self.half(at, 1));
                let code = self.packed(4, usize::from(quant == QuantType::Q5_K), i);
                d * f32::from(scale) * code - dmin * f32::from(min)
            }
            QuantType::Q6_K => {
                let scale = self.byte(scales_at, i / 16) as i8;
                self.half(steps_at, block) * f32::from(scale) * (self.packed(4, 2, i) - 32.0)
            }
            QuantType::IQ1_S => {
                let high = self.bits(high_at + span / 2, 16 * (span % 2), 16);
                let scale = self.half(scales_at, block) * (2 * (high >> 12 & 7) + 1) as f32;
                let upper = high >> (3 * (i % SPAN / 8)) & 7;
                scale * 0.125 * self.eighths(i, upper, high >> 15 == 1)
            }
            QuantType::IQ1_M => {
                let word = scales_at + 2 * block;
                let d = self.bits(word, 12, 4)
                    | self.bits(word, 28, 4) << 4
                    | self.bits(word + 1, 12, 4) << 8
                    | self.bits(word + 1, 28, 4) << 12;
                let d = half::f16::from_bits(d as u16).to_f32();
                let s = span % 8;
                let at = 16 * (s / 2 % 2) + 6 * (s % 2) + 3 * (i % SPAN / 16);
                let scale = d * (2 * self.bits(word + s / 4, at, 3) + 1) as f32;
                let nibble = self.bits(high_at + i / 64, 4 * (i % 64 / 8), 4);
                scale * 0.125 * self.eighths(i, nibble & 7, nibble >> 3 == 1)
            }
            QuantType::IQ2_XXS => {
                let scale = (self.words[2 * span + 1] >> 28) as f32;
                self.half(scales_at, block) * (0.5 + scale) * 0.25 * self.grid(i)
            }
            QuantType::IQ2_XS | QuantType::IQ2_S => nibble_scale() * self.grid(i),
            QuantType::IQ3_XXS => {
                let scale = (self.words[signs_at + span] >> 28) as f32;
                self.half(scales_at, block) * (0.5 + scale) * 0.5 * self.grid(i)
            }
            QuantType::IQ3_S => {
                let nibble = self.bits(scales_at + span / 8, 4 * (span % 8), 4);
                self.half(steps_at, block) * (2 * nibble + 1) as f32 * self.grid(i)
            }
            QuantType::IQ4_NL => {
                let code = lookup::IQ4[self.packed(4, 0, i) as usize];
                self.half(scales_at, span) * f32::from(code)
            }
            QuantType::IQ4_XS => {
                let (word, s) = (scales_at + 2 * block, span % 8);
                let scale = self.bits(word + 1, 4 * s, 4) | self.bits(word, 16 + 2 * s, 2) << 4;
                let code = lookup::IQ4[self.packed(4, 0, i) as usize];
                self.half(word, 0) * (scale as f32 - 32.0) * f32::from(code)
            }
            QuantType::TQ1_0 | QuantType::TQ2_0 => {
                self.half(scales_at, block) * (self.packed(2, 0, i) - 1.0)
            }
            QuantType::MXFP4 => {
                let exponent = f32::from(self.byte(scales_at, span)) - 128.0;
                let code = lookup::E2M1[self.packed(4, 0, i) as usize];
                exponent.exp2() * f32::from(code)
            }
            QuantType::NVFP4 => {
                let byte = self.byte(scales_at, i / 16);
                let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
                let scale = match (byte, exponent) {
                    (0x7f, _) => 0.0,
                    (_, 0) => mantissa / 1024.0,
                    _ => (8.0 + mantissa) * f32::from(exponent as i8 - 11).exp2(),
                };
                scale * f32::from(lookup::E2M1[self.packed(4, 0, i) as usize])
            }
            QuantType::Q1_0 => self.half(scales_at, i / 128) * (2.0 * self.packed(0, 1, i) - 1.0),
            QuantType::Q2_0 => self.half(scales_at, i / 64) * (self.packed(2, 0, i) - 1.0),
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
                table: table(quant),
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
        // TQ1_0 alone is unpacked, from 1.7 to 2.1 bits a weight.
        let file = match quant {
            QuantType::TQ1_0 => QuantType::TQ2_0.row_bytes(2048),
            _ => quant.row_bytes(2048),
        };
        assert!(4 * layout.row_words <= file + 16, "{}", quant.name());
        assert_eq!(table(quant).len() % VECTOR_WORDS, 0);
        assert_eq!(layout.row_words % VECTOR_WORDS, 0);
    }
}
