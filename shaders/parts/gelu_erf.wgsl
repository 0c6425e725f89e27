// 0.5 x (1 + erf(x / sqrt(2))). With z = |x| / sqrt(2), 1 - erf(z) = t p(t) exp(-z^2) where
// t = 1 / (1 + 0.3275911 z), within 1.5e-7: Abramowitz and Stegun 1964, 7.1.26. Negative x need
// 1 - erf(z) itself, so nothing cancels.
fn activate(x: f32) -> f32 {
    let z = abs(x) * 0.7071067812;
    let t = 1.0 / fma(0.3275911, z, 1.0);
    var p = fma(1.061405429, t, -1.453152027);
    p = fma(p, t, 1.421413741);
    p = fma(p, t, -0.284496736);
    p = fma(p, t, 0.254829592);
    // Past 80 the exponential is 0 in 32 bits.
    let tail = p * t * exp(-min(z * z, 80.0));
    return 0.5 * x * select(2.0 - tail, tail, x < 0.0);
}
