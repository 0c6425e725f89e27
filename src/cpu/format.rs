//! Weights decoded into vectors: one [`Format`] per quant type, over any instruction set.
//!
//! Every weight is the `f32` that `QuantType::decode` gives, rounding for rounding (zeros may
//! differ in sign). Layouts are described in `quant`.

use super::simd::{Isa, LANES, Lanes, Rule};
use crate::quant::QuantType;

/// How blocks of one quant type become vectors.
pub trait Format {
    /// Spans of 32 weights in a block. Types without blocks take 32 weights as one.
    const SPANS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether the head is one scale, the half float that begins a block. Those of many blocks
    /// are widened together, which costs less than one by one.
    const SCALED: bool = false;
    /// What is decoded once per block.
    type Head<I: Isa>: Copy;

    /// Decodes a block's scales, and codes where that is cheaper for all at once.
    fn head<I: Isa>(isa: I, block: &[u8]) -> Self::Head<I>;

    /// As [`Format::head`], given the scale of a type that is [`Format::SCALED`].
    #[inline(always)]
    fn scaled_head<I: Isa>(isa: I, block: &[u8], _scale: f32) -> Self::Head<I> {
        Self::head(isa, block)
    }

    /// Decodes span `j` of a block.
    fn span<I: Isa>(isa: I, block: &[u8], head: &Self::Head<I>, j: usize) -> [I::F; 2];
}

/// A computation that is compiled for each format.
pub trait FormatKernel {
    type Output;
    fn run<F: Format>(self) -> Self::Output;
}

/// Runs a computation with the format of a type.
#[inline(always)]
pub fn with_format<K: FormatKernel>(quant: QuantType, kernel: K) -> K::Output {
    match quant {
        QuantType::F32 => kernel.run::<F32>(),
        QuantType::F16 => kernel.run::<F16>(),
        QuantType::BF16 => kernel.run::<Bf16>(),
        QuantType::Q4_0 => kernel.run::<Q4_0>(),
        QuantType::Q4_1 => kernel.run::<Q4_1>(),
        QuantType::Q5_0 => kernel.run::<Q5_0>(),
        QuantType::Q5_1 => kernel.run::<Q5_1>(),
        QuantType::Q8_0 => kernel.run::<Q8_0>(),
        QuantType::Q4_K => kernel.run::<Q4K>(),
        QuantType::Q5_K => kernel.run::<Q5K>(),
        QuantType::Q6_K => kernel.run::<Q6K>(),
    }
}

/// The `N` bytes at `at`. Blocks are as long as their format says, so this cannot fail; the
/// optimiser sees it too.
#[inline(always)]
fn array<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..]
        .first_chunk()
        .expect("blocks have their format's length")
}

/// `scale * (code - centre)`
#[derive(Clone, Copy)]
struct Centred<F> {
    scale: F,
    centre: f32,
}

impl<I: Isa> Rule<I> for Centred<I::F> {
    #[inline(always)]
    fn weight(self, isa: I, code: I::F) -> I::F {
        isa.mul(self.scale, isa.sub(code, isa.splat(self.centre)))
    }
}

/// `scale * code + bias`, rounded twice.
#[derive(Clone, Copy)]
pub struct Affine<F> {
    scale: F,
    bias: F,
}

impl<I: Isa> Rule<I> for Affine<I::F> {
    #[inline(always)]
    fn weight(self, isa: I, code: I::F) -> I::F {
        isa.add(isa.mul(self.scale, code), self.bias)
    }
}

/// The f16 scale and bias at the start of a block.
#[inline(always)]
fn affine<I: Isa>(isa: I, block: &[u8]) -> Affine<I::F> {
    let [scale, bias] = isa.splat_halves(array(block, 0));
    Affine { scale, bias }
}

#[inline(always)]
fn half_at<I: Isa>(isa: I, block: &[u8], at: usize) -> f32 {
    isa.half(u16::from_le_bytes(*array(block, at)))
}

/// The two nibbles of 16 bytes: low ones, then high ones.
#[inline(always)]
fn nibbles<I: Isa>(isa: I, bytes: &[u8; 16]) -> [I::I; 2] {
    let low = isa.bytes(bytes);
    [low, isa.int_shr(low, 4)]
}

