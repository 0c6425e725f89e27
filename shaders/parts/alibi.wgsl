// Attention with linear biases: a score loses with the distance, by the head's slope (Press et al.
// 2021, <https://arxiv.org/abs/2108.12409>; `alibi_slope` of backend/plan.rs).
// Needs: ALIBI (the largest bias), ALIBI_HEADS (the largest power of two of heads), `row_head` and
// `row_position` of the kernel.

fn biased(score: f32, row: u32, token: u32) -> f32 {
    let heads = f32(ALIBI_HEADS);
    let head = row_head(row);
    let power = select(f32(head) - heads + 0.5, f32(head) + 1.0, head < ALIBI_HEADS);
    let slope = exp2(-ALIBI / heads * power);
    return score - slope * abs(f32(token) - f32(row_position(row)));
}
