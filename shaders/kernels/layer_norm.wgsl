// out = (x - mean(x)) / sqrt(variance(x) + EPS) (* scales) (+ bias) over each run of GROUP columns.
// Scales and bias repeat every WEIGHT_COLS and BIAS_COLS columns. out [rows, COLS].
// A workgroup takes one run of one row.
// Needs: WG, GROUP, HAS_WEIGHT, WEIGHT_COLS, HAS_BIAS, BIAS_COLS, X_STRIDE, X_OFFSET, OUT_STRIDE, EPS,
// parts/moments, parts/batch. Twin: cpu layer_norm.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> scales: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
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
    let of_x = moments(invocation, x_at);
    let scale = 1.0 / sqrt(of_x.squares / f32(GROUP) + EPS);
    for (var i = invocation.index; i < GROUP; i += WG) {
        var value = (x[x_at + i] - of_x.mean) * scale;
        if (HAS_WEIGHT) {
            value *= scales[(column + i) % WEIGHT_COLS];
        }
        if (HAS_BIAS) {
            value += bias[(column + i) % BIAS_COLS];
        }
        out[out_at + i] = value;
    }
}