/// As [`nibbles`], with a fifth bit from `high`.
#[inline(always)]
fn nibbles_and_bits<I: Isa>(isa: I, bytes: &[u8; 16], high: &[u8; 4]) -> [I::I; 2] {
    let [low, up] = nibbles(isa, bytes);
    let low = isa.int_and(low, isa.splat_int(15));
    [
        isa.set_bit_4(low, u16::from_le_bytes([high[0], high[1]])),
        isa.set_bit_4(up, u16::from_le_bytes([high[2], high[3]])),
    ]
}

/// 32-bit floats.
pub struct F32;

impl Format for F32 {
    const SPANS: usize = 1;
    const BYTES: usize = 128;
    type Head<I: Isa> = ();

    #[inline(always)]
    fn head<I: Isa>(_: I, _: &[u8]) {}

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], (): &(), _: usize) -> [I::F; 2] {
        [
            isa.load(&bytemuck::pod_read_unaligned(array::<64>(block, 0))),
            isa.load(&bytemuck::pod_read_unaligned(array::<64>(block, 64))),
        ]
    }
}

/// IEEE half floats.
pub struct F16;

impl Format for F16 {
    const SPANS: usize = 1;
    const BYTES: usize = 64;
    type Head<I: Isa> = ();

    #[inline(always)]
    fn head<I: Isa>(_: I, _: &[u8]) {}

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], (): &(), _: usize) -> [I::F; 2] {
        [isa.halves(array(block, 0)), isa.halves(array(block, 32))]
    }
}

/// The upper half of a 32-bit float.
pub struct Bf16;

impl Format for Bf16 {
    const SPANS: usize = 1;
    const BYTES: usize = 64;
    type Head<I: Isa> = ();

    #[inline(always)]
    fn head<I: Isa>(_: I, _: &[u8]) {}

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], (): &(), _: usize) -> [I::F; 2] {
        [
            isa.from_bits(isa.int_shl(isa.words(array(block, 0)), 16)),
            isa.from_bits(isa.int_shl(isa.words(array(block, 32)), 16)),
        ]
    }
}

/// `d * (code - 8)`
pub struct Q4_0;

impl Format for Q4_0 {
    const SPANS: usize = 1;
    const BYTES: usize = 18;
    const SCALED: bool = true;
    type Head<I: Isa> = I::F;

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> I::F {
        isa.splat(half_at(isa, block, 0))
    }

    #[inline(always)]
    fn scaled_head<I: Isa>(isa: I, _: &[u8], scale: f32) -> I::F {
        isa.splat(scale)
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], &d: &I::F, _: usize) -> [I::F; 2] {
        let rule = Centred {
            scale: d,
            centre: 8.0,
        };
        let [low, high] = nibbles(isa, array(block, 2));
        [isa.decode_4(low, rule), isa.decode_4(high, rule)]
    }
}

/// `d * code + m`
pub struct Q4_1;

impl Format for Q4_1 {
    const SPANS: usize = 1;
    const BYTES: usize = 20;
    type Head<I: Isa> = Affine<I::F>;

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> Affine<I::F> {
        affine(isa, block)
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], &rule: &Affine<I::F>, _: usize) -> [I::F; 2] {
        let [low, high] = nibbles(isa, array(block, 4));
        [isa.decode_4(low, rule), isa.decode_4(high, rule)]
    }
}

/// `d * (code - 16)`
pub struct Q5_0;

impl Format for Q5_0 {
    const SPANS: usize = 1;
    const BYTES: usize = 22;
    const SCALED: bool = true;
    type Head<I: Isa> = I::F;

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> I::F {
        isa.splat(half_at(isa, block, 0))
    }

    #[inline(always)]
    fn scaled_head<I: Isa>(isa: I, _: &[u8], scale: f32) -> I::F {
        isa.splat(scale)
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], &d: &I::F, _: usize) -> [I::F; 2] {
        let rule = Centred {
            scale: d,
            centre: 16.0,
        };
        let [low, high] = nibbles_and_bits(isa, array(block, 6), array(block, 2));
        [isa.decode_5(low, rule), isa.decode_5(high, rule)]
    }
}

