// d * (scale + 1/2) / 4 * code: per span a word of four indices, a byte with their upper pairs, a word
// of signs and a byte of two scales; a half float per eight spans.
// Needs: HIGH_AT, SIGNS_AT, SCALES_AT, STEPS_AT, parts/grid, parts/row_word.
fn eight_codes(low: u32, high: u32, signs: u32) -> vec2<u32> {
    return signed_8(point_8((low & 255u) | ((high & 3u) << 8u)), signs);
}

fn span_codes(row: u32, span: u32) -> Codes {
    let low = row_word(row, span);
    let high = row_byte(row, HIGH_AT, span);
    let signs = row_word(row, SIGNS_AT + span);
    return Codes(
        vec4<u32>(eight_codes(low, high, signs), eight_codes(low >> 8u, high >> 2u, signs >> 8u)),
        vec4<u32>(
            eight_codes(low >> 16u, high >> 4u, signs >> 16u),
            eight_codes(low >> 24u, high >> 6u, signs >> 24u),
        ),
    );
}

fn span_scale(row: u32, span: u32) -> Scale {
    let packed = row_byte(row, SCALES_AT, span);
    let scale = vec2<f32>(vec2<u32>(packed & 15u, packed >> 4u));
    let d = row_half(row, STEPS_AT, span >> 3u);
    return Scale(d * (vec2<f32>(0.5) + scale) * 0.25, vec2<f32>(0.0));
}
