// Where a product with an expert's matrix goes: out is [rows, parts, N_USED, PART_ROWS], the parts
// being matrices that are joined within each expert. The kernel declares `out`.
// Needs: PART_ROWS, N_USED, OUT_STRIDE.
fn store(expert_row: u32, row: u32, slot: u32, value: f32) {
    let part = expert_row / PART_ROWS;
    let column = (part * N_USED + slot) * PART_ROWS + expert_row % PART_ROWS;
    out[row * OUT_STRIDE + column] = value;
}
