// d * (2 * scale + 1) / 8 * (code - 9), code being eight times a point of 0, 1 and 2, plus 2 where delta
// is positive: per span a word of four indices, then half a word of their upper three bits, a scale
// of three bits and delta's sign; a half float per eight spans.
// Needs: HIGH_AT, SCALES_AT, parts/grid, parts/row_word.
fn upper_bits(row: u32, span: u32) -> u32 {
    return row_word(row, HIGH_AT + (span >> 1u)) >> (16u * (span & 1u));
}

fn eight_codes(low: u32, high: u32) -> vec2<u32> {
    return point_8((low & 255u) | ((high & 7u) << 8u));
}

fn span_codes(row: u32, span: u32) -> Codes {
    let low = row_word(row, span);
    let high = upper_bits(row, span);
    let delta = vec4<u32>(select(0x02020202u, 0u, (high & 0x8000u) != 0u));
    return Codes(
        vec4<u32>(eight_codes(low, high), eight_codes(low >> 8u, high >> 3u)) + delta,
        vec4<u32>(eight_codes(low >> 16u, high >> 6u), eight_codes(low >> 24u, high >> 9u)) + delta,
    );
}

fn span_scale(row: u32, span: u32) -> Scale {
    let scale = (upper_bits(row, span) >> 12u) & 7u;
    let d = row_half(row, SCALES_AT, span >> 3u) * f32(2u * scale + 1u) * 0.125;
    return Scale(vec2<f32>(d), vec2<f32>(-9.0 * d));
}
