// 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), written as x / (1 + exp(-2u)),
// which keeps small results exact. Needs: parts/logistic.
fn activate(x: f32) -> f32 {
    // sqrt(2 / pi)
    return x * logistic(2.0 * 0.7978845608 * fma(0.044715 * x * x, x, x));
}
