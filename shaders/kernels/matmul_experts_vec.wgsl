// out = x * weights of the slot's expert^T (+ bias) for single tokens: weights
// [N_EXPERTS * EXPERT_ROWS, COLS], of which rows FIRST_ROW.. are bound here; x and out as in
// parts/slot_* and parts/expert_store. Weights of experts that no slot names are not read.
// A workgroup makes WG / LANES * ROWS_PER_LANE results of one slot. LANES invocations share a
// weight row: lane l takes spans l, l + LANES, ... in order, and the lanes' sums are added in an
// order of their own (parts/lanes), so that a result depends on nothing but its own row.
// Needs: WG, LANES, ROWS_PER_LANE, SPANS, N_ROWS, FIRST_ROW, N_EXPERTS, slot_quad
// (parts/slot_*), span_values (quant/*), parts/experts, parts/expert_store, parts/fma4,
// parts/lanes and what it needs, parts/batch. Twin: cpu matmul_experts.
@group(0) @binding(1) var<storage, read> route: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> batch: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

const GROUP_ROWS: u32 = WG / LANES * ROWS_PER_LANE;

// [GROUP_ROWS, LANES]
var<workgroup> lane_sums: array<f32, GROUP_ROWS * LANES>;

fn add_span(w: Span, row: u32, slot: u32, span: u32, sum: f32) -> f32 {
    let quad = 8u * span;
    var s = fma4(w.v0, slot_quad(row, slot, quad), sum);
    s = fma4(w.v1, slot_quad(row, slot, quad + 1u), s);
    s = fma4(w.v2, slot_quad(row, slot, quad + 2u), s);
    s = fma4(w.v3, slot_quad(row, slot, quad + 3u), s);
    s = fma4(w.v4, slot_quad(row, slot, quad + 4u), s);
    s = fma4(w.v5, slot_quad(row, slot, quad + 5u), s);
    s = fma4(w.v6, slot_quad(row, slot, quad + 6u), s);
    return fma4(w.v7, slot_quad(row, slot, quad + 7u), s);
}

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let group = invocation.group;
    let index = position(invocation);
    let own_lane = index % LANES;
    let own_row = index / LANES * ROWS_PER_LANE;
    let group_row = group.x * GROUP_ROWS;
    let row = group.z / N_USED;
    let slot = group.z % N_USED;
    if (row >= n_rows() || group_row >= EXPERT_ROWS) {
        return;
    }
    let expert = expert_of(row, slot);
    // The expert's rows may begin before the part that is bound here, or end after it.
    let begin = expert * EXPERT_ROWS + group_row;
    let end = min(begin + GROUP_ROWS, (expert + 1u) * EXPERT_ROWS);
    if (end <= FIRST_ROW || begin >= FIRST_ROW + N_ROWS) {
        return;
    }
    var sums: array<f32, ROWS_PER_LANE>;
    for (var span = own_lane; span < SPANS; span += LANES) {
        for (var r = 0u; r < ROWS_PER_LANE; r++) {
            let weight_row = clamp(begin + own_row + r, FIRST_ROW, FIRST_ROW + N_ROWS - 1u);
            let w = span_values(weight_row - FIRST_ROW, span);
            sums[r] = add_span(w, row, slot, span, sums[r]);
        }
    }
    for (var r = 0u; r < ROWS_PER_LANE; r++) {
        let sum = own_sum(invocation, sums[r]);
        keep_sum((own_row + r) * LANES, own_lane, sum);
    }
    workgroupBarrier();
    for (var i = index; i < GROUP_ROWS; i += WG) {
        let weight_row = begin + i;
        if (weight_row < end && weight_row >= FIRST_ROW && weight_row < FIRST_ROW + N_ROWS) {
            store(expert, group_row + i, row, slot, lanes_sum(i * LANES));
        }
    }
}
