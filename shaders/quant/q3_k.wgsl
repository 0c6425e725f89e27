// d * (scale - 32) * (code - 4): three words per eight spans with sixteen scales of six bits, one per
// 16 weights, then a half float per eight spans. Scale i has its low nibble in byte i % 8, the upper
// pair in byte 8 + i % 4. Needs: SCALES_AT, STEPS_AT, parts/row_word.
fn span_scale(row: u32, span: u32) -> Scale {
    let at = SCALES_AT + 3u * (span >> 3u);
    let j = span & 7u;
    let low = row_word(row, at + ((j >> 1u) & 1u)) >> (16u * (j & 1u) + 4u * (j >> 2u));
    let high = row_word(row, at + 2u) >> (16u * (j & 1u) + 2u * (j >> 1u));
    let nibbles = vec2<u32>(low, low >> 8u) & vec2<u32>(15u);
    let pairs = vec2<u32>(high, high >> 8u) & vec2<u32>(3u);
    let six = vec2<f32>(nibbles | (pairs << vec2<u32>(4u)));
    let scale = row_half(row, STEPS_AT, span >> 3u) * (six - vec2<f32>(32.0));
    return Scale(scale, -4.0 * scale);
}
