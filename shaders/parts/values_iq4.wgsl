// Codes of four bits that stand for the sixteen numbers of IQ4_NL. They are kept as bytes of four
// words, since an array of constants would be copied wherever it is indexed.
const LOOKUP = vec4<u32>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

fn code_numbers(codes: u32) -> vec4<i32> {
    let code = unpack4xU8(codes);
    let odd_word = (code & vec4<u32>(4u)) != vec4<u32>(0u);
    let low = select(vec4<u32>(LOOKUP.x), vec4<u32>(LOOKUP.y), odd_word);
    let high = select(vec4<u32>(LOOKUP.z), vec4<u32>(LOOKUP.w), odd_word);
    let word = select(low, high, (code & vec4<u32>(8u)) != vec4<u32>(0u));
    let shifted = word << (vec4<u32>(24u) - 8u * (code & vec4<u32>(3u)));
    return vec4<i32>(shifted) >> vec4<u32>(24u);
}

fn code_values(codes: u32) -> vec4<f32> {
    return vec4<f32>(code_numbers(codes));
}

fn code_bytes(codes: u32) -> u32 {
    return pack4xI8(code_numbers(codes));
}
