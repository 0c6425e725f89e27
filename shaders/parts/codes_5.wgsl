// Codes of five bits: nibbles as in codes_4, then a word per span with the fifth bits, that of
// weight 4i + b at bit 8b + i. Needs: ROW_VEC4S, HIGH_AT, parts/row_word.
fn span_codes(row: u32, span: u32) -> Codes {
    let packed = weights[row * ROW_VEC4S + span];
    let nibble = vec4<u32>(0x0f0f0f0fu);
    let bit = vec4<u32>(0x01010101u);
    let high = vec4<u32>(row_word(row, HIGH_AT + span));
    let first = (high >> vec4<u32>(0u, 1u, 2u, 3u)) & bit;
    let second = (high >> vec4<u32>(4u, 5u, 6u, 7u)) & bit;
    return Codes(
        (packed & nibble) | (first << vec4<u32>(4u)),
        ((packed >> vec4<u32>(4u)) & nibble) | (second << vec4<u32>(4u)),
    );
}
