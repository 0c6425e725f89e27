// Numbers as half floats in units of the largest, so that none overflows. Needs: parts/half_bits.
const STEPS: f32 = 1.0;

fn packed(v: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(
        half_bits(v.x) | (half_bits(v.y) << 16u),
        half_bits(v.z) | (half_bits(v.w) << 16u),
    );
}

fn unpacked(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
