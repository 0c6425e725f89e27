// Codes of two bits: two words per span, weight 16w + 4i + b at bit 8b + 2i of word w.
// Needs: parts/row_word.
fn span_codes(row: u32, span: u32) -> Codes {
    let pair = vec4<u32>(0x03030303u);
    let shifts = vec4<u32>(0u, 2u, 4u, 6u);
    return Codes(
        (vec4<u32>(row_word(row, 2u * span)) >> shifts) & pair,
        (vec4<u32>(row_word(row, 2u * span + 1u)) >> shifts) & pair,
    );
}
