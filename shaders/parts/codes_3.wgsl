// Codes of three bits: pairs as in codes_2, then a word per span with the third bits, that of
// weight 4i + b at bit 8b + i. Needs: HIGH_AT, parts/row_word.
fn span_codes(row: u32, span: u32) -> Codes {
    let pair = vec4<u32>(0x03030303u);
    let bit = vec4<u32>(0x01010101u);
    let shifts = vec4<u32>(0u, 2u, 4u, 6u);
    let high = vec4<u32>(row_word(row, HIGH_AT + span));
    let first = (high >> vec4<u32>(0u, 1u, 2u, 3u)) & bit;
    let second = (high >> vec4<u32>(4u, 5u, 6u, 7u)) & bit;
    return Codes(
        ((vec4<u32>(row_word(row, 2u * span)) >> shifts) & pair) | (first << vec4<u32>(2u)),
        ((vec4<u32>(row_word(row, 2u * span + 1u)) >> shifts) & pair) | (second << vec4<u32>(2u)),
    );
}
