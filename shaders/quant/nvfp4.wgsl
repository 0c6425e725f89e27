// Half an unsigned E4M3 number times the code's: a byte of scale per 16 weights.
// Needs: SCALES_AT, parts/row_word.
fn half_e4m3(byte: u32) -> f32 {
    let exponent = (byte >> 3u) & 15u;
    // Eight is the bias here, with the halving; 127 is that of the result.
    let normal = bitcast<f32>(((exponent + 119u) << 23u) | ((byte & 7u) << 20u));
    let value = select(normal, f32(byte & 7u) / 1024.0, exponent == 0u);
    // What is no number counts as zero.
    return select(value, 0.0, byte == 0x7fu);
}

fn span_scale(row: u32, span: u32) -> Scale {
    let word = row_word(row, SCALES_AT + (span >> 1u)) >> (16u * (span & 1u));
    let scale = vec2<f32>(half_e4m3(word & 255u), half_e4m3((word >> 8u) & 255u));
    return Scale(scale, vec2<f32>(0.0));
}
