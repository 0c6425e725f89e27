// Codes of six bits: nibbles as in codes_4, then two words per span with the upper bit pairs,
// those of weight 16w + 4i + b at bit 8b + 2i of word w. Needs: ROW_VEC4S, HIGH_AT,
// parts/row_word.
fn span_codes(row: u32, span: u32) -> Codes {
    let packed = weights[row * ROW_VEC4S + span];
    let nibble = vec4<u32>(0x0f0f0f0fu);
    let pair = vec4<u32>(0x03030303u);
    let shifts = vec4<u32>(0u, 2u, 4u, 6u);
    let first = (vec4<u32>(row_word(row, HIGH_AT + 2u * span)) >> shifts) & pair;
    let second = (vec4<u32>(row_word(row, HIGH_AT + 2u * span + 1u)) >> shifts) & pair;
    return Codes(
        (packed & nibble) | (first << vec4<u32>(4u)),
        ((packed >> vec4<u32>(4u)) & nibble) | (second << vec4<u32>(4u)),
    );
}
