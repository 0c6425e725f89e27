// out = sum over slots of weight * x, in order, (+ residual): x [rows, N_USED * COLS], route
// [rows, 2 * N_USED] with the weights last, out [rows, COLS]. One invocation per number.
// Needs: WG, COLS, N_USED, X_STRIDE, X_OFFSET, ROUTE_STRIDE, ROUTE_OFFSET, HAS_RESIDUAL,
// RESIDUAL_STRIDE, RESIDUAL_OFFSET, OUT_STRIDE, parts/batch. Twin: cpu combine.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> route: array<f32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read> batch: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COLS || id.y >= n_rows()) {
        return;
    }
    let x_at = id.y * X_STRIDE + X_OFFSET + id.x;
    let weight_at = id.y * ROUTE_STRIDE + ROUTE_OFFSET + N_USED;
    var sum = 0.0;
    for (var u = 0u; u < N_USED; u++) {
        sum = fma(x[x_at + u * COLS], route[weight_at + u], sum);
    }
    if (HAS_RESIDUAL) {
        sum += residual[id.y * RESIDUAL_STRIDE + RESIDUAL_OFFSET + id.x];
    }
    out[id.y * OUT_STRIDE + id.x] = sum;
}
