// d * (scale + 1/2) / 4 * code: per span two words of four times an index of nine bits and seven
// signs; a byte of two scales per span; a half float per eight spans.
// Needs: SCALES_AT, STEPS_AT, parts/grid, parts/row_word.
fn eight_codes(packed: u32) -> vec2<u32> {
    return signed_8(point_8(packed & 511u), even_signs(packed >> 9u));
}

fn span_codes(row: u32, span: u32) -> Codes {
    let a = row_word(row, 2u * span);
    let b = row_word(row, 2u * span + 1u);
    return Codes(
        vec4<u32>(eight_codes(a), eight_codes(a >> 16u)),
        vec4<u32>(eight_codes(b), eight_codes(b >> 16u)),
    );
}

fn span_scale(row: u32, span: u32) -> Scale {
    let packed = row_byte(row, SCALES_AT, span);
    let scale = vec2<f32>(vec2<u32>(packed & 15u, packed >> 4u));
    let d = row_half(row, STEPS_AT, span >> 3u);
    return Scale(d * (vec2<f32>(0.5) + scale) * 0.25, vec2<f32>(0.0));
}
