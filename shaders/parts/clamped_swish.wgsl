// y / (1 + exp(-SLOPE y)) with y = min(x, LIMIT). Needs: LIMIT, SLOPE, parts/logistic.
fn activate(x: f32) -> f32 {
    let y = min(x, LIMIT);
    return y * logistic(SLOPE * y);
}
