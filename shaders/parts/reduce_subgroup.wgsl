// Reductions over a workgroup by subgroups, whatever their size, then over their results in
// order. Needs: MAX_SUBGROUPS, the workgroup's size over the smallest subgroup's.
struct Invocation {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) n_subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

var<workgroup> reduce_parts: array<f32, MAX_SUBGROUPS>;

fn workgroup_sum(invocation: Invocation, value: f32) -> f32 {
    let sum = subgroupAdd(value);
    if (invocation.lane == 0u) {
        reduce_parts[invocation.subgroup] = sum;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < invocation.n_subgroups; i++) {
        total += reduce_parts[i];
    }
    workgroupBarrier();
    return total;
}

fn workgroup_max(invocation: Invocation, value: f32) -> f32 {
    let largest = subgroupMax(value);
    if (invocation.lane == 0u) {
        reduce_parts[invocation.subgroup] = largest;
    }
    workgroupBarrier();
    var total = reduce_parts[0];
    for (var i = 1u; i < invocation.n_subgroups; i++) {
        total = max(total, reduce_parts[i]);
    }
    workgroupBarrier();
    return total;
}
