// d * (scale - 32) * number: two words per eight spans, the half float d and the upper pairs of the
// spans' scales, then their low nibbles. Needs: SCALES_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let at = SCALES_AT + 2u * (span >> 3u);
    let j = span & 7u;
    let first = row_word(row, at);
    let low = (row_word(row, at + 1u) >> (4u * j)) & 15u;
    let high = (first >> (16u + 2u * j)) & 3u;
    let scale = unpack2x16float(first).x * (f32(low | (high << 4u)) - 32.0);
    return Scale(vec2<f32>(scale), vec2<f32>(0.0));
}
