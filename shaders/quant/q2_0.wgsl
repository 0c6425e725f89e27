// d * (code - 1): a half float per two spans. Needs: SCALES_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let d = row_half(row, SCALES_AT, span >> 1u);
    return Scale(vec2<f32>(d), vec2<f32>(-d));
}
