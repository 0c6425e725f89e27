// out = x * weights^T (+ bias) (+ residual) for many rows of x: x [rows, COLS],
// weights [N_ROWS, COLS], out [rows, OUT_STRIDE].
// A workgroup makes TILE_ROWS columns of out for TILE_COLUMNS rows of x, every invocation a block
// of BLOCK x BLOCK_COLUMNS.
// Needs: TILE_ROWS, TILE_COLUMNS, BLOCK, BLOCK_COLUMNS, WG = their quotient, N_ROWS, OUT_STRIDE,
// OUT_OFFSET, HAS_BIAS, HAS_RESIDUAL, RESIDUAL_STRIDE, RESIDUAL_OFFSET, parts/tile, load_span and
// add_span (parts/tile_*), parts/batch. Twin: cpu matmul.
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> batch: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

var<private> first_row: u32;
var<private> first: u32;

// The weight row and the row of x behind those of the tile.
fn tile_row(i: u32) -> u32 {
    return min(first_row + i, N_ROWS - 1u);
}

fn tile_source(i: u32) -> u32 {
    return min(first + i, n_rows() - 1u);
}

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

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    first_row = group.x * TILE_ROWS;
    first = group.y * TILE_COLUMNS;
    let rows = n_rows();
    if (first >= rows) {
        return;
    }
    var sums = block_sums(index);
    for (var n = 0u; n < BLOCK_COLUMNS; n++) {
        for (var r = 0u; r < BLOCK; r++) {
            let row = first + block_column(index, n);
            let weight_row = first_row + block_row(index, r);
            if (row < rows && weight_row < N_ROWS) {
                store(weight_row, row, sums[n * BLOCK + r]);
            }
        }
    }
}
