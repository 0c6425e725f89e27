// Codes that are unsigned bytes.
fn code_values(codes: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(codes));
}

// None of these types has codes above 127.
fn code_bytes(codes: u32) -> u32 {
    return codes;
}
