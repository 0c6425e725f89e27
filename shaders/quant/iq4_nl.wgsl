// d * number: a half float per span. Needs: SCALES_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let d = row_half(row, SCALES_AT, span);
    return Scale(vec2<f32>(d), vec2<f32>(0.0));
}
