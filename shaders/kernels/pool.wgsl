// out[i] = mean of the rows of the sequence that ends with row outputs[i]. out [outputs, COLS]. One
// invocation adds up a column.
// Needs: WG, COLS, X_STRIDE, X_OFFSET, OUT_STRIDE, parts/batch. Twin: cpu mean.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COLS || id.y >= n_rows()) {
        return;
    }
    let last = batch_output(id.y);
    let position = batch_position(last);
    var sum = 0.0;
    for (var row = last - position; row <= last; row++) {
        sum += x[row * X_STRIDE + X_OFFSET + id.x];
    }
    out[id.y * OUT_STRIDE + id.x] = sum / f32(position + 1u);
}
