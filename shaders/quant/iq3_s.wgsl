// d * (2 * scale + 1) * code: per span two words of eight indices, each of four codes, a byte with
// their ninth bits, a word of signs and a nibble of scale; a half float per eight spans.
// Needs: HIGH_AT, SIGNS_AT, SCALES_AT, STEPS_AT, parts/grid, parts/row_word.
fn eight_codes(low: u32, high: u32, signs: u32) -> vec2<u32> {
    let points = vec2<u32>(
        point_4((low & 255u) | ((high & 1u) << 8u)),
        point_4(((low >> 8u) & 255u) | ((high & 2u) << 7u)),
    );
    return signed_8(points, signs);
}

fn span_codes(row: u32, span: u32) -> Codes {
    let a = row_word(row, 2u * span);
    let b = row_word(row, 2u * span + 1u);
    let high = row_byte(row, HIGH_AT, span);
    let signs = row_word(row, SIGNS_AT + span);
    return Codes(
        vec4<u32>(eight_codes(a, high, signs), eight_codes(a >> 16u, high >> 2u, signs >> 8u)),
        vec4<u32>(
            eight_codes(b, high >> 4u, signs >> 16u),
            eight_codes(b >> 16u, high >> 6u, signs >> 24u),
        ),
    );
}

fn span_scale(row: u32, span: u32) -> Scale {
    let scale = (row_word(row, SCALES_AT + (span >> 3u)) >> (4u * (span & 7u))) & 15u;
    let d = row_half(row, STEPS_AT, span >> 3u) * f32(2u * scale + 1u);
    return Scale(vec2<f32>(d), vec2<f32>(0.0));
}
