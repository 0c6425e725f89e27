// 1 / (1 + exp(-x)). Needs: parts/logistic.
fn activate(x: f32) -> f32 {
    return logistic(x);
}
