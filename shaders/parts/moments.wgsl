// The mean of the GROUP numbers of x from x_at on, and the sum of the squares of their distances from it.
// Needs: WG, GROUP, x, workgroup_sum (parts/reduce_*).
struct Moments {
    mean: f32,
    squares: f32,
}

fn moments(invocation: Invocation, x_at: u32) -> Moments {
    var sum = 0.0;
    for (var i = invocation.index; i < GROUP; i += WG) {
        sum += x[x_at + i];
    }
    let mean = workgroup_sum(invocation, sum) / f32(GROUP);
    var squares = 0.0;
    for (var i = invocation.index; i < GROUP; i += WG) {
        let off = x[x_at + i] - mean;
        squares = fma(off, off, squares);
    }
    return Moments(mean, workgroup_sum(invocation, squares));
}
