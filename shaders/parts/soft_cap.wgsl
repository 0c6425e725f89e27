// cap * tanh(value / cap). Some drivers' tanh overflows for large arguments, and past 15 it is 1
// in 32 bits.
fn soft_cap(value: f32, cap: f32) -> f32 {
    return cap * tanh(clamp(value / cap, -15.0, 15.0));
}
