// Reductions over a workgroup through its memory, in a fixed order. Needs: WG, a power of two.
struct Invocation {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> reduce_parts: array<f32, WG>;

fn workgroup_sum(invocation: Invocation, value: f32) -> f32 {
    let index = invocation.index;
    reduce_parts[index] = value;
    workgroupBarrier();
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if (index < width) {
            reduce_parts[index] += reduce_parts[index + width];
        }
        workgroupBarrier();
    }
    let total = reduce_parts[0];
    workgroupBarrier();
    return total;
}

fn workgroup_max(invocation: Invocation, value: f32) -> f32 {
    let index = invocation.index;
    reduce_parts[index] = value;
    workgroupBarrier();
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if (index < width) {
            reduce_parts[index] = max(reduce_parts[index], reduce_parts[index + width]);
        }
        workgroupBarrier();
    }
    let total = reduce_parts[0];
    workgroupBarrier();
    return total;
}
