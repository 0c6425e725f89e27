// Signed codes of eight bits, two vectors per span in the order of the weights.
// Needs: ROW_VEC4S.
fn span_codes(row: u32, span: u32) -> Codes {
    let at = row * ROW_VEC4S + 2u * span;
    return Codes(weights[at], weights[at + 1u]);
}
