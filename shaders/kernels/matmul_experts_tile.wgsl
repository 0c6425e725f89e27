// out = x * weights of each slot's expert^T (+ bias) for prompts: operands as in
// matmul_experts_vec, with the slots listed by expert in `groups` (moe_group). Weights of experts
// that no slot names are not read, and those of the others once per tile.
// A workgroup makes TILE_ROWS results for the slots of one tile, every invocation a block of
// BLOCK x BLOCK_COLUMNS.
// Needs: TILE_ROWS, TILE_COLUMNS, BLOCK, BLOCK_COLUMNS, WG = their quotient, N_ROWS, FIRST_ROW,
// LIST_AT, parts/tile, load_span and add_span (parts/tile_*), parts/expert_store. Twin: cpu
// matmul_experts.
@group(0) @binding(1) var<storage, read> groups: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

var<workgroup> slots: array<u32, TILE_COLUMNS>;

var<private> begin: u32;

// The weight row and the slot behind those of the tile.
fn tile_row(i: u32) -> u32 {
    return clamp(begin + i, FIRST_ROW, FIRST_ROW + N_ROWS - 1u) - FIRST_ROW;
}

fn tile_source(i: u32) -> u32 {
    return slots[i];
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
    let first_row = group.x * TILE_ROWS;
    // The expert's rows may begin before the part that is bound here, or end after it.
    begin = expert * EXPERT_ROWS + first_row;
    let end = min(begin + TILE_ROWS, (expert + 1u) * EXPERT_ROWS);
    if (end <= FIRST_ROW || begin >= FIRST_ROW + N_ROWS) {
        return;
    }
    for (var i = index; i < TILE_COLUMNS; i += WG) {
        slots[i] = groups[LIST_AT + first + min(i, n - 1u)];
    }
    workgroupBarrier();
    var sums = block_sums(index);
    for (var c = 0u; c < BLOCK_COLUMNS; c++) {
        for (var r = 0u; r < BLOCK; r++) {
            let column = block_column(index, c);
            let weight_row = begin + block_row(index, r);
            let bound = weight_row >= FIRST_ROW && weight_row < FIRST_ROW + N_ROWS;
            if (column < n && weight_row < end && bound) {
                let slot = slots[column];
                let expert_row = first_row + block_row(index, r);
                var value = sums[c * BLOCK + r];
                if (HAS_BIAS) {
                    value += bias[expert * EXPERT_ROWS + expert_row];
                }
                store(expert_row, slot / N_USED, slot % N_USED, value);
            }
        }
    }
}
