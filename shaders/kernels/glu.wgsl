// out = activation(gate) * up. out [rows, COLS]. One invocation per number.
// GELU's 0.5 (1 + tanh(u)) is written as 1 / (1 + exp(-2u)), which keeps small results exact.
// Needs: WG, COLS, GELU (else SiLU), GATE_STRIDE, GATE_OFFSET, UP_STRIDE, UP_OFFSET, OUT_STRIDE,
// parts/batch. Twin: cpu glu.
@group(0) @binding(0) var<storage, read> gate: array<f32>;
@group(0) @binding(1) var<storage, read> up: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// Past 80 the logistic function is 0 in 32 bits; the bound keeps exp from overflowing.
fn logistic(value: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-value, 80.0)));
}

fn activation(g: f32) -> f32 {
    if (GELU) {
        // sqrt(2 / pi)
        return g * logistic(2.0 * 0.7978845608 * fma(0.044715 * g * g, g, g));
    }
    return g * logistic(g);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COLS || id.y >= n_rows()) {
        return;
    }
    let g = gate[id.y * GATE_STRIDE + GATE_OFFSET + id.x];
    let u = up[id.y * UP_STRIDE + UP_OFFSET + id.x];
    out[id.y * OUT_STRIDE + id.x] = activation(g) * u;
}
