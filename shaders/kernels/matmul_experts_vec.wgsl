// out = x * weights of the slot's expert^T (+ bias) for single tokens, or a gated activation of such columns:
// weights [N_EXPERTS * EXPERT_ROWS, COLS], of which rows FIRST_ROW.. are bound here; x and out as in parts/slot_* and
// parts/expert_store. Weights of experts that no slot names are not read.
// With COMBINES the products of a row's slots are weighted by its route and added in order, (+ residual):
// out [rows, EXPERT_ROWS].
// A workgroup makes WG / PARALLEL / LANES * ROWS_PER_LANE sums for each of SLOTS slots, PARALLEL of them at a time.
// LANES invocations share a weight row: lane l takes spans l, l + LANES, ... in order, and the lanes' sums are added in
// an order of their own (parts/lanes), so that a result depends on nothing but its own row.
// Needs: WG, LANES, ROWS_PER_LANE, SLOTS (1, or N_USED to combine), PARALLEL (divides SLOTS), SPANS, N_ROWS, FIRST_ROW,
// N_EXPERTS, COMBINES, HAS_RESIDUAL, RESIDUAL_STRIDE, RESIDUAL_OFFSET, weight_row and column_value (parts/columns_*),
// slot_quad (parts/slot_*), span_values (quant/*), parts/experts, parts/expert_store, parts/fma4, parts/lanes and what
// it needs, parts/batch. Twins: cpu matmul_experts, glu, combine.
@group(0) @binding(1) var<storage, read> route: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> batch: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

// Invocations that share a slot.
const SLOT_LANES: u32 = WG / PARALLEL;
const GROUP_ROWS: u32 = SLOT_LANES / LANES * ROWS_PER_LANE;

// [SLOTS, GROUP_ROWS, LANES]
var<workgroup> lane_sums: array<f32, SLOTS * GROUP_ROWS * LANES>;

// The workgroup's row of x and its first slot.
var<private> own_row: u32;
var<private> first_slot: u32;

fn add_span(w: Span, slot: u32, span: u32, sum: f32) -> f32 {
    let quad = 8u * span;
    var s = fma4(w.v0, slot_quad(own_row, slot, quad), sum);
    s = fma4(w.v1, slot_quad(own_row, slot, quad + 1u), s);
    s = fma4(w.v2, slot_quad(own_row, slot, quad + 2u), s);
    s = fma4(w.v3, slot_quad(own_row, slot, quad + 3u), s);
    s = fma4(w.v4, slot_quad(own_row, slot, quad + 4u), s);
    s = fma4(w.v5, slot_quad(own_row, slot, quad + 5u), s);
    s = fma4(w.v6, slot_quad(own_row, slot, quad + 6u), s);
    return fma4(w.v7, slot_quad(own_row, slot, quad + 7u), s);
}

// Row `j` of the workgroup, which is `expert_row` of its expert, times the input of its slot `n`.
fn row_value(n: u32, j: u32, expert_row: u32) -> f32 {
    var sum = lanes_sum((n * GROUP_ROWS + j) * LANES);
    if (HAS_BIAS) {
        sum += bias[expert_of(own_row, first_slot + n) * EXPERT_ROWS + expert_row];
    }
    return sum;
}

fn finish(first_column: u32, j: u32) {
    let column = first_column + j;
    if (COMBINES) {
        var sum = 0.0;
        for (var n = 0u; n < SLOTS; n++) {
            let factor = route[own_row * ROUTE_STRIDE + ROUTE_OFFSET + N_USED + n];
            sum = fma(column_value(first_column, n, j), factor, sum);
        }
        if (HAS_RESIDUAL) {
            sum += residual[own_row * RESIDUAL_STRIDE + RESIDUAL_OFFSET + column];
        }
        out[own_row * OUT_STRIDE + column] = sum;
    } else {
        store(column, own_row, first_slot, column_value(first_column, 0u, j));
    }
}

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let group = invocation.group;
    let index = position(invocation);
    let own_lane = index % LANES;
    let first_row = index % SLOT_LANES / LANES * ROWS_PER_LANE;
    let first_column = group.x * GROUP_COLUMNS;
    own_row = group.z;
    first_slot = group.y * SLOTS;
    if (own_row >= n_rows() || first_column >= N_COLUMNS) {
        return;
    }
    // The expert's rows may begin before the part that is bound here, or end after it; where a workgroup takes several
    // experts, or rows that are apart, the part is the whole.
    let bound_from = expert_of(own_row, first_slot) * EXPERT_ROWS + first_column;
    if (bound_from + GROUP_COLUMNS <= FIRST_ROW || bound_from >= FIRST_ROW + N_ROWS) {
        return;
    }
    for (var turn = 0u; turn < SLOTS / PARALLEL; turn++) {
        let n = turn * PARALLEL + index / SLOT_LANES;
        let slot = first_slot + n;
        let begin = expert_of(own_row, slot) * EXPERT_ROWS;
        var sums: array<f32, ROWS_PER_LANE>;
        for (var span = own_lane; span < SPANS; span += LANES) {
            for (var r = 0u; r < ROWS_PER_LANE; r++) {
                let row = begin + weight_row(first_column, first_row + r);
                let w = span_values(clamp(row, FIRST_ROW, FIRST_ROW + N_ROWS - 1u) - FIRST_ROW, span);
                sums[r] = add_span(w, slot, span, sums[r]);
            }
        }
        for (var r = 0u; r < ROWS_PER_LANE; r++) {
            let sum = own_sum(invocation, sums[r]);
            keep_sum((n * GROUP_ROWS + first_row + r) * LANES, own_lane, sum);
        }
    }
    workgroupBarrier();
    for (var j = index; j < GROUP_COLUMNS; j += WG) {
        let row = bound_from + j;
        if (first_column + j < N_COLUMNS && row >= FIRST_ROW && row < FIRST_ROW + N_ROWS) {
            finish(first_column, j);
        }
    }
}
