// The best K candidates of each slice of SLICE logits, and the slice's part of the sum of
// exponentials. x [rows, COLS], lists [rows, SLICES, K, 2] (logit bits, id), sums
// [rows, SLICES, 2] (maximum, sum of exp(logit - maximum)). A workgroup takes a slice of a row.
//
// The K-th largest of GROUPS maxima bounds the K-th largest logit from below, so only logits that
// reach it are sorted. Should more than CANDIDATES do, ties above all, the slice is sorted piece by
// piece instead.
// Needs: WG, CANDIDATES, SLICE, GROUPS >= K, K, COLS, SLICES, X_STRIDE, X_OFFSET, workgroup_sum and
// workgroup_max (parts/reduce_*), parts/candidates, parts/batch. Twin: cpu top_k.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> lists: array<u32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

var<workgroup> n_found: atomic<u32>;
var<workgroup> n_candidates: u32;

fn put(place: u32, logit: f32, id: u32) {
    logits[place] = logit;
    ids[place] = id;
}

// Leaves the maxima of GROUPS interleaved groups, sorted, and returns the largest.
fn sort_maxima(invocation: Invocation, at: u32, n: u32) -> f32 {
    var overall = NO_LOGIT;
    for (var g = invocation.index; g < GROUPS; g += WG) {
        var largest = NO_LOGIT;
        for (var i = g; i < n; i += GROUPS) {
            largest = max(largest, x[at + i]);
        }
        put(g, largest, g);
        overall = max(overall, largest);
    }
    sort_candidates(invocation.index, GROUPS);
    return workgroup_max(invocation, overall);
}

// Puts every logit that reaches the threshold to some place, as far as there are any.
fn collect(index: u32, at: u32, first_id: u32, n: u32, threshold: f32) {
    for (var i = index; i < n; i += WG) {
        let logit = x[at + i];
        if (logit >= threshold) {
            let place = atomicAdd(&n_found, 1u);
            if (place < CANDIDATES) {
                put(place, logit, first_id + i);
            }
        }
    }
}

fn sort_found(index: u32, found: u32) {
    var n = 2u;
    while (n < max(found, K)) {
        n *= 2u;
    }
    for (var i = found + index; i < n; i += WG) {
        put(i, NO_LOGIT, NO_ID);
    }
    sort_candidates(index, n);
}

// Sorts the best K so far together with as many further logits as there is room for.
fn sort_pieces(index: u32, at: u32, first_id: u32, n: u32) {
    const ROOM: u32 = CANDIDATES - K;
    for (var i = index; i < K; i += WG) {
        put(i, NO_LOGIT, NO_ID);
    }
    for (var piece = 0u; piece < n; piece += ROOM) {
        for (var i = index; i < ROOM; i += WG) {
            put(K + i, NO_LOGIT, NO_ID);
            if (piece + i < n) {
                put(K + i, x[at + piece + i], first_id + piece + i);
            }
        }
        sort_candidates(index, CANDIDATES);
    }
}

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let index = invocation.index;
    let slice = invocation.group.x;
    let row = invocation.group.y;
    if (row >= n_rows()) {
        return;
    }
    let first_id = slice * SLICE;
    let at = row * X_STRIDE + X_OFFSET + first_id;
    let n = min(SLICE, COLS - first_id);
    if (index == 0u) {
        atomicStore(&n_found, 0u);
    }
    let largest = sort_maxima(invocation, at, n);
    let threshold = logits[K - 1u];
    var sum = 0.0;
    for (var i = index; i < n; i += WG) {
        sum += exp(x[at + i] - largest);
    }
    sum = workgroup_sum(invocation, sum);
    if (index == 0u) {
        sums[2u * (row * SLICES + slice)] = largest;
        sums[2u * (row * SLICES + slice) + 1u] = sum;
    }
    collect(index, at, first_id, n, threshold);
    workgroupBarrier();
    if (index == 0u) {
        n_candidates = atomicLoad(&n_found);
    }
    let found = workgroupUniformLoad(&n_candidates);
    if (found <= CANDIDATES) {
        sort_found(index, found);
    } else {
        sort_pieces(index, at, first_id, n);
    }
    for (var i = index; i < K; i += WG) {
        let to = 2u * ((row * SLICES + slice) * K + i);
        lists[to] = bitcast<u32>(logits[i]);
        lists[to + 1u] = ids[i];
    }
}
