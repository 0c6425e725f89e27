// out = x * weights of each slot's expert^T (+ bias) for prompts: operands as in
// matmul_experts_vec, with the slots listed by expert in `groups` (moe_group). Weights of experts
// that no slot names are not read, and those of the others once per tile.
// A workgroup makes TILE_ROWS results for the slots of one tile, every invocation a block of
// BLOCK x BLOCK_COLUMNS. Spans of both pass through workgroup memory. Each result is one running
// sum over the columns in order, whatever the tile.
// Needs: TILE_ROWS, TILE_COLUMNS, BLOCK, BLOCK_COLUMNS, WG = their quotient, SPANS, N_ROWS,
// FIRST_ROW, LIST_AT, slot_quad (parts/slot_*), span_values (quant/*), parts/expert_store,
// parts/fma4. Twin: cpu matmul_experts.
@group(0) @binding(1) var<storage, read> groups: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

// Vectors of a span in workgroup memory, with one of padding so that neighbouring rows lie in
// different banks.
const SPAN_VECTORS: u32 = 9u;
const ROW_BLOCKS: u32 = TILE_ROWS / BLOCK;

var<workgroup> w_tile: array<vec4<f32>, TILE_ROWS * SPAN_VECTORS>;
var<workgroup> x_tile: array<vec4<f32>, TILE_COLUMNS * SPAN_VECTORS>;
var<workgroup> slots: array<u32, TILE_COLUMNS>;

fn load_weights(begin: u32, span: u32, index: u32) {
    for (var i = index; i < TILE_ROWS; i += WG) {
        let row = clamp(begin + i, FIRST_ROW, FIRST_ROW + N_ROWS - 1u) - FIRST_ROW;
        let w = span_values(row, span);
        let at = i * SPAN_VECTORS;
        w_tile[at] = w.v0;
        w_tile[at + 1u] = w.v1;
        w_tile[at + 2u] = w.v2;
        w_tile[at + 3u] = w.v3;
        w_tile[at + 4u] = w.v4;
        w_tile[at + 5u] = w.v5;
        w_tile[at + 6u] = w.v6;
        w_tile[at + 7u] = w.v7;
    }
}

fn load_x(span: u32, index: u32) {
    for (var i = index; i < TILE_COLUMNS * 8u; i += WG) {
        let slot = slots[i / 8u];
        let v = slot_quad(slot / N_USED, slot % N_USED, 8u * span + i % 8u);
        x_tile[i / 8u * SPAN_VECTORS + i % 8u] = v;
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    if (group.y >= groups[0]) {
        return;
    }
    let tile_at = 1u + 3u * group.y;
    let expert = groups[tile_at];
    let first = groups[tile_at + 1u];
    let n = groups[tile_at + 2u];
    let tile_row = group.x * TILE_ROWS;
    // The expert's rows may begin before the part that is bound here, or end after it.
    let begin = expert * EXPERT_ROWS + tile_row;
    let end = min(begin + TILE_ROWS, (expert + 1u) * EXPERT_ROWS);
    if (end <= FIRST_ROW || begin >= FIRST_ROW + N_ROWS) {
        return;
    }
    for (var i = index; i < TILE_COLUMNS; i += WG) {
        slots[i] = groups[LIST_AT + first + min(i, n - 1u)];
    }
    workgroupBarrier();
    // Neighbours take neighbouring rows, so that their reads and their results lie together.
    let own_row = index % ROW_BLOCKS;
    let own_column = index / ROW_BLOCKS * BLOCK_COLUMNS;
    var sums: array<f32, BLOCK * BLOCK_COLUMNS>;
    for (var span = 0u; span < SPANS; span++) {
        load_weights(begin, span, index);
        load_x(span, index);
        workgroupBarrier();
        for (var q = 0u; q < 8u; q++) {
            var w: array<vec4<f32>, BLOCK>;
            for (var r = 0u; r < BLOCK; r++) {
                w[r] = w_tile[(own_row + r * ROW_BLOCKS) * SPAN_VECTORS + q];
            }
            for (var c = 0u; c < BLOCK_COLUMNS; c++) {
                let v = x_tile[(own_column + c) * SPAN_VECTORS + q];
                for (var r = 0u; r < BLOCK; r++) {
                    sums[c * BLOCK + r] = fma4(w[r], v, sums[c * BLOCK + r]);
                }
            }
        }
        workgroupBarrier();
    }
    for (var c = 0u; c < BLOCK_COLUMNS; c++) {
        for (var r = 0u; r < BLOCK; r++) {
            let column = own_column + c;
            let weight_row = begin + own_row + r * ROW_BLOCKS;
            let bound = weight_row >= FIRST_ROW && weight_row < FIRST_ROW + N_ROWS;
            if (column < n && weight_row < end && bound) {
                let slot = slots[column];
                let expert_row = tile_row + own_row + r * ROW_BLOCKS;
                store(expert, expert_row, slot / N_USED, slot % N_USED, sums[c * BLOCK + r]);
            }
        }
    }
}
