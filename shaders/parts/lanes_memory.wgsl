// Lanes that add up through workgroup memory alone.
struct Invocation {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
}

fn position(invocation: Invocation) -> u32 {
    return invocation.index;
}

fn has_fours(invocation: Invocation) -> bool {
    return false;
}

fn four_sum(invocation: Invocation, value: f32) -> f32 {
    return value;
}
