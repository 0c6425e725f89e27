// What a gate multiplies: up within the bounds, plus one. Needs: LIMIT.
fn gated(up: f32) -> f32 {
    return clamp(up, -LIMIT, LIMIT) + 1.0;
}
