// Codes that are signed bytes.
fn code_values(codes: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(codes));
}

fn code_bytes(codes: u32) -> u32 {
    return codes;
}
