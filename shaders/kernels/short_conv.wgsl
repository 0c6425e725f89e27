// out[p][c] = activate(sum over j of taps[c * KERNEL + j] * x[p - KERNEL + 1 + j][c]) along each
// sequence, with zeros before it. x and out [tokens, COLS]. The last KERNEL - 1 rows of a sequence
// are its state, [slots, KERNEL - 1, COLS]. One invocation takes one column of one sequence.
// Needs: WG, COLS, KERNEL, X_STRIDE, X_OFFSET, OUT_STRIDE, activate (parts/silu, parts/identity),
// parts/runs, parts/batch. Twin: cpu short_conv.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> taps: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> states: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const PAST: u32 = KERNEL - 1u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x;
    if (column >= COLS) {
        return;
    }
    let run = batch_run(id.y);
    let state_at = run.state * PAST * COLS + column;
    var rows: array<f32, KERNEL>;
    if (!run.begins) {
        for (var j = 0u; j < PAST; j++) {
            rows[j] = states[state_at + j * COLS];
        }
    }
    for (var row = run.first; row < run.first + run.n; row++) {
        rows[PAST] = x[row * X_STRIDE + X_OFFSET + column];
        var sum = 0.0;
        for (var j = 0u; j < KERNEL; j++) {
            sum = fma(taps[column * KERNEL + j], rows[j], sum);
        }
        out[row * OUT_STRIDE + column] = activate(sum);
        for (var j = 0u; j < PAST; j++) {
            rows[j] = rows[j + 1u];
        }
    }
    for (var j = 0u; j < PAST; j++) {
        states[state_at + j * COLS] = rows[j];
    }
}
