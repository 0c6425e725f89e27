// Fours of lanes that add up inside their subgroup; no device has smaller ones. Needs: WG, LANES, and
// subgroup, lane, n_subgroups, subgroup_width and subgroup_other (parts/subgroups or
// parts/subgroups_made).

// Whether all subgroups are full, so that their lanes number the workgroup.
fn is_full(invocation: Invocation) -> bool {
    return n_subgroups(invocation) * subgroup_width(invocation) == WG;
}

// Neighbours by position are neighbours in a subgroup: by index they need not be.
fn position(invocation: Invocation) -> u32 {
    if (is_full(invocation)) {
        return subgroup(invocation) * subgroup_width(invocation) + lane(invocation);
    }
    return invocation.index;
}

fn has_fours(invocation: Invocation) -> bool {
    return LANES >= 4u && is_full(invocation);
}

fn four_sum(invocation: Invocation, value: f32) -> f32 {
    let two = value + subgroup_other(invocation, value, 1u);
    return two + subgroup_other(invocation, two, 2u);
}
