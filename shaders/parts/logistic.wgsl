// 1 / (1 + exp(-value)). Past 80 it is 0 in 32 bits; the bound keeps exp from overflowing.
fn logistic(value: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-value, 80.0)));
}
