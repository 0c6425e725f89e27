// Cached numbers as half floats, four to an element. Needs: KEYS, VALUES, `keys` and `values` of Cached,
// parts/half_bits.
alias Cached = vec2<u32>;

fn halves(cached: Cached) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(cached.x), unpack2x16float(cached.y));
}

fn cached_key(slot: u32, quad: u32) -> vec4<f32> {
    return halves(keys[slot * (KEYS / 4u) + quad]);
}

fn cached_value(slot: u32, quad: u32) -> vec4<f32> {
    return halves(values[slot * (VALUES / 4u) + quad]);
}

fn cached_from(four: vec4<f32>) -> Cached {
    return vec2<u32>(
        half_bits(four.x) | (half_bits(four.y) << 16u),
        half_bits(four.z) | (half_bits(four.w) << 16u),
    );
}
