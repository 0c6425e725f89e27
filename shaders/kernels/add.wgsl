// out = a + b. out [rows, COLS]. One invocation per number.
// Needs: WG, COLS, A_STRIDE, A_OFFSET, B_STRIDE, B_OFFSET, OUT_STRIDE, parts/batch. Twin: cpu add.
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COLS || id.y >= n_rows()) {
        return;
    }
    let first = a[id.y * A_STRIDE + A_OFFSET + id.x];
    let second = b[id.y * B_STRIDE + B_OFFSET + id.x];
    out[id.y * OUT_STRIDE + id.x] = first + second;
}
