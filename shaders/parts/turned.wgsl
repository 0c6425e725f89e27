// What rope makes of a column of a head. Needs: HALF, NEOX, `batch` and token_of (parts/batch).

// The column that turns with column `c` of a head; itself past the pairs.
fn partner(c: u32) -> u32 {
    if (c >= 2u * HALF) {
        return c;
    }
    if (NEOX) {
        return (c + HALF) % (2u * HALF);
    }
    return c ^ 1u;
}

// Column `c` of a head after the turn, from its value and its partner's.
fn turned(row: u32, table: u32, c: u32, own: f32, other: f32) -> f32 {
    if (c >= 2u * HALF) {
        return own;
    }
    var pair = c / 2u;
    var second = (c & 1u) == 1u;
    if (NEOX) {
        pair = c % HALF;
        second = c >= HALF;
    }
    let angle = batch[9u + table] + 2u * (token_of(row) * HALF + pair);
    let cosine = bitcast<f32>(batch[angle]);
    let sine = bitcast<f32>(batch[angle + 1u]);
    if (second) {
        return fma(other, sine, own * cosine);
    }
    return fma(own, cosine, -(other * sine));
}
