//! Exponential, hyperbolic tangent and the activations, the same bits on every instruction set.

use super::Isa;
use crate::backend::Activation;

/// Below this, `exp` is close to the smallest normal `f32`; it becomes zero.
const EXP_MIN: f32 = -86.6;
/// Above this, `exp` is beyond the largest `f32`.
const EXP_MAX: f32 = 88.722_83;

/// `e^x` within 2 units of the last place; zero below [`EXP_MIN`].
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` by a polynomial, `2^n` by the exponent's bits.
/// Splitting of ln 2 and coefficients: Cephes `expf`, <https://www.netlib.org/cephes/>.
#[inline(always)]
pub fn exp<I: Isa>(isa: I, x: I::F) -> I::F {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    // The second operand survives where it is not a number, and spreads from here.
    let inside = isa.max(isa.splat(EXP_MIN), isa.min(isa.splat(EXP_MAX), x));
    let log2_e = isa.splat(std::f32::consts::LOG2_E);
    let shifted = isa.fma(inside, log2_e, isa.splat(ROUND));
    let n = isa.sub(shifted, isa.splat(ROUND));
    let r = isa.fma(n, isa.splat(-0.693_359_4), inside);
    let r = isa.fma(n, isa.splat(2.121_944_4e-4), r);
    let mut p = isa.splat(1.987_569_2e-4);
    for c in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_6e-1,
        0.5,
    ] {
        p = isa.fma(p, r, isa.splat(c));
    }
    let e = isa.add(isa.fma(p, isa.mul(r, r), r), isa.splat(1.0));
    // 2^n in two steps, since 2^128 is no `f32`: 2^(n - 1) * 2.
    let n_bits = isa.int_shl(isa.to_bits(shifted), 23);
    let power = isa.from_bits(isa.int_add(n_bits, isa.splat_int(126 << 23)));
    let result = isa.mul(isa.add(e, e), power);
    let result = isa.select_less(x, isa.splat(EXP_MIN), isa.splat(0.0), result);
    isa.select_less(isa.splat(EXP_MAX), x, isa.splat(f32::INFINITY), result)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid<I: Isa>(isa: I, x: I::F) -> I::F {
    let e = exp(isa, isa.sub(isa.splat(0.0), x));
    isa.div(isa.splat(1.0), isa.add(isa.splat(1.0), e))
}

/// `tanh(x) = 1 - 2 / (e^2x + 1)`, within 1e-7.
#[inline(always)]
pub fn tanh<I: Isa>(isa: I, x: I::F) -> I::F {
    let e = exp(isa, isa.add(x, x));
    let q = isa.div(isa.splat(2.0), isa.add(e, isa.splat(1.0)));
    isa.sub(isa.splat(1.0), q)
}

/// `x sigmoid(x)`
#[inline(always)]
pub fn silu<I: Isa>(isa: I, x: I::F) -> I::F {
    isa.mul(x, sigmoid(isa, x))
}

/// `0.5 x (1 + tanh(u)) = x sigmoid(2 u)` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
/// Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>.
#[inline(always)]
pub fn gelu_tanh<I: Isa>(isa: I, x: I::F) -> I::F {
    const TWICE: f32 = 1.595_769;
    let cubic = isa.fma(isa.mul(x, x), isa.splat(0.044_715), isa.splat(1.0));
    let u = isa.mul(isa.mul(x, isa.splat(TWICE)), cubic);
    isa.mul(x, sigmoid(isa, u))
}

/// `0.5 x (1 + erf(x / sqrt(2)))`, within 3e-7 of `|x|`.
///
/// With `z = |x| / sqrt(2)`, `1 - erf(z) = t p(t) e^(-z^2)` where `t = 1 / (1 + 0.3275911 z)`:
/// Abramowitz and Stegun 1964, 7.1.26. Negative x need `1 - erf(z)` itself, so nothing cancels.
#[inline(always)]
pub fn gelu_erf<I: Isa>(isa: I, x: I::F) -> I::F {
    let zero = isa.splat(0.0);
    let magnitude = isa.max(isa.sub(zero, x), x);
    let z = isa.mul(magnitude, isa.splat(std::f32::consts::FRAC_1_SQRT_2));
    let denominator = isa.fma(z, isa.splat(0.327_591_1), isa.splat(1.0));
    let t = isa.div(isa.splat(1.0), denominator);
    let mut p = isa.splat(1.061_405_4);
    for c in [-1.453_152_1, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        p = isa.fma(p, t, isa.splat(c));
    }
    let e = exp(isa, isa.sub(zero, isa.mul(z, z)));
    let tail = isa.mul(isa.mul(p, t), e);
    let twice = isa.select_less(x, zero, tail, isa.sub(isa.splat(2.0), tail));
    isa.mul(isa.mul(isa.splat(0.5), x), twice)
}

/// `max(x, 0)^2`
#[inline(always)]
pub fn relu_squared<I: Isa>(isa: I, x: I::F) -> I::F {
    // The second operand survives where it is not a number.
    let positive = isa.max(isa.splat(0.0), x);
    isa.mul(positive, positive)
}

/// What a gate with this activation multiplies.
#[inline(always)]
pub fn gated<I: Isa>(isa: I, activation: Activation, up: I::F) -> I::F {
    match activation {
        Activation::ClampedSwish => {
            let limit = Activation::SWISH_LIMIT;
            let up = isa.max(isa.splat(-limit), isa.min(isa.splat(limit), up));
            isa.add(up, isa.splat(1.0))
        }
        _ => up,
    }
}

/// `y sigmoid(1.702 y)` with `y = min(x, 7)`
#[inline(always)]
fn clamped_swish<I: Isa>(isa: I, x: I::F) -> I::F {
    let y = isa.min(isa.splat(Activation::SWISH_LIMIT), x);
    let slope = isa.splat(Activation::SWISH_SLOPE);
    isa.mul(y, sigmoid(isa, isa.mul(slope, y)))
}

/// The non-linearity of a feed-forward block.
#[inline(always)]
pub fn activate<I: Isa>(isa: I, activation: Activation, x: I::F) -> I::F {
    match activation {
        Activation::Silu => silu(isa, x),
        Activation::Sigmoid => sigmoid(isa, x),
        Activation::Identity => x,
        Activation::GeluTanh => gelu_tanh(isa, x),
        Activation::GeluErf => gelu_erf(isa, x),
        Activation::ReluSquared => relu_squared(isa, x),
        Activation::ClampedSwish => clamped_swish(isa, x),
    }
}

/// `cap tanh(x / cap)`
#[inline(always)]
pub fn soft_cap<I: Isa>(isa: I, x: I::F, cap: f32) -> I::F {
    let scaled = isa.div(x, isa.splat(cap));
    isa.mul(isa.splat(cap), tanh(isa, scaled))
}
