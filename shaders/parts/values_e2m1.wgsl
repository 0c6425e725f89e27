// Codes of four bits, a sign, two bits of exponent and one of mantissa, as twice the number. The
// eight magnitudes are nibbles of one word.
fn code_values(codes: u32) -> vec4<f32> {
    let code = unpack4xU8(codes);
    let magnitude = (vec4<u32>(0xc8643210u) >> (4u * (code & vec4<u32>(7u)))) & vec4<u32>(15u);
    let value = vec4<f32>(magnitude);
    return select(value, -value, (code & vec4<u32>(8u)) != vec4<u32>(0u));
}

fn code_bytes(codes: u32) -> u32 {
    return pack4xI8(vec4<i32>(code_values(codes)));
}
