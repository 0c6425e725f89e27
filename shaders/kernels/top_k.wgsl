// The best K candidates of each slice of CANDIDATES logits, and the slice's part of the sum of
// exponentials. x [rows, COLS], lists [rows, SLICES, K, 2] (logit bits, id), sums
// [rows, SLICES, 2] (maximum, sum of exp(logit - maximum)). A workgroup takes a slice of a row.
// Needs: WG, CANDIDATES, K, COLS, SLICES, X_STRIDE, X_OFFSET, workgroup_sum and workgroup_max
// (parts/reduce_*), parts/candidates, parts/batch. Twin: cpu top_k.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> lists: array<u32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let index = invocation.index;
    let slice = invocation.group.x;
    let row = invocation.group.y;
    if (row >= n_rows()) {
        return;
    }
    var largest = NO_LOGIT;
    for (var i = index; i < CANDIDATES; i += WG) {
        let id = slice * CANDIDATES + i;
        logits[i] = NO_LOGIT;
        ids[i] = NO_ID;
        if (id < COLS) {
            logits[i] = x[row * X_STRIDE + X_OFFSET + id];
            ids[i] = id;
            largest = max(largest, logits[i]);
        }
    }
    largest = workgroup_max(invocation, largest);
    var sum = 0.0;
    for (var i = index; i < CANDIDATES; i += WG) {
        if (ids[i] != NO_ID) {
            sum += exp(logits[i] - largest);
        }
    }
    sum = workgroup_sum(invocation, sum);
    if (index == 0u) {
        sums[2u * (row * SLICES + slice)] = largest;
        sums[2u * (row * SLICES + slice) + 1u] = sum;
    }
    sort_candidates(index);
    for (var i = index; i < K; i += WG) {
        let at = 2u * ((row * SLICES + slice) * K + i);
        lists[at] = bitcast<u32>(logits[i]);
        lists[at + 1u] = ids[i];
    }
}
