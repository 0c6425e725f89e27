//! The types with 32 weights a block; layouts in `quant/legacy.rs`.

use super::put_f16;

/// The weight of largest magnitude, the first of several.
fn extreme(weights: &[f32; 32]) -> f32 {
    let larger = |best: f32, &w: &f32| if w.abs() > best.abs() { w } else { best };
    weights.iter().fold(0.0, larger)
}

fn inverse(step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}

/// Codes around the middle of `2 * half` levels: the extreme weight, of whatever sign, gets the lowest one.
/// Returns the step.
fn symmetric(weights: &[f32; 32], half: u8, codes: &mut [u8; 32]) -> f32 {
    let step = extreme(weights) / -f32::from(half);
    let inverse = inverse(step);
    for (code, w) in codes.iter_mut().zip(weights) {
        // A conversion to an integer drops the fraction.
        *code = ((w * inverse + f32::from(half) + 0.5) as u8).min(2 * half - 1);
    }
    step
}

/// Codes from 0 at the least weight to `top` at the greatest. Returns the step and the least weight.
fn affine(weights: &[f32; 32], top: u8, codes: &mut [u8; 32]) -> (f32, f32) {
    let least = weights.iter().copied().fold(f32::MAX, f32::min);
    let greatest = weights.iter().copied().fold(f32::MIN, f32::max);
    let step = (greatest - least) / f32::from(top);
    let inverse = inverse(step);
    for (code, w) in codes.iter_mut().zip(weights) {
        *code = (((w - least) * inverse + 0.5) as u8).min(top);
    }
    (step, least)
}

/// Packs the lower four bits of the codes.
fn put_nibbles(out: &mut [u8], codes: &[u8; 32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = codes[i] & 15 | codes[i + 16] << 4;
    }
}

/// Packs the fifth bits of the codes.
fn put_high_bits(out: &mut [u8], codes: &[u8; 32]) {
    let bits = (0..32).fold(0u32, |bits, i| bits | u32::from(codes[i] >> 4 & 1) << i);
    out.copy_from_slice(&bits.to_le_bytes());
}

pub(super) fn q4_0(weights: &[f32; 32], out: &mut [u8; 18]) {
    let mut codes = [0; 32];
    let step = symmetric(weights, 8, &mut codes);
    put_f16(out, 0, step);
    put_nibbles(&mut out[2..], &codes);
}

pub(super) fn q4_1(weights: &[f32; 32], out: &mut [u8; 20]) {
    let mut codes = [0; 32];
    let (step, least) = affine(weights, 15, &mut codes);
    put_f16(out, 0, step);
    put_f16(out, 2, least);
    put_nibbles(&mut out[4..], &codes);
}

pub(super) fn q5_0(weights: &[f32; 32], out: &mut [u8; 22]) {
    let mut codes = [0; 32];
    let step = symmetric(weights, 16, &mut codes);
    put_f16(out, 0, step);
    put_high_bits(&mut out[2..6], &codes);
    put_nibbles(&mut out[6..], &codes);
}

pub(super) fn q5_1(weights: &[f32; 32], out: &mut [u8; 24]) {
    let mut codes = [0; 32];
    let (step, least) = affine(weights, 31, &mut codes);
    put_f16(out, 0, step);
    put_f16(out, 2, least);
    put_high_bits(&mut out[4..8], &codes);
    put_nibbles(&mut out[8..], &codes);
}

pub(super) fn q8_0(weights: &[f32; 32], out: &mut [u8; 34]) {
    let step = extreme(weights).abs() / 127.0;
    let inverse = inverse(step);
    put_f16(out, 0, step);
    for (out, w) in out[2..].iter_mut().zip(weights) {
        *out = (w * inverse).round() as i8 as u8;
    }
}
