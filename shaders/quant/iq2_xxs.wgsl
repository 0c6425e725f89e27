// d * (scale + 1/2) / 4 * code: per span a word of four indices, then one of four times seven signs
// and a scale of four bits; a half float per eight spans.
// Needs: SCALES_AT, parts/grid, parts/row_word.
fn eight_codes(index: u32, signs: u32) -> vec2<u32> {
    return signed_8(point_8(index & 255u), even_signs(signs));
}

fn span_codes(row: u32, span: u32) -> Codes {
    let indices = row_word(row, 2u * span);
    let signs = row_word(row, 2u * span + 1u);
    return Codes(
        vec4<u32>(eight_codes(indices, signs), eight_codes(indices >> 8u, signs >> 7u)),
        vec4<u32>(eight_codes(indices >> 16u, signs >> 14u), eight_codes(indices >> 24u, signs >> 21u)),
    );
}

fn span_scale(row: u32, span: u32) -> Scale {
    let scale = f32(row_word(row, 2u * span + 1u) >> 28u);
    let d = row_half(row, SCALES_AT, span >> 3u) * (0.5 + scale) * 0.25;
    return Scale(vec2<f32>(d), vec2<f32>(0.0));
}
