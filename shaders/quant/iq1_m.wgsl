// d * (2 * scale + 1) / 8 * (code - 9), codes as in iq1_s: per span a word of four indices, then for each
// a nibble of its upper three bits and delta's sign; two words per eight spans with sixteen scales of
// three bits and, in the upper four of each 16 bits, the half float d.
// Needs: HIGH_AT, SCALES_AT, parts/grid, parts/row_word.
fn eight_codes(low: u32, high: u32) -> vec2<u32> {
    let delta = select(0x02020202u, 0u, (high & 8u) != 0u);
    return point_8((low & 255u) | ((high & 7u) << 8u)) + vec2<u32>(delta);
}

fn span_codes(row: u32, span: u32) -> Codes {
    let low = row_word(row, span);
    let high = row_word(row, HIGH_AT + (span >> 1u)) >> (16u * (span & 1u));
    return Codes(
        vec4<u32>(eight_codes(low, high), eight_codes(low >> 8u, high >> 4u)),
        vec4<u32>(eight_codes(low >> 16u, high >> 8u), eight_codes(low >> 24u, high >> 12u)),
    );
}

fn span_scale(row: u32, span: u32) -> Scale {
    let at = SCALES_AT + 2u * (span >> 3u);
    let words = vec2<u32>(row_word(row, at), row_word(row, at + 1u));
    let parts = ((words >> vec2<u32>(12u)) & vec2<u32>(15u)) | ((words >> vec2<u32>(24u)) & vec2<u32>(0xf0u));
    let d = unpack2x16float(parts.x | (parts.y << 8u)).x;
    let word = select(words.x, words.y, (span & 4u) != 0u);
    let packed = word >> (16u * ((span >> 1u) & 1u) + 6u * (span & 1u));
    let scales = vec2<u32>(packed, packed >> 3u) & vec2<u32>(7u);
    let scale = d * vec2<f32>(2u * scales + vec2<u32>(1u)) * 0.125;
    return Scale(scale, -9.0 * scale);
}
