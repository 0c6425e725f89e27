// What a position sees: itself and what is before it. Needs: parts/splits.

// First position and the one after the last.
fn visible(position: u32, length: u32) -> vec2<u32> {
    return vec2<u32>(window_start(position), position + 1u);
}
