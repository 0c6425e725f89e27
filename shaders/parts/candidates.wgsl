// CANDIDATES pairs of logit and token id in workgroup memory, of which the first ones are sorted by
// falling logit, equal logits by rising id: a bitonic sort (Batcher 1968). Needs: WG, CANDIDATES.
var<workgroup> logits: array<f32, CANDIDATES>;
var<workgroup> ids: array<u32, CANDIDATES>;

// What fills places without a candidate: sorts after everything.
const NO_LOGIT: f32 = -3.4028234e38;
const NO_ID: u32 = 0xffffffffu;

fn comes_first(a: u32, b: u32) -> bool {
    return logits[a] > logits[b] || (logits[a] == logits[b] && ids[a] < ids[b]);
}

// Sorts places 0..n, n being a power of two.
fn sort_candidates(index: u32, n: u32) {
    for (var run = 2u; run <= n; run *= 2u) {
        for (var step = run / 2u; step > 0u; step /= 2u) {
            workgroupBarrier();
            for (var i = index; i < n / 2u; i += WG) {
                let a = i / step * 2u * step + i % step;
                let b = a + step;
                let falling = (a & run) == 0u;
                if (comes_first(b, a) == falling) {
                    let logit = logits[a];
                    let id = ids[a];
                    logits[a] = logits[b];
                    ids[a] = ids[b];
                    logits[b] = logit;
                    ids[b] = id;
                }
            }
        }
    }
    workgroupBarrier();
}
