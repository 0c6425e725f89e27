// out = FACTOR * (x / sqrt(mean(x^2) + EPS) (* scales) (+ residual)) over each run of GROUP columns; the residual is a
// vector for all rows where its stride is 0. With GATED it is a gate: activate(residual) * norm. out [rows, COLS].
// A workgroup takes one run of one row.
// Needs: WG, GROUP, X_STRIDE, X_OFFSET, HAS_WEIGHT, HAS_ADDED, GATED, RESIDUAL_STRIDE, RESIDUAL_OFFSET, OUT_STRIDE,
// EPS, FACTOR, activate (parts/silu and others), workgroup_sum (parts/reduce_*), parts/batch. Twin: cpu rms_norm, add, scale and
// glu.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> scales: array<f32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read> batch: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let row = invocation.group.y;
    let column = invocation.group.x * GROUP;
    let x_at = row * X_STRIDE + X_OFFSET + column;
    let out_at = row * OUT_STRIDE + column;
    if (row >= n_rows()) {
        return;
    }
    var squares = 0.0;
    for (var i = invocation.index; i < GROUP; i += WG) {
        let value = x[x_at + i];
        squares = fma(value, value, squares);
    }
    let mean = workgroup_sum(invocation, squares) / f32(GROUP);
    let scale = 1.0 / sqrt(mean + EPS);
    for (var i = invocation.index; i < GROUP; i += WG) {
        var value = x[x_at + i] * scale;
        if (HAS_WEIGHT) {
            value *= scales[i];
        }
        if (HAS_ADDED) {
            let other = residual[row * RESIDUAL_STRIDE + RESIDUAL_OFFSET + column + i];
            value = select(value + other, activate(other) * value, GATED);
        }
        out[out_at + i] = FACTOR * value;
    }
}
