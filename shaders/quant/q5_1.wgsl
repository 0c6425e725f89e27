// d * code + m, codes of five bits: two half floats per span. Needs: SCALES_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let pair = unpack2x16float(row_word(row, SCALES_AT + span));
    return Scale(vec2<f32>(pair.x), vec2<f32>(pair.y));
}
