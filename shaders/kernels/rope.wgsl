// Turns pair i of each head by the angle of its position; columns past the pairs are copied.
// Pairs are (2i, 2i + 1) or, with NEOX, (i, i + HALF). out [rows, COLS]. One invocation per pair
// or copied column.
// Needs: WG, COLS, HEAD_DIM, HALF, NEOX, TABLE, X_STRIDE, X_OFFSET, OUT_STRIDE, parts/batch.
// Twin: cpu rope.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

const ITEMS: u32 = HEAD_DIM - HALF;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (id.x >= COLS / HEAD_DIM * ITEMS || row >= n_rows()) {
        return;
    }
    let head = id.x / ITEMS * HEAD_DIM;
    let i = id.x % ITEMS;
    let x_at = row * X_STRIDE + X_OFFSET + head;
    let out_at = row * OUT_STRIDE + head;
    if (i >= HALF) {
        out[out_at + HALF + i] = x[x_at + HALF + i];
        return;
    }
    var first = 2u * i;
    var second = first + 1u;
    if (NEOX) {
        first = i;
        second = i + HALF;
    }
    let angle = batch[9u + TABLE] + 2u * (token_of(row) * HALF + i);
    let cosine = bitcast<f32>(batch[angle]);
    let sine = bitcast<f32>(batch[angle + 1u]);
    let a = x[x_at + first];
    let b = x[x_at + second];
    out[out_at + first] = fma(a, cosine, -(b * sine));
    out[out_at + second] = fma(a, sine, b * cosine);
}