/// `d * code + m`
pub struct Q5_1;

impl Format for Q5_1 {
    const SPANS: usize = 1;
    const BYTES: usize = 24;
    type Head<I: Isa> = Affine<I::F>;

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> Affine<I::F> {
        affine(isa, block)
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], &rule: &Affine<I::F>, _: usize) -> [I::F; 2] {
        let [low, high] = nibbles_and_bits(isa, array(block, 8), array(block, 4));
        [isa.decode_5(low, rule), isa.decode_5(high, rule)]
    }
}

/// `d * code`
pub struct Q8_0;

impl Format for Q8_0 {
    const SPANS: usize = 1;
    const BYTES: usize = 34;
    const SCALED: bool = true;
    type Head<I: Isa> = I::F;

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> I::F {
        isa.splat(half_at(isa, block, 0))
    }

    #[inline(always)]
    fn scaled_head<I: Isa>(isa: I, _: &[u8], scale: f32) -> I::F {
        isa.splat(scale)
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], &d: &I::F, _: usize) -> [I::F; 2] {
        [
            isa.mul(d, isa.to_float(isa.signed_bytes(array(block, 2)))),
            isa.mul(d, isa.to_float(isa.signed_bytes(array(block, 18)))),
        ]
    }
}

/// Lane numbers.
const LANE: Lanes = [
    0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
];

/// Scales of the eight sub-blocks of Q4_K and Q5_K, then their biases. All sixteen codes are
/// unpacked as bytes of four words, as `quant` does one by one.
#[inline(always)]
fn k_scales<I: Isa>(isa: I, block: &[u8]) -> Lanes {
    const LOW_6: u32 = 0x3f3f_3f3f;
    const LOW_4: u32 = 0x0f0f_0f0f;
    const LOW_2: u32 = 0x0303_0303;
    let word = |at| u32::from_le_bytes(*array(block, at));
    let (a, b, c) = (word(4), word(8), word(12));
    let words = [
        a & LOW_6,
        c & LOW_4 | (a >> 6 & LOW_2) << 4,
        b & LOW_6,
        c >> 4 & LOW_4 | (b >> 6 & LOW_2) << 4,
    ];
    let codes = isa.to_float(isa.bytes(&bytemuck::cast(words.map(u32::to_le))));
    let [d, d_min] = isa.splat_halves(array(block, 0));
    let d_min = isa.sub(isa.splat(0.0), d_min);
    let factors = isa.select_less(isa.load(&LANE), isa.splat(8.0), d, d_min);
    let mut out = [0.0; LANES];
    isa.store(isa.mul(factors, codes), &mut out);
    out
}

/// Scale and bias of sub-block `j`.
#[inline(always)]
fn k_rule<I: Isa>(isa: I, scales: &Lanes, j: usize) -> Affine<I::F> {
    Affine {
        scale: isa.splat(scales[j]),
        bias: isa.splat(scales[8 + j]),
    }
}

/// `d * scale * code - dmin * min`
pub struct Q4K;

impl Format for Q4K {
    const SPANS: usize = 8;
    const BYTES: usize = 144;
    type Head<I: Isa> = Lanes;

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> Lanes {
        k_scales(isa, block)
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], head: &Lanes, j: usize) -> [I::F; 2] {
        let rule = k_rule(isa, head, j);
        let (at, shift) = (16 + j / 2 * 32, 4 * (j as u32 % 2));
        let low = isa.int_shr(isa.bytes(array(block, at)), shift);
        let high = isa.int_shr(isa.bytes(array(block, at + 16)), shift);
        [isa.decode_4(low, rule), isa.decode_4(high, rule)]
    }
}

/// As [`Q4K`] with a fifth bit.
pub struct Q5K;

