// out = x * weights^T (+ bias) (+ residual, or with GATES times it) for a few rows of x: x [rows, COLS],
// weights [N_ROWS, COLS], out [rows, OUT_STRIDE]; or a gated activation of such columns.
// With HAS_NORM x stands for x / sqrt(mean(x^2) + EPS) * scales: a row's squares are summed beside
// its products, which are divided at the end.
// A workgroup sums WG / LANES * ROWS_PER_LANE weight rows for N rows of x. LANES invocations share
// a weight row: lane l takes spans l, l + LANES, ... in order, and the lanes' sums are added in an
// order of their own (parts/lanes), so that a result depends on neither N nor its neighbours.
// Needs: WG, LANES, ROWS_PER_LANE, N, SPANS, GRID_X, OUT_STRIDE, OUT_OFFSET, HAS_BIAS,
// HAS_RESIDUAL, GATES, RESIDUAL_STRIDE, RESIDUAL_OFFSET, HAS_NORM, EPS, weight_row and column_value (parts/columns_*),
// x_quad (parts/x_*), span_values (quant/*), parts/fma4, parts/lanes and what it needs, parts/batch.
// Twin: cpu rms_norm and matmul.
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> batch: array<u32>;
@group(0) @binding(5) var<storage, read> scales: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

const GROUP_ROWS: u32 = WG / LANES * ROWS_PER_LANE;

// The first number of squares behind `[N, GROUP_ROWS, LANES]` sums.
const SQUARES: u32 = N * GROUP_ROWS * LANES;

// Sums, and the squares of rows of x, [N, LANES].
var<workgroup> lane_sums: array<f32, SQUARES + N * LANES>;

fn input_quad(row: u32, quad: u32) -> vec4<f32> {
    var v = x_quad(row, quad);
    if (HAS_NORM) {
        v *= scales[quad];
    }
    return v;
}

fn add_squares(row: u32, span: u32, sum: f32) -> f32 {
    var s = sum;
    for (var quad = 8u * span; quad < 8u * span + 8u; quad++) {
        let v = x_quad(row, quad);
        s = fma4(v, v, s);
    }
    return s;
}

fn add_span(w: Span, row: u32, span: u32, sum: f32) -> f32 {
    let quad = 8u * span;
    var s = fma4(w.v0, input_quad(row, quad), sum);
    s = fma4(w.v1, input_quad(row, quad + 1u), s);
    s = fma4(w.v2, input_quad(row, quad + 2u), s);
    s = fma4(w.v3, input_quad(row, quad + 3u), s);
    s = fma4(w.v4, input_quad(row, quad + 4u), s);
    s = fma4(w.v5, input_quad(row, quad + 5u), s);
    s = fma4(w.v6, input_quad(row, quad + 6u), s);
    return fma4(w.v7, input_quad(row, quad + 7u), s);
}

// Row `j` of the workgroup, which is `weight_row` of those bound, times its row `n` of x.
fn row_value(n: u32, j: u32, weight_row: u32) -> f32 {
    var sum = lanes_sum((n * GROUP_ROWS + j) * LANES);
    if (HAS_NORM) {
        sum /= sqrt(lanes_sum(SQUARES + n * LANES) / f32(COLS) + EPS);
    }
    if (HAS_BIAS) {
        sum += bias[OUT_OFFSET + weight_row];
    }
    return sum;
}

fn store(row: u32, column: u32, value: f32) {
    let to = OUT_OFFSET + column;
    if (HAS_RESIDUAL) {
        let other = residual[row * RESIDUAL_STRIDE + RESIDUAL_OFFSET + to];
        out[row * OUT_STRIDE + to] = select(value + other, value * other, GATES);
    } else {
        out[row * OUT_STRIDE + to] = value;
    }
}

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let group = invocation.group;
    let index = position(invocation);
    let own_lane = index % LANES;
    let own_row = index / LANES * ROWS_PER_LANE;
    let first_column = (group.y * GRID_X + group.x) * GROUP_COLUMNS;
    let first = group.z * N;
    let rows = n_rows();
    if (first >= rows || first_column >= N_COLUMNS) {
        return;
    }
    var sums: array<f32, N * ROWS_PER_LANE>;
    var squares: array<f32, N>;
    for (var span = own_lane; span < SPANS; span += LANES) {
        for (var r = 0u; r < ROWS_PER_LANE; r++) {
            let w = span_values(weight_row(first_column, own_row + r), span);
            for (var n = 0u; n < N; n++) {
                let at = n * ROWS_PER_LANE + r;
                sums[at] = add_span(w, min(first + n, rows - 1u), span, sums[at]);
            }
        }
        if (HAS_NORM) {
            for (var n = 0u; n < N; n++) {
                squares[n] = add_squares(min(first + n, rows - 1u), span, squares[n]);
            }
        }
    }
    for (var n = 0u; n < N; n++) {
        for (var r = 0u; r < ROWS_PER_LANE; r++) {
            let sum = own_sum(invocation, sums[n * ROWS_PER_LANE + r]);
            keep_sum((n * GROUP_ROWS + own_row + r) * LANES, own_lane, sum);
        }
        if (HAS_NORM) {
            let sum = own_sum(invocation, squares[n]);
            if (index < LANES) {
                keep_sum(SQUARES + n * LANES, own_lane, sum);
            }
        }
    }
    workgroupBarrier();
    for (var i = index; i < N * GROUP_COLUMNS; i += WG) {
        let row = first + i / GROUP_COLUMNS;
        let j = i % GROUP_COLUMNS;
        if (row < rows && first_column + j < N_COLUMNS) {
            store(row, first_column + j, column_value(first_column, i / GROUP_COLUMNS, j));
        }
    }
}
