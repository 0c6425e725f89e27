// Reductions over a workgroup by subgroups, then over their results in order. Needs: WG, subgroup_sum,
// subgroup_max and the place of an invocation in its subgroup.

// As for the smallest subgroup of any device: a driver may run a kernel in smaller ones than it tells.
var<workgroup> reduce_parts: array<f32, WG / 4u>;

fn workgroup_sum(invocation: Invocation, value: f32) -> f32 {
    let sum = subgroup_sum(invocation, value);
    if (lane(invocation) == 0u) {
        reduce_parts[subgroup(invocation)] = sum;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < n_subgroups(invocation); i++) {
        total += reduce_parts[i];
    }
    workgroupBarrier();
    return total;
}

fn workgroup_max(invocation: Invocation, value: f32) -> f32 {
    let largest = subgroup_max(invocation, value);
    if (lane(invocation) == 0u) {
        reduce_parts[subgroup(invocation)] = largest;
    }
    workgroupBarrier();
    var total = reduce_parts[0];
    for (var i = 1u; i < n_subgroups(invocation); i++) {
        total = max(total, reduce_parts[i]);
    }
    workgroupBarrier();
    return total;
}
