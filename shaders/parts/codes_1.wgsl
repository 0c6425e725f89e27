// Codes of one bit: a word per span, weight 4i + b at bit 8b + i. Needs: HIGH_AT, parts/row_word.
fn span_codes(row: u32, span: u32) -> Codes {
    let bit = vec4<u32>(0x01010101u);
    let packed = vec4<u32>(row_word(row, HIGH_AT + span));
    return Codes(
        (packed >> vec4<u32>(0u, 1u, 2u, 3u)) & bit,
        (packed >> vec4<u32>(4u, 5u, 6u, 7u)) & bit,
    );
}
