// The input of a product where offsets or sizes are odd: column by column, zero past the end.
// Needs: X_STRIDE, X_OFFSET, COLS.
@group(0) @binding(0) var<storage, read> x: array<f32>;

// One way out: a driver that inlines returns from the middle takes minutes for 32 calls of them.
fn x_column(row: u32, column: u32) -> f32 {
    var value = 0.0;
    if (column < COLS) {
        value = x[row * X_STRIDE + X_OFFSET + column];
    }
    return value;
}

fn x_quad(row: u32, quad: u32) -> vec4<f32> {
    let column = 4u * quad;
    return vec4<f32>(
        x_column(row, column),
        x_column(row, column + 1u),
        x_column(row, column + 2u),
        x_column(row, column + 3u),
    );
}
