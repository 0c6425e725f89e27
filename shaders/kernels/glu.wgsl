// out = activation(gate) * up, with up as the activation wants it. out [rows, COLS]. One invocation per number.
// Needs: WG, COLS, GATE_STRIDE, GATE_OFFSET, UP_STRIDE, UP_OFFSET, OUT_STRIDE, activate (parts/silu
// and others), gated (parts/up_*), parts/batch. Twin: cpu glu.
@group(0) @binding(0) var<storage, read> gate: array<f32>;
@group(0) @binding(1) var<storage, read> up: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COLS || id.y >= n_rows()) {
        return;
    }
    let g = gate[id.y * GATE_STRIDE + GATE_OFFSET + id.x];
    let u = up[id.y * UP_STRIDE + UP_OFFSET + id.x];
    out[id.y * OUT_STRIDE + id.x] = activate(g) * gated(u);
}
