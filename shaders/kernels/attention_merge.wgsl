// Joins the splits that attention_decode left. out [tokens, N_HEADS * VALUE_DIM]. One workgroup per
// head and token; tokens with one split are finished already.
// Needs: WG, N_HEADS, VALUE_DIM, OUT_STRIDE, HAS_SINKS, parts/sinks, parts/splits, parts/batch. Twin: cpu attention.
@group(0) @binding(0) var<storage, read> splits: array<f32>;
@group(0) @binding(1) var<storage, read> sinks: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

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
    let at = (row * N_HEADS + head) * MAX_SPLITS * (VALUE_DIM + 2u);
    var largest = splits[at + VALUE_DIM];
    for (var s = 1u; s < n; s++) {
        largest = max(largest, splits[at + s * (VALUE_DIM + 2u) + VALUE_DIM]);
    }
    for (var d = index; d < VALUE_DIM; d += WG) {
        var value = 0.0;
        var sum = sink_weight(head, largest);
        for (var s = 0u; s < n; s++) {
            let split = at + s * (VALUE_DIM + 2u);
            let weight = exp(splits[split + VALUE_DIM] - largest);
            value = fma(weight, splits[split + d], value);
            sum = fma(weight, splits[split + VALUE_DIM + 1u], sum);
        }
        out[row * OUT_STRIDE + head * VALUE_DIM + d] = value / sum;
    }
}
