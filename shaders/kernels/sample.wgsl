// The token after each wanted row, of its K sorted candidates: penalties, top-k, top-p, min-p,
// temperature, draw. lists [rows, K, 2] (logit bits, id), sums [rows, SLICES, 2] (float bits),
// chosen [rows]: the id, or NO_ID where logits are not finite. A workgroup takes a row; rows that
// do not say how keep what they have.
//
// batch[batch[SAMPLING_WORD] + row] is the offset of a record, or 0: top_k, temperature, top_p,
// ln(min_p), uniform, number of seen tokens (the row's own is the last), repeat, presence and
// frequency penalty, the seen tokens before the row's own.
// Needs: WG, CANDIDATES >= K, K, SLICES, SAMPLING_WORD, parts/candidates, parts/batch.
// Twin: kernels-tests/reference/sample.rs.
@group(0) @binding(0) var<storage, read> lists: array<u32>;
@group(0) @binding(1) var<storage, read> sums: array<u32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> chosen: array<u32>;

// Relative to the best: before and after the temperature.
var<workgroup> weights: array<f32, CANDIDATES>;
var<workgroup> tempered: array<f32, CANDIDATES>;
var<workgroup> n_invalid: atomic<u32>;

// So low that exp gives nothing that counts, and no number that is not normal.
const LEAST: f32 = -80.0;

fn is_finite(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}

// Counts what is not finite: then some logit is not.
fn check_sums(row: u32, index: u32) {
    for (var i = index; i < 2u * SLICES; i += WG) {
        if (!is_finite(sums[2u * SLICES * row + i])) {
            atomicAdd(&n_invalid, 1u);
        }
    }
}

fn penalised(logit: f32, id: u32, row: u32, at: u32) -> f32 {
    let n_seen = batch[at + 5u];
    if (n_seen == 0u) {
        return logit;
    }
    var n = u32(batch_token(token_of(row)) == id);
    for (var i = 0u; i < n_seen - 1u; i++) {
        n += u32(batch[at + 9u + i] == id);
    }
    if (n == 0u) {
        return logit;
    }
    let repeat = bitcast<f32>(batch[at + 6u]);
    let presence = bitcast<f32>(batch[at + 7u]);
    let frequency = bitcast<f32>(batch[at + 8u]);
    let scaled = select(logit * repeat, logit / repeat, logit > 0.0);
    return scaled - presence - f32(n) * frequency;
}

// How many of the sorted candidates are kept.
fn n_kept(at: u32) -> u32 {
    let top_k = min(batch[at], K);
    var n = 0u;
    var total = 0.0;
    while (n < top_k && ids[n] != NO_ID) {
        total += weights[n];
        n++;
    }
    let top_p = bitcast<f32>(batch[at + 2u]);
    if (top_p < 1.0) {
        var sum = 0.0;
        for (var i = 0u; i < n; i++) {
            sum += weights[i];
            if (sum >= top_p * total) {
                n = i + 1u;
            }
        }
    }
    let least = logits[0] + bitcast<f32>(batch[at + 3u]);
    while (n > 1u && logits[n - 1u] < least) {
        n--;
    }
    return n;
}

// The sum in the end is the total, bit for bit, so that some token passes what is drawn.
fn draw(at: u32, n: u32) -> u32 {
    var total = 0.0;
    for (var i = 0u; i < n; i++) {
        total += tempered[i];
    }
    let drawn = bitcast<f32>(batch[at + 4u]) * total;
    var sum = 0.0;
    for (var i = 0u; i < n; i++) {
        sum += tempered[i];
        if (sum > drawn) {
            return ids[i];
        }
    }
    return ids[0];
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let row = group.y;
    if (row >= n_rows()) {
        return;
    }
    let at = batch[batch[SAMPLING_WORD] + row];
    if (at == 0u) {
        return;
    }
    if (index == 0u) {
        atomicStore(&n_invalid, 0u);
    }
    for (var i = index; i < CANDIDATES; i += WG) {
        logits[i] = NO_LOGIT;
        ids[i] = NO_ID;
        if (i < K && lists[2u * (row * K + i) + 1u] != NO_ID) {
            let id = lists[2u * (row * K + i) + 1u];
            logits[i] = penalised(bitcast<f32>(lists[2u * (row * K + i)]), id, row, at);
            ids[i] = id;
        }
    }
    sort_candidates(index, CANDIDATES);
    check_sums(row, index);
    let temperature = bitcast<f32>(batch[at + 1u]);
    for (var i = index; i < CANDIDATES; i += WG) {
        let below = logits[i] - logits[0];
        weights[i] = exp(max(below, LEAST));
        tempered[i] = exp(max(below / temperature, LEAST));
    }
    workgroupBarrier();
    if (index == 0u) {
        if (atomicLoad(&n_invalid) > 0u || ids[0] == NO_ID) {
            chosen[row] = NO_ID;
        } else {
            chosen[row] = draw(at, n_kept(at));
        }
    }
}
