// d * (2 * code - 1): a half float per four spans. Needs: SCALES_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let d = row_half(row, SCALES_AT, span >> 2u);
    return Scale(vec2<f32>(2.0 * d), vec2<f32>(-d));
}
