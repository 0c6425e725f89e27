// out_i = streams_i + sum_j (mix[i * N_OTHERS + j] + PLUS) * others_j, streams of WIDTH columns. out [rows, COLS].
// One invocation per number.
// Needs: WG, COLS, WIDTH, N_OTHERS, PLUS, STREAMS_STRIDE, STREAMS_OFFSET, OTHERS_STRIDE, OTHERS_OFFSET, MIX_STRIDE, MIX_OFFSET,
// OUT_STRIDE, parts/batch. Twin: cpu stream_mix.
@group(0) @binding(0) var<storage, read> streams: array<f32>;
@group(0) @binding(1) var<storage, read> others: array<f32>;
@group(0) @binding(2) var<storage, read> mix_factors: array<f32>;
@group(0) @binding(3) var<storage, read> batch: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COLS || id.y >= n_rows()) {
        return;
    }
    let factors_at = id.y * MIX_STRIDE + MIX_OFFSET + id.x / WIDTH * N_OTHERS;
    let others_at = id.y * OTHERS_STRIDE + OTHERS_OFFSET + id.x % WIDTH;
    var sum = streams[id.y * STREAMS_STRIDE + STREAMS_OFFSET + id.x];
    for (var j = 0u; j < N_OTHERS; j++) {
        sum = fma(others[others_at + j * WIDTH], mix_factors[factors_at + j] + PLUS, sum);
    }
    out[id.y * OUT_STRIDE + id.x] = sum;
}
