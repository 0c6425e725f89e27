// keys[slot of t] = k[t], values[slot of t] = v[t]; tokens without a slot are left out. The cache
// is [slots, KEYS] and [slots, VALUES]. One invocation per four columns of both.
// Needs: WG, KEYS, VALUES, K_STRIDE, K_OFFSET, V_STRIDE, V_OFFSET, NO_SLOT, cached_from (kv/f32, kv/f16),
// parts/batch. Twin: cpu kv_write.
@group(0) @binding(0) var<storage, read> k: array<f32>;
@group(0) @binding(1) var<storage, read> v: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> keys: array<Cached>;
@group(0) @binding(4) var<storage, read_write> values: array<Cached>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (row >= n_rows()) {
        return;
    }
    let slot = batch_slot(row);
    if (slot == NO_SLOT) {
        return;
    }
    if (id.x < KEYS / 4u) {
        let at = row * K_STRIDE + K_OFFSET + 4u * id.x;
        let four = vec4<f32>(k[at], k[at + 1u], k[at + 2u], k[at + 3u]);
        keys[slot * (KEYS / 4u) + id.x] = cached_from(four);
    }
    if (id.x < VALUES / 4u) {
        let at = row * V_STRIDE + V_OFFSET + 4u * id.x;
        let four = vec4<f32>(v[at], v[at + 1u], v[at + 2u], v[at + 3u]);
        values[slot * (VALUES / 4u) + id.x] = cached_from(four);
    }
}
