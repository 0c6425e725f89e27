//! Types with one or two bits a weight: -1, 0, 1 (and 2, which no quantiser writes), or a sign alone.

use super::SPAN;
use super::coded::{Coded, pairs};

/// The codes of -1, 0, 1, 2.
const TERNARY: [i8; 16] = [-1, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// `d * (digit - 1)`: five ternary digits a byte, then f16 d. The bytes are fractions of 256, whose
/// digits come out by multiplying with 3. Bytes 0..32 hold spans 0 to 4, a digit each; bytes 32..48
/// the next 80 weights in runs of 16; bytes 48..52 the last 16 in runs of four.
pub struct Tq1_0;

impl Coded for Tq1_0 {
    const SPANS: usize = 8;
    const BYTES: usize = 54;
    const TABLE: Option<[i8; 16]> = Some(TERNARY);

    #[inline(always)]
    fn step(block: &[u8]) -> u16 {
        u16::from_le_bytes([block[52], block[53]])
    }

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let mut out = [0; SPAN];
        if span < 5 {
            digits(&block[..32], POWERS[span], &mut out);
            return out;
        }
        for (half, out) in out.chunks_exact_mut(16).enumerate() {
            match POWERS.get(2 * (span - 5) + half) {
                Some(&power) => digits(&block[32..48], power, out),
                None => {
                    for (out, power) in out.chunks_exact_mut(4).zip(POWERS) {
                        digits(&block[48..52], power, out);
                    }
                }
            }
        }
        out
    }

    #[inline(always)]
    fn scales(step: f32, _: &[u8], _: usize) -> [f32; 2] {
        [step; 2]
    }
}

/// What brings each ternary digit of a fraction of 256 to the front.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The digit of each byte that `power` brings to the front.
#[inline(always)]
fn digits(bytes: &[u8], power: u8, out: &mut [u8]) {
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8;
    }
}

/// `d * (code - 1)`: 64 bytes of pairs, f16 d. Each 32 bytes hold four spans, the lowest bits first.
pub struct Tq2_0;

impl Coded for Tq2_0 {
    const SPANS: usize = 8;
    const BYTES: usize = 66;
    const TABLE: Option<[i8; 16]> = Some(TERNARY);

    #[inline(always)]
    fn step(block: &[u8]) -> u16 {
        u16::from_le_bytes([block[64], block[65]])
    }

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        pairs(&block[span / 4 * 32..], 2 * (span % 4))
    }

    #[inline(always)]
    fn scales(step: f32, _: &[u8], _: usize) -> [f32; 2] {
        [step; 2]
    }
}

/// As [`Tq2_0`] for 64 weights: f16 d, 16 bytes of four pairs each, the lowest bits first.
pub struct Q2_0;

impl Coded for Q2_0 {
    const SPANS: usize = 2;
    const BYTES: usize = 18;
    const TABLE: Option<[i8; 16]> = Some(TERNARY);

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let mut out = [0; SPAN];
        for (i, out) in out.iter_mut().enumerate() {
            *out = block[2 + 8 * span + i / 4] >> (2 * (i % 4)) & 3;
        }
        out
    }

    #[inline(always)]
    fn scales(step: f32, _: &[u8], _: usize) -> [f32; 2] {
        [step; 2]
    }
}

/// `d` where the bit is set, `-d` where not: f16 d, 16 bytes of bits, the lowest first.
pub struct Q1_0;

impl Coded for Q1_0 {
    const SPANS: usize = 4;
    const BYTES: usize = 18;
    const TABLE: Option<[i8; 16]> = Some([-1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

    #[inline(always)]
    fn codes(block: &[u8], span: usize) -> [u8; SPAN] {
        let mut out = [0; SPAN];
        for (i, out) in out.iter_mut().enumerate() {
            *out = block[2 + 4 * span + i / 8] >> (i % 8) & 1;
        }
        out
    }

    #[inline(always)]
    fn scales(step: f32, _: &[u8], _: usize) -> [f32; 2] {
        [step; 2]
    }
}
