// Attention of what earlier launches made ready. Needs: SCALE, Q_STRIDE, Q_OFFSET, parts/attention.
@group(0) @binding(4) var<storage, read> q: array<f32>;
@group(0) @binding(5) var<storage, read> keys: array<Cached>;
@group(0) @binding(6) var<storage, read> values: array<Cached>;

// Fills `queries`.
fn make_ready(index: u32, row: u32, first_head: u32, kv_head: u32, writes: bool) {
    for (var i = index; i < Q_ROWS * HEAD_QUADS; i += WG) {
        let head = first_head + i / HEAD_QUADS;
        let at = row * Q_STRIDE + Q_OFFSET + head * HEAD_DIM + 4u * (i % HEAD_QUADS);
        queries[i] = SCALE * vec4<f32>(q[at], q[at + 1u], q[at + 2u], q[at + 3u]);
    }
}
