// Numbers as multiples of a 32,512th of the largest: 256 times an upper byte plus a lower one, both
// signed.
const STEPS: f32 = 32512.0;

fn packed(v: vec4<f32>) -> vec2<u32> {
    let steps = vec4<i32>(round(v));
    let upper = (steps + vec4<i32>(128)) >> vec4<u32>(8u);
    return vec2<u32>(pack4xI8(upper), pack4xI8(steps - 256 * upper));
}

fn unpacked(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(256 * unpack4xI8(words.x) + unpack4xI8(words.y));
}
