// d * scale * code - dmin * min with codes of five bits: a vector per eight spans, the half floats d and dmin,
// then twelve bytes with eight scales and eight minima of six bits. Needs: ROW_VEC4S, SCALES_AT.
fn span_scale(row: u32, span: u32) -> Scale {
    let block = weights[row * ROW_VEC4S + SCALES_AT / 4u + (span >> 3u)];
    let shift = 8u * (span & 3u);
    let low = (block.yzw >> vec3<u32>(shift)) & vec3<u32>(0xffu);
    // Spans 0..4 have whole bytes; spans 4..8 have nibbles in the third word and their upper
    // pairs above the first ones' six bits.
    var scale = low.x & 63u;
    var minimum = low.y & 63u;
    if ((span & 4u) != 0u) {
        scale = (low.z & 15u) | ((low.x >> 6u) << 4u);
        minimum = (low.z >> 4u) | ((low.y >> 6u) << 4u);
    }
    let d = unpack2x16float(block.x);
    return Scale(vec2<f32>(d.x * f32(scale)), vec2<f32>(-(d.y * f32(minimum))));
}
