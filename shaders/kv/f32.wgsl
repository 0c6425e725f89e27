// Cached numbers as they are, four to an element. Needs: KEYS, VALUES, `keys` and `values` of Cached.
alias Cached = vec4<f32>;

fn cached_key(slot: u32, quad: u32) -> vec4<f32> {
    return keys[slot * (KEYS / 4u) + quad];
}

fn cached_value(slot: u32, quad: u32) -> vec4<f32> {
    return values[slot * (VALUES / 4u) + quad];
}

fn cached_from(four: vec4<f32>) -> Cached {
    return four;
}
