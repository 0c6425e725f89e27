// out = x * weights^T (+ bias) (+ residual) for many rows of x: x [rows, COLS],
// weights [N_ROWS, COLS], out [rows, OUT_STRIDE].
// A workgroup makes TILE_ROWS columns of out for TILE_COLUMNS rows of x, every invocation a block
// of BLOCK x BLOCK_COLUMNS. Spans of both pass through workgroup memory. Each result is one
// running sum over the columns in order, whatever the tile.
// Needs: TILE_ROWS, TILE_COLUMNS, BLOCK, BLOCK_COLUMNS, WG = their quotient, SPANS, N_ROWS,
// OUT_STRIDE, OUT_OFFSET, HAS_BIAS, HAS_RESIDUAL, RESIDUAL_STRIDE, RESIDUAL_OFFSET, x_quad
// (parts/x_*), span_values (quant/*), parts/fma4, parts/batch. Twin: cpu matmul.
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> batch: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

// Vectors of a span in workgroup memory, with one of padding so that neighbouring rows lie in
// different banks.
const SPAN_VECTORS: u32 = 9u;
const ROW_BLOCKS: u32 = TILE_ROWS / BLOCK;

var<workgroup> w_tile: array<vec4<f32>, TILE_ROWS * SPAN_VECTORS>;
var<workgroup> x_tile: array<vec4<f32>, TILE_COLUMNS * SPAN_VECTORS>;

fn store(weight_row: u32, row: u32, sum: f32) {
    let column = OUT_OFFSET + weight_row;
    var value = sum;
    if (HAS_BIAS) {
        value += bias[column];
    }
    if (HAS_RESIDUAL) {
        value += residual[row * RESIDUAL_STRIDE + RESIDUAL_OFFSET + column];
    }
    out[row * OUT_STRIDE + column] = value;
}

fn load_weights(first_row: u32, span: u32, index: u32) {
    for (var i = index; i < TILE_ROWS; i += WG) {
        let w = span_values(min(first_row + i, N_ROWS - 1u), span);
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

fn load_x(first: u32, rows: u32, span: u32, index: u32) {
    for (var i = index; i < TILE_COLUMNS * 8u; i += WG) {
        let row = min(first + i / 8u, rows - 1u);
        x_tile[i / 8u * SPAN_VECTORS + i % 8u] = x_quad(row, 8u * span + i % 8u);
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = group.x * TILE_ROWS;
    let first = group.y * TILE_COLUMNS;
    let rows = n_rows();
    if (first >= rows) {
        return;
    }
    // Neighbours take neighbouring rows, so that their reads and their results lie together.
    let own_row = index % ROW_BLOCKS;
    let own_column = index / ROW_BLOCKS * BLOCK_COLUMNS;
    var sums: array<f32, BLOCK * BLOCK_COLUMNS>;
    for (var span = 0u; span < SPANS; span++) {
        load_weights(first_row, span, index);
        load_x(first, rows, span, index);
        workgroupBarrier();
        for (var q = 0u; q < 8u; q++) {
            var w: array<vec4<f32>, BLOCK>;
            for (var r = 0u; r < BLOCK; r++) {
                w[r] = w_tile[(own_row + r * ROW_BLOCKS) * SPAN_VECTORS + q];
            }
            for (var n = 0u; n < BLOCK_COLUMNS; n++) {
                let v = x_tile[(own_column + n) * SPAN_VECTORS + q];
                for (var r = 0u; r < BLOCK; r++) {
                    sums[n * BLOCK + r] = fma4(w[r], v, sums[n * BLOCK + r]);
                }
            }
        }
        workgroupBarrier();
    }
    for (var n = 0u; n < BLOCK_COLUMNS; n++) {
        for (var r = 0u; r < BLOCK; r++) {
            let row = first + own_column + n;
            let weight_row = first_row + own_row + r * ROW_BLOCKS;
            if (row < rows && weight_row < N_ROWS) {
                store(weight_row, row, sums[n * BLOCK + r]);
            }
        }
    }
}
