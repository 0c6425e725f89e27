// The gated delta rule along each sequence, every head alone: with g = exp(decay[h] softplus(alpha
// + bias[h])) and b = sigmoid(beta), S = g S + k (b (v - (g S)^T k))^T, out = S^T q / sqrt(DIM); q
// and k are divided by sqrt(sum(x^2) + EPS). qkv holds q and k of KEY_HEADS heads, then v of HEADS
// heads, DIM columns each; out is [tokens, HEADS * DIM]. States are [slots, HEADS, DIM of k, DIM of
// v]. A workgroup takes COLUMNS value columns of one head of one sequence; LANES invocations share
// a column, each with every LANES-th row of the state.
// Needs: WG, DIM, HEADS, KEY_HEADS, GROUPED, EPS, QKV_STRIDE, QKV_OFFSET, ALPHA_STRIDE,
// ALPHA_OFFSET, BETA_STRIDE, BETA_OFFSET, OUT_STRIDE, workgroup_sum (parts/reduce_*), parts/logistic,
// parts/runs, parts/batch. Twin: cpu delta_net.
@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read> alpha: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read> decay: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> batch: array<u32>;
@group(0) @binding(6) var<storage, read_write> states: array<f32>;
@group(0) @binding(7) var<storage, read_write> out: array<f32>;

const COLUMNS: u32 = 16u;
const LANES: u32 = WG / COLUMNS;
const ROWS: u32 = DIM / LANES;

var<workgroup> query: array<f32, DIM>;
var<workgroup> key: array<f32, DIM>;
var<workgroup> parts: array<f32, WG>;

// The sum over the lanes of a column, in order.
fn column_sum(index: u32, value: f32) -> f32 {
    parts[index] = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var lane = 0u; lane < LANES; lane++) {
        sum += parts[lane * COLUMNS + index % COLUMNS];
    }
    workgroupBarrier();
    return sum;
}

fn softplus(x: f32) -> f32 {
    return max(x, 0.0) + log(1.0 + exp(-abs(x)));
}

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let index = invocation.index;
    let head = invocation.group.x / (DIM / COLUMNS);
    let column = invocation.group.x % (DIM / COLUMNS) * COLUMNS + index % COLUMNS;
    let lane = index / COLUMNS;
    let run = batch_run(invocation.group.y);
    var key_head = head % KEY_HEADS;
    if (GROUPED) {
        key_head = head / (HEADS / KEY_HEADS);
    }
    let state_at = (run.state * HEADS + head) * DIM * DIM + column;
    var state: array<f32, ROWS>;
    if (!run.begins) {
        for (var i = 0u; i < ROWS; i++) {
            state[i] = states[state_at + (i * LANES + lane) * DIM];
        }
    }
    for (var row = run.first; row < run.first + run.n; row++) {
        let at = row * QKV_STRIDE + QKV_OFFSET;
        let q_at = at + key_head * DIM;
        let k_at = q_at + KEY_HEADS * DIM;
        var q_squares = 0.0;
        var k_squares = 0.0;
        for (var i = index; i < DIM; i += WG) {
            query[i] = qkv[q_at + i];
            key[i] = qkv[k_at + i];
            q_squares = fma(query[i], query[i], q_squares);
            k_squares = fma(key[i], key[i], k_squares);
        }
        let q_scale = 1.0 / sqrt((workgroup_sum(invocation, q_squares) + EPS) * f32(DIM));
        let k_scale = 1.0 / sqrt(workgroup_sum(invocation, k_squares) + EPS);
        let gate = alpha[row * ALPHA_STRIDE + ALPHA_OFFSET + head] + bias[head];
        let keep = exp(decay[head] * softplus(gate));
        let rate = logistic(beta[row * BETA_STRIDE + BETA_OFFSET + head]);
        var known = 0.0;
        for (var i = 0u; i < ROWS; i++) {
            state[i] *= keep;
            known = fma(key[i * LANES + lane], state[i], known);
        }
        let value = qkv[at + (2u * KEY_HEADS + head) * DIM + column];
        let change = rate * (value - k_scale * column_sum(index, known)) * k_scale;
        var result = 0.0;
        for (var i = 0u; i < ROWS; i++) {
            state[i] = fma(key[i * LANES + lane], change, state[i]);
            result = fma(query[i * LANES + lane], state[i], result);
        }
        let total = q_scale * column_sum(index, result);
        if (lane == 0u) {
            out[row * OUT_STRIDE + head * DIM + column] = total;
        }
    }
    for (var i = 0u; i < ROWS; i++) {
        states[state_at + (i * LANES + lane) * DIM] = state[i];
    }
}
