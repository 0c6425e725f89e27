// keys[slot of t] = k[t], values[slot of t] = v[t]; tokens without a slot are left out. The cache
// is [slots, COLS]. One invocation per four columns.
// Needs: WG, COLS, K_STRIDE, K_OFFSET, V_STRIDE, V_OFFSET, NO_SLOT, cached_from (kv/*),
// parts/batch. Twin: cpu kv_write.
@group(0) @binding(0) var<storage, read> k: array<f32>;
@group(0) @binding(1) var<storage, read> v: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> keys: array<Cached>;
@group(0) @binding(4) var<storage, read_write> values: array<Cached>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (id.x >= COLS / 4u || row >= n_rows()) {
        return;
    }
    let slot = batch_slot(row);
    if (slot == NO_SLOT) {
        return;
    }
    let to = slot * (COLS / 4u) + id.x;
    let k_at = row * K_STRIDE + K_OFFSET + 4u * id.x;
    let v_at = row * V_STRIDE + V_OFFSET + 4u * id.x;
    keys[to] = cached_from(vec4<f32>(k[k_at], k[k_at + 1u], k[k_at + 2u], k[k_at + 3u]));
    values[to] = cached_from(vec4<f32>(v[v_at], v[v_at + 1u], v[v_at + 2u], v[v_at + 3u]));
}
