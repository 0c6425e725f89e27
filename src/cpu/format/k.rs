//! The K types, whose eight or sixteen scales are unpacked once per block.

use super::{Affine, Centred, Format, array, half_at};
use crate::cpu::simd::{Isa, LANES, Lanes, Rule};

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

/// Scale and bias of sub-block `i` of Q2_K.
#[inline(always)]
fn q2_k_rule<I: Isa>(isa: I, head: &[Lanes; 2], i: usize) -> Affine<I::F> {
    Affine {
        scale: isa.splat(head[0][i]),
        bias: isa.splat(head[1][i]),
    }
}

/// `d * scale * code - dmin * min`, 16 weights a scale
pub struct Q2K;

impl Format for Q2K {
    const SPANS: usize = 8;
    const BYTES: usize = 84;
    /// Scales of the sixteen sub-blocks, and their biases.
    type Head<I: Isa> = [Lanes; 2];

    #[inline(always)]
    fn head<I: Isa>(isa: I, block: &[u8]) -> [Lanes; 2] {
        let packed = isa.bytes(array(block, 0));
        let scales = isa.to_float(isa.int_and(packed, isa.splat_int(15)));
        let minima = isa.to_float(isa.int_shr(packed, 4));
        let [d, d_min] = isa.splat_halves(array(block, 80));
        let mut out = [[0.0; LANES]; 2];
        isa.store(isa.mul(d, scales), &mut out[0]);
        isa.store(isa.mul(isa.sub(isa.splat(0.0), d_min), minima), &mut out[1]);
        out
    }

    #[inline(always)]
    fn span<I: Isa>(isa: I, block: &[u8], head: &[Lanes; 2], j: usize) -> [I::F; 2] {
        let codes = isa.load_32(array(block, 16 + j / 4 * 32));
        let mut bytes = [0; 32];
        isa.store_32(isa.shr_and(codes, 2 * (j as u32 % 4), 3), &mut bytes);
        let (low, high) = (q2_k_rule(isa, head, 2 * j), q2_k_rule(isa, head, 2 * j + 1));
        [
            isa.decode_4(isa.bytes(array(&bytes, 0)), low),
            isa.decode_4(isa.bytes(array(&bytes, 16)), high),
        ]
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
