// out[t] = SCALE * weights[row of t]. out [tokens, COLS]. One invocation decodes a span.
// The row is that of the token (ROW_KIND 0), of its position (1), or FIXED_ROW (2).
// Needs: WG, ROW_KIND, FIXED_ROW, SPANS, COLS, FIRST_ROW and N_ROWS (the part of the matrix bound here), OUT_STRIDE,
// span_values (quant/*), parts/batch. Twin: cpu embed.
@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn store(row: u32, column: u32, values: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if (column + i < COLS) {
            out[row * OUT_STRIDE + column + i] = SCALE * values[i];
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let span = id.x;
    let row = id.y;
    if (span >= SPANS || row >= n_rows()) {
        return;
    }
    var weight_row = FIXED_ROW;
    if (ROW_KIND == 0u) {
        weight_row = batch_token(row);
    } else if (ROW_KIND == 1u) {
        weight_row = batch_position(row);
    }
    if (weight_row < FIRST_ROW || weight_row >= FIRST_ROW + N_ROWS) {
        return;
    }
    let values = span_values(weight_row - FIRST_ROW, span);
    let column = 32u * span;
    store(row, column, values.v0);
    store(row, column + 4u, values.v1);
    store(row, column + 8u, values.v2);
    store(row, column + 12u, values.v3);
    store(row, column + 16u, values.v4);
    store(row, column + 20u, values.v5);
    store(row, column + 24u, values.v6);
    store(row, column + 28u, values.v7);
}
