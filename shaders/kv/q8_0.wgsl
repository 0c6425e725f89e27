// d * code: signed bytes, four to a word. Needs: parts/kv_blocks.
const BLOCK_WORDS: u32 = 8u;
alias Cached = u32;

fn quad_codes(word: u32, part: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(word));
}

// The factor that makes the number furthest from zero the largest code.
fn block_factor(furthest: f32) -> f32 {
    return abs(furthest) / 127.0;
}

// Word `i` of the codes of block `x`; `inverse` is its factor's.
fn code_word(x: ptr<function, array<vec4<f32>, 8>>, i: u32, inverse: f32) -> u32 {
    let scaled = (*x)[i] * inverse;
    // To nearest, ties away from zero, as on the CPU.
    let codes = vec4<i32>(sign(scaled) * floor(abs(scaled) + vec4<f32>(0.5)));
    let bytes = vec4<u32>(codes) & vec4<u32>(0xffu);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
