// Sums of lanes that share a weight row: four neighbours first, then fours in order, whoever adds
// them, so that a result does not depend on what adds the fours.
// Needs: LANES (1 or a multiple of 4), lane_sums (LANES numbers a row), and has_fours, four_sum and
// position of parts/lanes_memory or parts/lanes_subgroups.

// Whether `lane_sums` holds sums of fours.
var<private> holds_fours: bool;

// What the lane is to keep of its sum. By all invocations together.
fn own_sum(invocation: Invocation, value: f32) -> f32 {
    holds_fours = has_fours(invocation);
    if (has_fours(invocation)) {
        return four_sum(invocation, value);
    }
    return value;
}

fn keep_sum(first: u32, lane: u32, sum: f32) {
    if (!holds_fours) {
        lane_sums[first + lane] = sum;
    } else if (lane % 4u == 0u) {
        lane_sums[first + lane / 4u] = sum;
    }
}

fn sum_of_four(first: u32, i: u32) -> f32 {
    if (holds_fours) {
        return lane_sums[first + i];
    }
    let at = first + 4u * i;
    return (lane_sums[at] + lane_sums[at + 1u]) + (lane_sums[at + 2u] + lane_sums[at + 3u]);
}

// The row's sum, after a barrier.
fn lanes_sum(first: u32) -> f32 {
    if (LANES == 1u) {
        return lane_sums[first];
    }
    var sum = sum_of_four(first, 0u);
    for (var i = 1u; i < LANES / 4u; i++) {
        sum += sum_of_four(first, i);
    }
    return sum;
}
