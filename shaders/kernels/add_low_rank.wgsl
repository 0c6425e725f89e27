// out = sum, and SCALE * weights down besides in the columns of each block. out [rows, COLS of sum]. One invocation per
// number of COLUMNS columns from FIRST_COLUMN on. A block is its first column, its columns, its first row of the weights
// bound here, and its first column of down.
// Needs: WG, FIRST_COLUMN, COLUMNS, N_BLOCKS, BLOCKS, RANK, SPANS, SCALE, SUM_STRIDE, SUM_OFFSET, DOWN_STRIDE, DOWN_OFFSET,
// OUT_STRIDE, span_values (quant/*), parts/batch. Twin: cpu add_low_rank.
@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> sum: array<f32>;
@group(0) @binding(2) var<storage, read> down: array<f32>;
@group(0) @binding(3) var<storage, read> batch: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

// Products with numbers k .. k + 4 of a row of down that begins at `at`; past the rank there are none.
fn quad(at: u32, k: u32, values: vec4<f32>) -> f32 {
    var total = 0.0;
    for (var i = 0u; i < 4u; i++) {
        if (k + i < RANK) {
            total = fma(values[i], down[at + k + i], total);
        }
    }
    return total;
}

fn product(row: u32, at: u32) -> f32 {
    var total = 0.0;
    for (var span = 0u; span < SPANS; span++) {
        let values = span_values(row, span);
        let k = 32u * span;
        total += quad(at, k, values.v0) + quad(at, k + 4u, values.v1);
        total += quad(at, k + 8u, values.v2) + quad(at, k + 12u, values.v3);
        total += quad(at, k + 16u, values.v4) + quad(at, k + 20u, values.v5);
        total += quad(at, k + 24u, values.v6) + quad(at, k + 28u, values.v7);
    }
    return total;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COLUMNS || id.y >= n_rows()) {
        return;
    }
    let column = FIRST_COLUMN + id.x;
    var number = sum[id.y * SUM_STRIDE + SUM_OFFSET + column];
    for (var i = 0u; i < N_BLOCKS; i++) {
        let block = BLOCKS[i];
        if (column >= block.x && column < block.x + block.y) {
            let at = id.y * DOWN_STRIDE + DOWN_OFFSET + block.w;
            number = fma(SCALE, product(block.z + column - block.x, at), number);
        }
    }
    out[id.y * OUT_STRIDE + column] = number;
}
