//! The K types, with 256 weights a block; layouts in `quant/k.rs`.
//!
//! Scales are found for each group of 16 or 32 weights, quantised together, and the codes are taken anew against the
//! scales that the decoder will see.

use super::fit::{self, Search};
use super::put_f16;

/// Codes of `x` for `scale * code - offset`; a group without scale has the codes 0.
fn codes(x: &[f32], scale: f32, offset: f32, top: u8, out: &mut [u8]) {
    if scale == 0.0 {
        return;
    }
    for (out, x) in out.iter_mut().zip(x) {
        *out = ((x + offset) / scale)
            .round_ties_even()
            .clamp(0.0, f32::from(top)) as u8;
    }
}

/// Codes of `x` for `scale * (code - half)`; a group without scale has the codes 0.
fn signed_codes(x: &[f32], scale: f32, half: f32, out: &mut [u8]) {
    if scale == 0.0 {
        return;
    }
    for (out, x) in out.iter_mut().zip(x) {
        *out = ((x / scale).round_ties_even().clamp(-half, half - 1.0) + half) as u8;
    }
}

/// Whole numbers up to `top` for numbers that are at least 0, and their unit.
fn whole<const N: usize>(numbers: &[f32; N], top: u8) -> ([u8; N], f32) {
    let max = numbers.iter().copied().fold(0.0, f32::max);
    if max <= 0.0 {
        return ([0; N], 0.0);
    }
    let top = f32::from(top);
    let inverse = top / max;
    let whole = numbers.map(|n| (inverse * n).round_ties_even().clamp(0.0, top) as u8);
    (whole, max / top)
}

/// Whole numbers from `-half` to `half - 1` for scales of both signs, and their unit: the extreme one is the lowest.
fn whole_signed(scales: &[f32; 16], half: f32) -> ([i8; 16], f32) {
    let larger = |best: f32, &s: &f32| if s.abs() > best.abs() { s } else { best };
    let extreme = scales.iter().fold(0.0, larger);
    if extreme == 0.0 {
        return ([0; 16], 0.0);
    }
    let inverse = -half / extreme;
    let whole = scales.map(|s| (inverse * s).round_ties_even().clamp(-half, half - 1.0) as i8);
    (whole, 1.0 / inverse)
}

/// Packs the lower two bits of the codes: each 32 bytes hold four spans.
fn put_pairs(out: &mut [u8], codes: &[u8; 256]) {
    for (i, &code) in codes.iter().enumerate() {
        out[i / 128 * 32 + i % 32] |= (code & 3) << (2 * (i / 32 % 4));
    }
}

pub(super) fn q2_k(weights: &[f32; 256], out: &mut [u8; 84]) {
    let search = Search {
        top: 3,
        first: -0.5,
        n: 15,
        magnitudes: true,
    };
    let (groups, _) = weights.as_chunks::<16>();
    let (mut scales, mut offsets) = ([0.0; 16], [0.0; 16]);
    for (j, x) in groups.iter().enumerate() {
        (scales[j], offsets[j]) = search.scale_and_offset(x, &x.map(f32::abs));
    }
    let ((scales, step), (offsets, offset_step)) = (whole(&scales, 15), whole(&offsets, 15));
    let (step, offset_step) = (put_f16(out, 80, step), put_f16(out, 82, offset_step));
    let mut all = [0; 256];
    for (j, x) in groups.iter().enumerate() {
        out[j] = scales[j] | offsets[j] << 4;
        let (scale, offset) = (
            step * f32::from(scales[j]),
            offset_step * f32::from(offsets[j]),
        );
        codes(x, scale, offset, 3, &mut all[16 * j..][..16]);
    }
    put_pairs(&mut out[16..80], &all);
}

