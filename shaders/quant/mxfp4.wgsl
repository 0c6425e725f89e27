// 2^(e - 128) * number: a byte of exponent per span. Needs: SCALES_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let e = row_byte(row, SCALES_AT, span);
    // The two smallest powers are subnormal; a device may take them for zero.
    let bits = select((e - 1u) << 23u, 0x00200000u << (e & 1u), e < 2u);
    return Scale(vec2<f32>(bitcast<f32>(bits)), vec2<f32>(0.0));
}
