//! Weights decoded into vectors: one [`Format`] per quant type, over any instruction set.
//!
//! Every weight is the `f32` that `QuantType::decode` gives, rounding for rounding (zeros may
//! differ in sign). Layouts are described in `quant`.

pub mod integer;
mod k;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use super::simd::{Isa, Rule};
use crate::quant::coded::Coded;
use crate::quant::k::Q3K;
use crate::quant::{QuantType, grid, lookup, ternary};
use k::{Q2K, Q4K, Q5K, Q6K};

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
        QuantType::Q4_0 => kernel.run::<Scaled<Q4_0>>(),
        QuantType::Q4_1 => kernel.run::<Q4_1>(),
        QuantType::Q5_0 => kernel.run::<Scaled<Q5_0>>(),
        QuantType::Q5_1 => kernel.run::<Q5_1>(),
        QuantType::Q8_0 => kernel.run::<Scaled<Q8_0>>(),
        QuantType::Q2_K => kernel.run::<Q2K>(),
        QuantType::Q3_K => kernel.run::<Signed<Q3K>>(),
        QuantType::Q4_K => kernel.run::<Q4K>(),
        QuantType::Q5_K => kernel.run::<Q5K>(),
        QuantType::Q6_K => kernel.run::<Q6K>(),
        QuantType::IQ1_S => kernel.run::<Signed<grid::Iq1S>>(),
        QuantType::IQ1_M => kernel.run::<Signed<grid::Iq1M>>(),
        QuantType::IQ2_XXS => kernel.run::<Signed<grid::Iq2Xxs>>(),
        QuantType::IQ2_XS => kernel.run::<Signed<grid::Iq2Xs>>(),
        QuantType::IQ2_S => kernel.run::<Signed<grid::Iq2S>>(),
        QuantType::IQ3_XXS => kernel.run::<Signed<grid::Iq3Xxs>>(),
        QuantType::IQ3_S => kernel.run::<Signed<grid::Iq3S>>(),
        QuantType::IQ4_NL => kernel.run::<Signed<lookup::Iq4Nl>>(),
        QuantType::IQ4_XS => kernel.run::<Signed<lookup::Iq4Xs>>(),
        QuantType::TQ1_0 => kernel.run::<Signed<ternary::Tq1_0>>(),
        QuantType::TQ2_0 => kernel.run::<Signed<ternary::Tq2_0>>(),
        QuantType::MXFP4 => kernel.run::<Signed<lookup::Mxfp4>>(),
        QuantType::NVFP4 => kernel.run::<Signed<lookup::Nvfp4>>(),
        QuantType::Q1_0 => kernel.run::<Signed<ternary::Q1_0>>(),
        QuantType::Q2_0 => kernel.run::<Signed<ternary::Q2_0>>(),
    }
}

/// As [`with_format`] for the types that a product with one row of activations decodes in registers;
/// none for the others. Those are rare, and decoding costs them more than the way through a panel:
/// a kernel of their own would be code without a gain.
#[inline(always)]
pub fn with_direct_format<K: FormatKernel>(quant: QuantType, kernel: K) -> Option<K::Output> {
    Some(match quant {
        QuantType::F32 => kernel.run::<F32>(),
        QuantType::F16 => kernel.run::<F16>(),
        QuantType::BF16 => kernel.run::<Bf16>(),
        QuantType::Q4_0 => kernel.run::<Scaled<Q4_0>>(),
        QuantType::Q4_1 => kernel.run::<Q4_1>(),
        QuantType::Q5_0 => kernel.run::<Scaled<Q5_0>>(),
        QuantType::Q5_1 => kernel.run::<Q5_1>(),
        QuantType::Q8_0 => kernel.run::<Scaled<Q8_0>>(),
        QuantType::Q2_K => kernel.run::<Q2K>(),
        QuantType::Q3_K => kernel.run::<Signed<Q3K>>(),
        QuantType::IQ4_NL => kernel.run::<Signed<lookup::Iq4Nl>>(),
        QuantType::IQ4_XS => kernel.run::<Signed<lookup::Iq4Xs>>(),
        QuantType::MXFP4 => kernel.run::<Signed<lookup::Mxfp4>>(),
        _ => return None,
    })
}

/// Whether [`with_direct_format`] knows the type.
pub fn is_direct(quant: QuantType) -> bool {
    struct Nothing;
    impl FormatKernel for Nothing {
        type Output = ();
        fn run<F: Format>(self) {}
    }
    with_direct_format(quant, Nothing).is_some()
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

/// A type whose blocks are one span, of one scale: the half float that begins it.
pub trait Stepped {
    /// Bytes of a block.
    const BYTES: usize;

    /// Decodes a block, given its scale.
    fn span<I: Isa>(isa: I, block: &[u8], scale: I::F) -> [I::F; 2];
}

/// Any of those types.
pub struct Scaled<T>(PhantomData<T>);

impl<T: Stepped> Format for Scaled<T> {
    const SPANS: usize = 1;
    const BYTES: usize = T::BYTES;
    const SCALED: bool = true;
    type Head<I: Isa> = I::F;

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> I::F {
        isa.splat_half(u16::from_le_bytes(*array(block, 0)))
    }

    #[inline(always)]
    fn scaled_head<I: Isa>(isa: I, _: &[u8], scale: f32) -> I::F {
        isa.splat(scale)
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], &scale: &I::F, _: usize) -> [I::F; 2] {
        T::span(isa, block, scale)
    }
}

/// `d * (code - 8)`
pub struct Q4_0;

impl Stepped for Q4_0 {
    const BYTES: usize = 18;

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], d: I::F) -> [I::F; 2] {
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

impl Stepped for Q5_0 {
    const BYTES: usize = 22;

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], d: I::F) -> [I::F; 2] {
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

impl Stepped for Q8_0 {
    const BYTES: usize = 34;

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], d: I::F) -> [I::F; 2] {
        [
            isa.mul(d, isa.to_float(isa.signed_bytes(array(block, 2)))),
            isa.mul(d, isa.to_float(isa.signed_bytes(array(block, 18)))),
        ]
    }
}

/// Any type of signed codes: `scale * code`.
pub struct Signed<T>(PhantomData<T>);

impl<T: Coded> Format for Signed<T> {
    const SPANS: usize = T::SPANS;
    const BYTES: usize = T::BYTES;
    type Head<I: Isa> = f32;

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> f32 {
        isa.half(T::step(block))
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], &step: &f32, j: usize) -> [I::F; 2] {
        let mut codes = T::codes(block, j);
        if let Some(table) = &T::TABLE {
            isa.store_32(isa.lookup(isa.load_32(&codes), table), &mut codes);
        }
        if T::SIGNS {
            let signed = isa.negate(isa.load_32(&codes), T::signs(block, j));
            isa.store_32(signed, &mut codes);
        }
        let [low, high] = T::scales(step, block, j);
        [
            isa.mul(
                isa.splat(low),
                isa.to_float(isa.signed_bytes(array(&codes, 0))),
            ),
            isa.mul(
                isa.splat(high),
                isa.to_float(isa.signed_bytes(array(&codes, 16))),
            ),
        ]
    }
}