pub(super) fn q3_k(weights: &[f32; 256], out: &mut [u8; 110]) {
    let (groups, _) = weights.as_chunks::<16>();
    let scales = std::array::from_fn(|j| fit::scale_by_moves(&groups[j], 4.0));
    let (scales, step) = whole_signed(&scales, 32.0);
    let step = put_f16(out, 108, step);
    let mut all = [0; 256];
    for (j, x) in groups.iter().enumerate() {
        let packed = (scales[j] + 32) as u8;
        out[96 + j % 8] |= (packed & 15) << (4 * (j / 8));
        out[104 + j % 4] |= (packed >> 4) << (2 * (j / 4));
        let scale = step * f32::from(scales[j]);
        signed_codes(x, scale, 4.0, &mut all[16 * j..][..16]);
    }
    for (i, code) in all.iter().enumerate() {
        out[i % 32] |= (code >> 2) << (i / 32);
    }
    put_pairs(&mut out[32..96], &all);
}

/// Q4_K and Q5_K up to their codes: the 16 bytes of steps and scales, and the codes.
fn eight_groups(weights: &[f32; 256], search: &Search, out: &mut [u8]) -> [u8; 256] {
    let (groups, _) = weights.as_chunks::<32>();
    let (mut scales, mut offsets) = ([0.0; 8], [0.0; 8]);
    for (j, x) in groups.iter().enumerate() {
        let mean = (x.iter().map(|x| x * x).sum::<f32>() / 32.0).sqrt();
        (scales[j], offsets[j]) = search.scale_and_offset(x, &x.map(|x| mean + x.abs()));
    }
    let ((scales, step), (offsets, offset_step)) = (whole(&scales, 63), whole(&offsets, 63));
    let (step, offset_step) = (put_f16(out, 0, step), put_f16(out, 2, offset_step));
    let mut all = [0; 256];
    for (j, x) in groups.iter().enumerate() {
        let packed = &mut out[4..16];
        if j < 4 {
            packed[j] |= scales[j];
            packed[j + 4] |= offsets[j];
        } else {
            packed[j + 4] |= scales[j] & 15 | offsets[j] << 4;
            packed[j - 4] |= scales[j] >> 4 << 6;
            packed[j] |= offsets[j] >> 4 << 6;
        }
        let (scale, offset) = (
            step * f32::from(scales[j]),
            offset_step * f32::from(offsets[j]),
        );
        codes(x, scale, offset, search.top, &mut all[32 * j..][..32]);
    }
    all
}

/// Packs the lower four bits of the codes: each 32 bytes hold two groups of 32.
fn put_nibbles(out: &mut [u8], codes: &[u8; 256]) {
    for (i, &code) in codes.iter().enumerate() {
        out[i / 64 * 32 + i % 32] |= (code & 15) << (4 * (i / 32 % 2));
    }
}

pub(super) fn q4_k(weights: &[f32; 256], out: &mut [u8; 144]) {
    let search = Search {
        top: 15,
        first: -1.0,
        n: 20,
        magnitudes: false,
    };
    let codes = eight_groups(weights, &search, out);
    put_nibbles(&mut out[16..], &codes);
}

pub(super) fn q5_k(weights: &[f32; 256], out: &mut [u8; 176]) {
    let search = Search {
        top: 31,
        first: -0.5,
        n: 15,
        magnitudes: false,
    };
    let codes = eight_groups(weights, &search, out);
    for (i, code) in codes.iter().enumerate() {
        out[16 + i % 32] |= (code >> 4) << (i / 32);
    }
    put_nibbles(&mut out[48..], &codes);
}

pub(super) fn q6_k(weights: &[f32; 256], out: &mut [u8; 210]) {
    let (groups, _) = weights.as_chunks::<16>();
    let scales = std::array::from_fn(|j| fit::scale(&groups[j], 32.0));
    let (scales, step) = whole_signed(&scales, 128.0);
    let step = put_f16(out, 208, step);
    let mut all = [0; 256];
    for (j, x) in groups.iter().enumerate() {
        out[192 + j] = scales[j] as u8;
        let scale = step * f32::from(scales[j]);
        signed_codes(x, scale, 32.0, &mut all[16 * j..][..16]);
    }
    for (i, code) in all.iter().enumerate() {
        let (half, plane, l) = (i / 128, i / 32 % 4, i % 32);
        out[half * 64 + plane % 2 * 32 + l] |= (code & 15) << (4 * (plane / 2));
        out[128 + half * 32 + l] |= (code >> 4) << (2 * plane);
    }
}
