// out = max(x - mean(x) - CUTOFF * s, 0) over each row of GROUP columns, s being the deviation of a sample. out [rows, GROUP].
// A workgroup takes one row.
// Needs: WG, GROUP, X_STRIDE, X_OFFSET, OUT_STRIDE, CUTOFF, parts/moments, parts/batch.
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
    let of_x = moments(invocation, x_at);
    let least = of_x.mean + CUTOFF * sqrt(of_x.squares / f32(GROUP - 1u));
    for (var i = invocation.index; i < GROUP; i += WG) {
        out[out_at + i] = max(x[x_at + i] - least, 0.0);
    }
}
