// Gated activation: a column of the product is activate(gate) * gated(up), from two rows of a weight that
// holds both. The workgroup's first half of rows are gates. Needs: GROUP_ROWS, N_COLUMNS, GATE_ROW
// and UP_ROW (the first row of each), row_value, activate (parts/silu and others), gated
// (parts/up_*).
const GROUP_COLUMNS: u32 = GROUP_ROWS / 2u;

// The weight row behind row `j` of a workgroup whose first column is `first`.
fn weight_row(first: u32, j: u32) -> u32 {
    let column = min(first + j % GROUP_COLUMNS, N_COLUMNS - 1u);
    return select(UP_ROW, GATE_ROW, j < GROUP_COLUMNS) + column;
}

// Column `first + j` of the workgroup's row `n` of x.
fn column_value(first: u32, n: u32, j: u32) -> f32 {
    let gate = row_value(n, j, GATE_ROW + first + j);
    let up = row_value(n, GROUP_COLUMNS + j, UP_ROW + first + j);
    return activate(gate) * gated(up);
}
