// Cached numbers as half floats. The rounding of pack2x16float is the driver's choice, so it is
// done here: to nearest, ties to even, as the CPU does.
alias Cached = vec2<u32>;

fn half_bits(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x477ff000u) {
        // Rounds past the largest half float; NaN stays one.
        return sign | select(0x7c00u, 0x7e00u, magnitude > 0x7f800000u);
    }
    if (magnitude < 0x38800000u) {
        // Subnormal: adding one half puts the last kept bit at 2^-24, and the adder rounds.
        return sign | (bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u);
    }
    let odd = (magnitude >> 13u) & 1u;
    return sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13u);
}

fn cached_values(cached: Cached) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(cached.x), unpack2x16float(cached.y));
}

fn cached_from(values: vec4<f32>) -> Cached {
    return vec2<u32>(
        half_bits(values.x) | (half_bits(values.y) << 16u),
        half_bits(values.z) | (half_bits(values.w) << 16u),
    );
}