impl Format for Q5K {
    const SPANS: usize = 8;
    const BYTES: usize = 176;
    type Head<I: Isa> = (Lanes, I::B);

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> Self::Head<I> {
        (k_scales(isa, block), isa.load_32(array(block, 16)))
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], head: &Self::Head<I>, j: usize) -> [I::F; 2] {
        let rule = k_rule(isa, &head.0, j);
        let low = isa.load_32(array(block, 48 + j / 2 * 32));
        let low = isa.shr_and(low, 4 * (j as u32 % 2), 15);
        let bit = match j as u32 {
            j @ 0..4 => isa.shl_and(head.1, 4 - j, 16),
            j => isa.shr_and(head.1, j - 4, 16),
        };
        let mut codes = [0; 32];
        isa.store_32(isa.or_32(low, bit), &mut codes);
        [
            isa.decode_5(isa.bytes(array(&codes, 0)), rule),
            isa.decode_5(isa.bytes(array(&codes, 16)), rule),
        ]
    }
}

/// `d * scale * (code - 32)`
pub struct Q6K;

impl Format for Q6K {
    const SPANS: usize = 8;
    const BYTES: usize = 210;
    type Head<I: Isa> = Lanes;

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> Lanes {
        let d = isa.splat(half_at(isa, block, 208));
        let scales = isa.to_float(isa.signed_bytes(array(block, 192)));
        let mut out = [0.0; LANES];
        isa.store(isa.mul(d, scales), &mut out);
        out
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], head: &Lanes, j: usize) -> [I::F; 2] {
        let (half, plane) = (j / 4, j as u32 % 4);
        let low = isa.load_32(array(block, half * 64 + plane as usize % 2 * 32));
        let low = isa.shr_and(low, 4 * (plane / 2), 15);
        let high = isa.load_32(array(block, 128 + half * 32));
        let high = match plane {
            0 | 1 => isa.shl_and(high, 4 - 2 * plane, 0x30),
            plane => isa.shr_and(high, 2 * plane - 4, 0x30),
        };
        let mut codes = [0; 32];
        isa.store_32(isa.or_32(low, high), &mut codes);
        let (low, high) = (
            isa.to_float(isa.bytes(array(&codes, 0))),
            isa.to_float(isa.bytes(array(&codes, 16))),
        );
        [
            Centred {
                scale: isa.splat(head[2 * j]),
                centre: 32.0,
            }
            .weight(isa, low),
            Centred {
                scale: isa.splat(head[2 * j + 1]),
                centre: 32.0,
            }
            .weight(isa, high),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{InstructionSet, Kernel};
    use super::*;

    /// Decodes one block.
    struct Decode<'a>(QuantType, &'a [u8]);

    impl Kernel for Decode<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Vec<f32> {
            struct Typed<'a, I>(I, &'a [u8]);
            impl<I: Isa> FormatKernel for Typed<'_, I> {
                type Output = Vec<f32>;
                #[inline(always)]
                fn run<F: Format>(self) -> Vec<f32> {
                    let Typed(isa, block) = self;
                    let head = F::head(isa, block);
                    let mut out = Vec::new();
                    for j in 0..F::SPANS {
                        for x in F::span(isa, block, &head, j) {
                            let mut lanes = [0.0; LANES];
                            isa.store(x, &mut lanes);
                            out.extend(lanes);
                        }
                    }
                    out
                }
            }
            with_format(self.0, Typed(isa, self.1))
        }
    }

    #[test]
    fn every_type_decodes_as_the_table_says() {
        let mut random = crate::cpu::tests::Random::new(1);
        for quant in QuantType::all() {
            let len = quant.block_len().max(32);
            for _ in 0..300 {
                let block: Vec<u8> = (0..quant.row_bytes(len)).map(|_| random.byte()).collect();
                let mut want = vec![0.0; len];
                quant.decode(&block, &mut want);
                for isa in InstructionSet::present() {
                    let got = isa.run(Decode(quant, &block));
                    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                        // Zeros may differ in sign, what is no number in its bits.
                        let same = got == want || got.is_nan() && want.is_nan();
                        let (isa, name) = (isa.name(), quant.name());
                        assert!(same, "{isa} {name} weight {i}: {got} instead of {want}");
                    }
                }
            }
        }
    }
}
