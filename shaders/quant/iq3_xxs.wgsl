// d * (scale + 1/2) / 2 * code: per span two words of eight indices, each of four codes, then a word of
// four times seven signs and a scale of four bits; a half float per eight spans.
// Needs: SIGNS_AT, SCALES_AT, parts/grid, parts/row_word.
fn eight_codes(indices: u32, signs: u32) -> vec2<u32> {
    let points = vec2<u32>(point_4(indices & 255u), point_4((indices >> 8u) & 255u));
    return signed_8(points, even_signs(signs));
}

fn span_codes(row: u32, span: u32) -> Codes {
    let a = row_word(row, 2u * span);
    let b = row_word(row, 2u * span + 1u);
    let signs = row_word(row, SIGNS_AT + span);
    return Codes(
        vec4<u32>(eight_codes(a, signs), eight_codes(a >> 16u, signs >> 7u)),
        vec4<u32>(eight_codes(b, signs >> 14u), eight_codes(b >> 16u, signs >> 21u)),
    );
}

fn span_scale(row: u32, span: u32) -> Scale {
    let scale = f32(row_word(row, SIGNS_AT + span) >> 28u);
    let d = row_half(row, SCALES_AT, span >> 3u) * (0.5 + scale) * 0.5;
    return Scale(vec2<f32>(d), vec2<f32>(0.0));
}
