// Subgroups of up to WIDTH invocations that no device formed, through workgroup memory: for tests of
// widths that no device at hand has. Neighbours are in different ones, since no order is promised.
// Needs: WG, WIDTH.
struct Invocation {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> made_values: array<f32, WG>;

fn subgroup(invocation: Invocation) -> u32 {
    return invocation.index % n_subgroups(invocation);
}

fn n_subgroups(invocation: Invocation) -> u32 {
    return (WG + WIDTH - 1u) / WIDTH;
}

fn lane(invocation: Invocation) -> u32 {
    return invocation.index / n_subgroups(invocation);
}

fn subgroup_sum(invocation: Invocation, value: f32) -> f32 {
    made_values[invocation.index] = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = subgroup(invocation); i < WG; i += n_subgroups(invocation)) {
        sum += made_values[i];
    }
    workgroupBarrier();
    return sum;
}

fn subgroup_max(invocation: Invocation, value: f32) -> f32 {
    made_values[invocation.index] = value;
    workgroupBarrier();
    var largest = value;
    for (var i = subgroup(invocation); i < WG; i += n_subgroups(invocation)) {
        largest = max(largest, made_values[i]);
    }
    workgroupBarrier();
    return largest;
}

fn subgroup_width(invocation: Invocation) -> u32 {
    return WIDTH;
}

fn subgroup_other(invocation: Invocation, value: f32, mask: u32) -> f32 {
    made_values[invocation.index] = value;
    workgroupBarrier();
    let other = lane(invocation) ^ mask;
    let result = made_values[other * n_subgroups(invocation) + subgroup(invocation)];
    workgroupBarrier();
    return result;
}
