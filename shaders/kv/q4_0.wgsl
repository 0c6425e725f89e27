// d * (code - 8): byte 4i + b of a block has the code of number 4i + b in its low nibble, that of
// 16 + 4i + b in the high one. Needs: parts/kv_blocks.
const BLOCK_WORDS: u32 = 4u;
alias Cached = u32;

fn quad_codes(word: u32, part: u32) -> vec4<f32> {
    let nibbles = (word >> (4u * part)) & 0x0f0f0f0fu;
    return vec4<f32>(unpack4xU8(nibbles)) - vec4<f32>(8.0);
}

// The factor that makes the number furthest from zero code 0.
fn block_factor(furthest: f32) -> f32 {
    return furthest / -8.0;
}

fn nibbles(four: vec4<f32>, inverse: f32) -> vec4<u32> {
    return vec4<u32>(clamp(four * inverse + vec4<f32>(8.5), vec4<f32>(0.0), vec4<f32>(15.0)));
}

// Word `i` of the codes of block `x`; `inverse` is its factor's.
fn code_word(x: ptr<function, array<vec4<f32>, 8>>, i: u32, inverse: f32) -> u32 {
    let bytes = nibbles((*x)[i], inverse) | (nibbles((*x)[i + 4u], inverse) << vec4<u32>(4u));
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
