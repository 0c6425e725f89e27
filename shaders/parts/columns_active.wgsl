// Every row of a weight is a column of the product, which is activated. Needs: GROUP_ROWS, N_COLUMNS, row_value,
// activate (parts/silu and others).
const GROUP_COLUMNS: u32 = GROUP_ROWS;

// The weight row behind row `j` of a workgroup whose first column is `first`.
fn weight_row(first: u32, j: u32) -> u32 {
    return min(first + j, N_COLUMNS - 1u);
}

// Column `first + j` of the workgroup's row `n` of x.
fn column_value(first: u32, n: u32, j: u32) -> f32 {
    return activate(row_value(n, j, first + j));
}
