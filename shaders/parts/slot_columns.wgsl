// The input of a slot where offsets or sizes are odd: column by column, zero past the end.
// Needs: X_STRIDE, X_OFFSET, SLOT_STRIDE (0: all slots share one), COLS.
@group(0) @binding(0) var<storage, read> x: array<f32>;

// One way out, as in parts/x_columns.
fn slot_column(row: u32, slot: u32, column: u32) -> f32 {
    var value = 0.0;
    if (column < COLS) {
        value = x[row * X_STRIDE + X_OFFSET + slot * SLOT_STRIDE + column];
    }
    return value;
}

fn slot_quad(row: u32, slot: u32, quad: u32) -> vec4<f32> {
    let column = 4u * quad;
    return vec4<f32>(
        slot_column(row, slot, column),
        slot_column(row, slot, column + 1u),
        slot_column(row, slot, column + 2u),
        slot_column(row, slot, column + 3u),
    );
}
