// Codes of four bits: a vector per span, weight 4i + b in the low nibble of byte b of word i,
// weight 16 + 4i + b in the high one. Needs: ROW_VEC4S.
fn span_codes(row: u32, span: u32) -> Codes {
    let packed = weights[row * ROW_VEC4S + span];
    let nibble = vec4<u32>(0x0f0f0f0fu);
    return Codes(packed & nibble, (packed >> vec4<u32>(4u)) & nibble);
}
