// Every row of a weight is a column of the product. Needs: GROUP_ROWS, N_ROWS, row_sum, biased.
const GROUP_COLUMNS: u32 = GROUP_ROWS;
const N_COLUMNS: u32 = N_ROWS;

// The weight row behind row `j` of a workgroup whose first column is `first`.
fn weight_row(first: u32, j: u32) -> u32 {
    return min(first + j, N_ROWS - 1u);
}

// Column `first + j` of the workgroup's row `n` of x.
fn column_value(first: u32, n: u32, j: u32) -> f32 {
    return biased(row_sum(n, j), first + j);
}
