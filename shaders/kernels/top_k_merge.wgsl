// Joins sorted lists of K candidates, FAN at a time. lists [rows, N_IN, K, 2] (logit bits, id), out
// [rows, N_OUT, K, 2]. A workgroup makes one list of a row.
// Needs: WG, CANDIDATES >= FAN * K, K, FAN, N_IN, N_OUT, parts/candidates, parts/batch.
// Twin: cpu top_k.
@group(0) @binding(0) var<storage, read> lists: array<u32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let row = group.y;
    if (row >= n_rows()) {
        return;
    }
    for (var i = index; i < CANDIDATES; i += WG) {
        let list = group.x * FAN + i / K;
        logits[i] = NO_LOGIT;
        ids[i] = NO_ID;
        if (i < FAN * K && list < N_IN) {
            let at = 2u * ((row * N_IN + list) * K + i % K);
            logits[i] = bitcast<f32>(lists[at]);
            ids[i] = lists[at + 1u];
        }
    }
    sort_candidates(index, CANDIDATES);
    for (var i = index; i < K; i += WG) {
        let at = 2u * ((row * N_OUT + group.x) * K + i);
        out[at] = bitcast<u32>(logits[i]);
        out[at + 1u] = ids[i];
    }
}
