// Codes that are unsigned bytes.
fn code_values(codes: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(codes));
}
