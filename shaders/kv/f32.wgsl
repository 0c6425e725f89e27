// Cached numbers as they are.
alias Cached = vec4<f32>;

fn cached_values(cached: Cached) -> vec4<f32> {
    return cached;
}

fn cached_from(values: vec4<f32>) -> Cached {
    return values;
}
