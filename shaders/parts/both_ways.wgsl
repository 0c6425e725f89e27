// What a position sees: the whole sequence, or what is near it. Needs: WINDOW (0: none).

// First position and the one after the last, in a sequence of `length`.
fn visible(position: u32, length: u32) -> vec2<u32> {
    if (WINDOW == 0u) {
        return vec2<u32>(0u, length);
    }
    let reach = WINDOW / 2u;
    return vec2<u32>(max(position, reach) - reach, min(length, position + reach + 1u));
}
