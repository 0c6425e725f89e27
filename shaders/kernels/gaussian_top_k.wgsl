// out = max(x - mean(x) - CUTOFF * s, 0) over each row of GROUP columns, s being the deviation of a sample. out [rows, GROUP].
// A workgroup takes one row.
// Needs: WG, GROUP, X_STRIDE, X_OFFSET, OUT_STRIDE, CUTOFF, workgroup_sum (parts/reduce_*), parts/batch.
// Twin: cpu gaussian_top_k.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let row = invocation.group.y;
    let x_at = row * X_STRIDE + X_OFFSET;
    let out_at = row * OUT_STRIDE;
    if (row >= n_rows()) {
        return;
    }
    var sum = 0.0;
    for (var i = invocation.index; i < GROUP; i += WG) {
        sum += x[x_at + i];
    }
    let mean = workgroup_sum(invocation, sum) / f32(GROUP);
    var squares = 0.0;
    for (var i = invocation.index; i < GROUP; i += WG) {
        let off = x[x_at + i] - mean;
        squares = fma(off, off, squares);
    }
    let variance = workgroup_sum(invocation, squares) / f32(GROUP - 1u);
    let least = mean + CUTOFF * sqrt(variance);
    for (var i = invocation.index; i < GROUP; i += WG) {
        out[out_at + i] = max(x[x_at + i] - least, 0.0);
    }
}
