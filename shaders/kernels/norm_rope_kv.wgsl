// rms_norm of each head of queries and keys, rope of both, and kv_write, in one: out = rope(norm(q)),
// keys[slot of t] = rope(norm(k[t])), values[slot of t] = v[t]; tokens without a slot store nothing. q and k are views
// of one buffer. out [rows, Q_COLS], the cache [slots, KEYS] twice.
// A workgroup takes one head of one row: first those of queries, then those of keys with their values.
// Needs: WG, HEAD_DIM (a multiple of 4), Q_HEADS, KEYS, EPS, HALF, NEOX, Q_TABLE, K_TABLE, Q_STRIDE, Q_OFFSET,
// K_OFFSET, V_STRIDE, V_OFFSET, OUT_STRIDE, NO_SLOT, cached_from (kv/f32, kv/f16), workgroup_sum (parts/reduce_*),
// parts/turned, parts/batch. Twin: cpu rms_norm, rope and kv_write.
@group(0) @binding(0) var<storage, read> qk: array<f32>;
@group(0) @binding(1) var<storage, read> v: array<f32>;
@group(0) @binding(2) var<storage, read> q_scales: array<f32>;
@group(0) @binding(3) var<storage, read> k_scales: array<f32>;
@group(0) @binding(4) var<storage, read> batch: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<storage, read_write> keys: array<Cached>;
@group(0) @binding(7) var<storage, read_write> values: array<Cached>;

// One over the root of the mean square of the head that begins at `at`.
fn norm_scale(invocation: Invocation, at: u32) -> f32 {
    var squares = 0.0;
    for (var i = invocation.index; i < HEAD_DIM; i += WG) {
        squares = fma(qk[at + i], qk[at + i], squares);
    }
    return 1.0 / sqrt(workgroup_sum(invocation, squares) / f32(HEAD_DIM) + EPS);
}

fn query(at: u32, c: u32, scale: f32) -> f32 {
    return qk[at + c] * scale * q_scales[c];
}

fn key(at: u32, c: u32, scale: f32) -> f32 {
    return qk[at + c] * scale * k_scales[c];
}

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let row = invocation.group.y;
    if (row >= n_rows()) {
        return;
    }
    let is_query = invocation.group.x < Q_HEADS;
    let head = select(invocation.group.x - Q_HEADS, invocation.group.x, is_query) * HEAD_DIM;
    let at = row * Q_STRIDE + select(K_OFFSET, Q_OFFSET, is_query) + head;
    let scale = norm_scale(invocation, at);
    if (is_query) {
        for (var c = invocation.index; c < HEAD_DIM; c += WG) {
            let own = query(at, c, scale);
            let other = query(at, partner(c), scale);
            out[row * OUT_STRIDE + head + c] = turned(row, Q_TABLE, c, own, other);
        }
        return;
    }
    let slot = batch_slot(row);
    if (slot == NO_SLOT) {
        return;
    }
    for (var quad = invocation.index; quad < HEAD_DIM / 4u; quad += WG) {
        var four: vec4<f32>;
        for (var i = 0u; i < 4u; i++) {
            let c = 4u * quad + i;
            four[i] = turned(row, K_TABLE, c, key(at, c, scale), key(at, partner(c), scale));
        }
        let to = slot * (KEYS / 4u) + head / 4u + quad;
        keys[to] = cached_from(four);
        let from_v = row * V_STRIDE + V_OFFSET + head + 4u * quad;
        values[to] = cached_from(vec4<f32>(v[from_v], v[from_v + 1u], v[from_v + 2u], v[from_v + 3u]));
    }
}
