// Lists the slots of all rows by expert, in tiles of up to TILE_COLUMNS slots of one expert, for
// matmul_experts_tile. One workgroup. `groups` takes the number of tiles, then per tile its
// expert, where it begins in the list and how many slots it has, then the list of slots
// (row * N_USED + slot). Their order in the list is arbitrary and changes no result.
// Needs: WG, N_EXPERTS, N_USED, TILE_COLUMNS, LIST_AT, parts/experts, parts/batch.
@group(0) @binding(0) var<storage, read> route: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> groups: array<u32>;

var<workgroup> counts: array<atomic<u32>, N_EXPERTS>;
var<workgroup> starts: array<u32, N_EXPERTS>;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) index: u32) {
    let slots = n_rows() * N_USED;
    for (var e = index; e < N_EXPERTS; e += WG) {
        atomicStore(&counts[e], 0u);
    }
    workgroupBarrier();
    for (var i = index; i < slots; i += WG) {
        atomicAdd(&counts[expert_of(i / N_USED, i % N_USED)], 1u);
    }
    workgroupBarrier();
    if (index == 0u) {
        var start = 0u;
        var tile = 0u;
        for (var e = 0u; e < N_EXPERTS; e++) {
            let count = atomicLoad(&counts[e]);
            starts[e] = start;
            for (var first = 0u; first < count; first += TILE_COLUMNS) {
                let at = 1u + 3u * tile;
                groups[at] = e;
                groups[at + 1u] = start + first;
                groups[at + 2u] = min(TILE_COLUMNS, count - first);
                tile++;
            }
            start += count;
        }
        groups[0] = tile;
    }
    workgroupBarrier();
    for (var e = index; e < N_EXPERTS; e += WG) {
        atomicStore(&counts[e], 0u);
    }
    workgroupBarrier();
    for (var i = index; i < slots; i += WG) {
        let expert = expert_of(i / N_USED, i % N_USED);
        let place = starts[expert] + atomicAdd(&counts[expert], 1u);
        groups[LIST_AT + place] = i;
    }
}
