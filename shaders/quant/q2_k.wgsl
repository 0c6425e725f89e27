// d * scale * code - dmin * min: sixteen bytes per eight spans, one per 16 weights, with a nibble of
// scale and one of minimum; then the half floats d and dmin per eight spans.
// Needs: SCALES_AT, STEPS_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let word = row_word(row, SCALES_AT + (span >> 1u)) >> (16u * (span & 1u));
    let packed = vec2<u32>(word, word >> 8u);
    let nibble = vec2<u32>(15u);
    let d = unpack2x16float(row_word(row, STEPS_AT + (span >> 3u)));
    let minimum = vec2<f32>((packed >> vec2<u32>(4u)) & nibble);
    return Scale(d.x * vec2<f32>(packed & nibble), -(d.y * minimum));
}
