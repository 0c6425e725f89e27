// The share of the softmax that a head's sink takes, relative to the largest score. The kernel
// declares `sinks` where HAS_SINKS. Past 80 the head's result is zero in 32 bits; the bound keeps
// exp from overflowing.
fn sink_weight(head: u32, largest: f32) -> f32 {
    if (!HAS_SINKS) {
        return 0.0;
    }
    return exp(min(sinks[head] - largest, 80.0));
}
