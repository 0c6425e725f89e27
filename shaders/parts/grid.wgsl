// Codes that are points of a grid. The points lie behind the last row, a byte per coordinate.
// Needs: TABLE_AT.

// Point `index` of a grid with four coordinates.
fn point_4(index: u32) -> u32 {
    return weights[TABLE_AT + (index >> 2u)][index & 3u];
}

// Point `index` of a grid with eight coordinates.
fn point_8(index: u32) -> vec2<u32> {
    let points = weights[TABLE_AT + (index >> 1u)];
    return select(points.xy, points.zw, vec2<bool>((index & 1u) == 1u));
}

// Negates the bytes (1 to 127) of a word whose bit is set among the lowest four of `signs`.
fn with_signs(codes: u32, signs: u32) -> u32 {
    // Each bit gets to a byte of its own: 7, 14 and 21 places up.
    let ones = ((signs & 15u) * 0x00204081u) & 0x01010101u;
    return (codes ^ (255u * ones)) + ones;
}

fn signed_8(codes: vec2<u32>, signs: u32) -> vec2<u32> {
    return vec2<u32>(with_signs(codes.x, signs), with_signs(codes.y, signs >> 4u));
}

// Eight signs of the lowest seven bits: the number of set ones is even.
fn even_signs(bits: u32) -> u32 {
    let seven = bits & 127u;
    return seven | ((countOneBits(seven) & 1u) << 7u);
}
