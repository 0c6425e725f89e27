// d * (code - 1): a half float per eight spans. TQ1_0 lies on a device as TQ2_0 does.
// Needs: SCALES_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let d = row_half(row, SCALES_AT, span >> 3u);
    return Scale(vec2<f32>(d), vec2<f32>(-d));
}
