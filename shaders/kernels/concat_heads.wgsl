// out = for each head, A_WIDTH columns of a and B_WIDTH columns of b: a and b have a head every
// A_HEAD and B_HEAD columns, or one for all where that is zero. out [rows, COLS]. One invocation
// per number.
// Needs: WG, COLS, A_HEAD, A_WIDTH, A_STRIDE, A_OFFSET, B_HEAD, B_WIDTH, B_STRIDE, B_OFFSET,
// OUT_STRIDE, parts/batch. Twin: cpu concat_heads.
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COLS || id.y >= n_rows()) {
        return;
    }
    let head = id.x / (A_WIDTH + B_WIDTH);
    let column = id.x % (A_WIDTH + B_WIDTH);
    var value: f32;
    if (column < A_WIDTH) {
        value = a[id.y * A_STRIDE + A_OFFSET + head * A_HEAD + column];
    } else {
        value = b[id.y * B_STRIDE + B_OFFSET + head * B_HEAD + column - A_WIDTH];
    }
    out[id.y * OUT_STRIDE + id.x] = value;
}
