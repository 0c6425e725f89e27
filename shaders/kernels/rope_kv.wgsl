// rope of queries and keys, and kv_write, in one: out = rope(q), keys[slot of t] = rope(k[t]),
// values[slot of t] = v[t]; tokens without a slot store nothing. out [rows, Q_COLS], the cache
// [slots, KEYS] and [slots, VALUES]. One invocation per four columns of all three.
// Needs: WG, Q_COLS, KEYS, VALUES, HEAD_DIM (all multiples of 4), HALF, NEOX, Q_TABLE, K_TABLE,
// Q_STRIDE, Q_OFFSET, K_STRIDE, K_OFFSET, V_STRIDE, V_OFFSET, OUT_STRIDE, NO_SLOT, cached_from
// (kv/f32, kv/f16), parts/turned, parts/batch. Twin: cpu rope and kv_write.
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> batch: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read_write> keys: array<Cached>;
@group(0) @binding(6) var<storage, read_write> values: array<Cached>;

fn turn_query(row: u32, quad: u32) {
    let c = 4u * quad % HEAD_DIM;
    let head = 4u * quad - c;
    let at = row * Q_STRIDE + Q_OFFSET + head;
    for (var i = c; i < c + 4u; i++) {
        let value = turned(row, Q_TABLE, i, q[at + i], q[at + partner(i)]);
        out[row * OUT_STRIDE + head + i] = value;
    }
}

fn turned_key(row: u32, quad: u32) -> vec4<f32> {
    let c = 4u * quad % HEAD_DIM;
    let at = row * K_STRIDE + K_OFFSET + 4u * quad - c;
    var four: vec4<f32>;
    for (var i = 0u; i < 4u; i++) {
        four[i] = turned(row, K_TABLE, c + i, k[at + c + i], k[at + partner(c + i)]);
    }
    return four;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (row >= n_rows()) {
        return;
    }
    if (id.x < Q_COLS / 4u) {
        turn_query(row, id.x);
    }
    let slot = batch_slot(row);
    if (slot == NO_SLOT) {
        return;
    }
    if (id.x < KEYS / 4u) {
        keys[slot * (KEYS / 4u) + id.x] = cached_from(turned_key(row, id.x));
    }
    if (id.x < VALUES / 4u) {
        let at = row * V_STRIDE + V_OFFSET + 4u * id.x;
        let four = vec4<f32>(v[at], v[at + 1u], v[at + 2u], v[at + 3u]);
        values[slot * (VALUES / 4u) + id.x] = cached_from(four);
    }
}
