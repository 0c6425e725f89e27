// out = FACTOR * x. out [rows, COLS]. One invocation per number.
// Needs: WG, COLS, FACTOR, X_STRIDE, X_OFFSET, OUT_STRIDE, parts/batch. Twin: cpu scale.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COLS || id.y >= n_rows()) {
        return;
    }
    out[id.y * OUT_STRIDE + id.x] = FACTOR * x[id.y * X_STRIDE + X_OFFSET + id.x];
}
