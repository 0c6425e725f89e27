//! Types whose codes of four bits stand for unevenly spaced numbers.

use super::SPAN;
use super::coded::{Coded, nibbles};

/// The numbers of IQ4_NL and IQ4_XS.
pub const IQ4: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Twice the numbers of E2M1 (OCP Microscaling Formats 1.0): a sign, two bits of exponent, one of
/// mantissa.
pub const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half floats' 1, for blocks without a factor.
const ONE: u16 = 0x3c00;

/// `d * number`: f16 d, 16 bytes of nibbles as in Q4_0.
pub struct Iq4Nl;

impl Coded for Iq4Nl {
    const SPANS: usize = 1;
    const BYTES: usize = 18;
    const TABLE: Option<[i8; 16]> = Some(IQ4);

    #[inline(always)]
    fn codes(block: &[u8], _: usize) -> [u8; SPAN] {
        let mut out = [0; SPAN];
        nibbles::<16>(&block[2..18], &mut out);
        out
    }

    #[inline(always)]
    fn scales(step: f32, _: &[u8], _: usize) -> [f32; 2] {
        [step; 2]
    }
}

/// `d * (scale - 32) * number`: f16 d, upper pairs of the spans' scales, their low nibbles, then 16
/// bytes of nibbles a span.
pub struct Iq4Xs;

impl Coded for Iq4Xs {
    const SPANS: usize = 8;
    const BYTES: usize = 136;
    const TABLE: Option<[i8; 16]> = Some(IQ4);

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let mut out = [0; SPAN];
        nibbles::<16>(&block[8 + 16 * span..][..16], &mut out);
        out
    }

    #[inline(always)]
    fn scales(step: f32, block: &[u8], span: usize) -> [f32; 2] {
        let low = block[4 + span / 2] >> (4 * (span % 2)) & 15;
        let high = block[2 + span / 4] >> (2 * (span % 4)) & 3;
        [step * (f32::from(low | high << 4) - 32.0); 2]
    }
}

/// `2^(e - 128)` times twice a number of E2M1: one byte of exponent, nibbles as in Q4_0.
pub struct Mxfp4;

impl Coded for Mxfp4 {
    const SPANS: usize = 1;
    const BYTES: usize = 17;
    const TABLE: Option<[i8; 16]> = Some(E2M1);

    #[inline(always)]
    fn step(_: &[u8]) -> u16 {
        ONE
    }

    #[inline(always)]
    fn codes(block: &[u8], _: usize) -> [u8; SPAN] {
        let mut out = [0; SPAN];
        nibbles::<16>(&block[1..17], &mut out);
        out
    }

    #[inline(always)]
    fn scales(_: f32, block: &[u8], _: usize) -> [f32; 2] {
        // The two smallest powers are subnormal.
        let bits = match u32::from(block[0]) {
            e @ 0..2 => 0x0020_0000 << e,
            e => (e - 1) << 23,
        };
        [f32::from_bits(bits); 2]
    }
}

/// Half an unsigned E4M3 number times twice one of E2M1: four scales, each of 16 weights, then 8
/// bytes of nibbles for each.
pub struct Nvfp4;

impl Coded for Nvfp4 {
    const SPANS: usize = 2;
    const BYTES: usize = 36;
    const TABLE: Option<[i8; 16]> = Some(E2M1);

    #[inline(always)]
    fn step(_: &[u8]) -> u16 {
        ONE
    }

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let mut out = [0; SPAN];
        nibbles::<8>(&block[4 + 16 * span..][..8], &mut out[..16]);
        nibbles::<8>(&block[12 + 16 * span..][..8], &mut out[16..]);
        out
    }

    #[inline(always)]
    fn scales(_: f32, block: &[u8], span: usize) -> [f32; 2] {
        [half_e4m3(block[2 * span]), half_e4m3(block[2 * span + 1])]
    }
}

/// Half of an unsigned E4M3 number. All bits set are no number, and count as zero; the sign bit is
/// ignored.
#[inline(always)]
fn half_e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(byte >> 3 & 15), byte & 7);
    match (byte, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => f32::from(mantissa) / 1024.0,
        // Eight is the bias here, with the halving; 127 is that of the result.
        _ => f32::from_bits((exponent + 119) << 23 | u32::from(mantissa) << 20),
    }
}
