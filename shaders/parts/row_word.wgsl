// One 32-bit word of a weight row. Needs: ROW_VEC4S.
fn row_word(row: u32, word: u32) -> u32 {
    return weights[row * ROW_VEC4S + (word >> 2u)][word & 3u];
}

// Half float `i` of the plane that begins at word `at` of a row.
fn row_half(row: u32, at: u32, i: u32) -> f32 {
    let pair = unpack2x16float(row_word(row, at + (i >> 1u)));
    return select(pair.x, pair.y, (i & 1u) == 1u);
}

// Byte `i` of the plane that begins at word `at` of a row.
fn row_byte(row: u32, at: u32, i: u32) -> u32 {
    return (row_word(row, at + (i >> 2u)) >> (8u * (i & 3u))) & 255u;
}
