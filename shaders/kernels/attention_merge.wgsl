// Joins the splits that attention_decode left. out [tokens, N_HEADS * HEAD_DIM]. One workgroup per
// head and token; tokens with one split are finished already.
// Needs: WG, N_HEADS, HEAD_DIM, OUT_STRIDE, parts/splits, parts/batch. Twin: cpu attention.
@group(0) @binding(0) var<storage, read> splits: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let head = group.x;
    let row = group.y;
    if (row >= n_rows()) {
        return;
    }
    let n = n_splits(batch_position(row));
    if (n == 1u) {
        return;
    }
    let at = (row * N_HEADS + head) * MAX_SPLITS * (HEAD_DIM + 2u);
    var largest = splits[at + HEAD_DIM];
    for (var s = 1u; s < n; s++) {
        largest = max(largest, splits[at + s * (HEAD_DIM + 2u) + HEAD_DIM]);
    }
    for (var d = index; d < HEAD_DIM; d += WG) {
        var value = 0.0;
        var sum = 0.0;
        for (var s = 0u; s < n; s++) {
            let split = at + s * (HEAD_DIM + 2u);
            let weight = exp(splits[split + HEAD_DIM] - largest);
            value = fma(weight, splits[split + d], value);
            sum = fma(weight, splits[split + HEAD_DIM + 1u], sum);
        }
        out[row * OUT_STRIDE + head * HEAD_DIM + d] = value / sum;
    }
}
