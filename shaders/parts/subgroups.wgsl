// Subgroups as the device forms them, whatever their size.
struct Invocation {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) n_subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) width: u32,
}

fn subgroup(invocation: Invocation) -> u32 {
    return invocation.subgroup;
}

fn n_subgroups(invocation: Invocation) -> u32 {
    return invocation.n_subgroups;
}

fn lane(invocation: Invocation) -> u32 {
    return invocation.lane;
}

fn subgroup_sum(invocation: Invocation, value: f32) -> f32 {
    return subgroupAdd(value);
}

fn subgroup_max(invocation: Invocation, value: f32) -> f32 {
    return subgroupMax(value);
}

fn subgroup_width(invocation: Invocation) -> u32 {
    return invocation.width;
}

// The value of the lane whose number differs in the bits of `mask`.
fn subgroup_other(invocation: Invocation, value: f32, mask: u32) -> f32 {
    return subgroupShuffleXor(value, mask);
}
