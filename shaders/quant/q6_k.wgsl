// d * scale * (code - 32): sixteen signed bytes per eight spans, one per 16 weights, then a half
// float per eight spans. Needs: SCALES_AT, STEPS_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let word = row_word(row, SCALES_AT + (span >> 1u));
    let bytes = vec2<i32>(i32(word << (24u - 16u * (span & 1u))), i32(word << (16u - 16u * (span & 1u))));
    let scale = row_half(row, STEPS_AT, span >> 3u) * vec2<f32>(bytes >> vec2<u32>(24u));
    return Scale(scale, -32.0 * scale);
}
