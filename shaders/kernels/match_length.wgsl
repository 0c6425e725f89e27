// out = x * sqrt(mean(like^2) / max(mean(x^2), LEAST_SQUARE)) over each run of GROUP columns. out [rows, COLS].
// A workgroup takes one run of one row.
// Needs: WG, GROUP, X_STRIDE, X_OFFSET, LIKE_STRIDE, LIKE_OFFSET, OUT_STRIDE, LEAST_SQUARE,
// workgroup_sum (parts/reduce_*), parts/batch. Twin: cpu match_length.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> wanted: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let row = invocation.group.y;
    let column = invocation.group.x * GROUP;
    let x_at = row * X_STRIDE + X_OFFSET + column;
    let wanted_at = row * LIKE_STRIDE + LIKE_OFFSET;
    let out_at = row * OUT_STRIDE + column;
    if (row >= n_rows()) {
        return;
    }
    var squares = 0.0;
    var wanted_squares = 0.0;
    for (var i = invocation.index; i < GROUP; i += WG) {
        squares = fma(x[x_at + i], x[x_at + i], squares);
        wanted_squares = fma(wanted[wanted_at + i], wanted[wanted_at + i], wanted_squares);
    }
    let square = workgroup_sum(invocation, squares) / f32(GROUP);
    let wanted_square = workgroup_sum(invocation, wanted_squares) / f32(GROUP);
    let scale = sqrt(wanted_square / max(square, LEAST_SQUARE));
    for (var i = invocation.index; i < GROUP; i += WG) {
        out[out_at + i] = x[x_at + i] * scale;
    }
}
