// Where a product with an expert's matrix goes: out is [rows, parts, N_USED, PART_ROWS], the parts
// being matrices that are joined within each expert. The kernel declares `bias`
// ([N_EXPERTS, EXPERT_ROWS]) and `out`.
// Needs: EXPERT_ROWS, PART_ROWS, N_USED, OUT_STRIDE, HAS_BIAS.
fn store(expert: u32, expert_row: u32, row: u32, slot: u32, sum: f32) {
    var value = sum;
    if (HAS_BIAS) {
        value += bias[expert * EXPERT_ROWS + expert_row];
    }
    let part = expert_row / PART_ROWS;
    let column = (part * N_USED + slot) * PART_ROWS + expert_row % PART_ROWS;
    out[row * OUT_STRIDE + column] = value;
}
