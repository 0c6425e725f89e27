// Weights of a quantised type: scale * code + bias.
// Needs: parts/span, span_codes and code_values (parts/codes_*), span_scale (quant/*).

// Codes as bytes: weight 4i + b of each half in byte b of word i.
struct Codes {
    first: vec4<u32>,
    second: vec4<u32>,
}

// Scale and bias of weights 0..16 and 16..32.
struct Scale {
    scale: vec2<f32>,
    bias: vec2<f32>,
}

fn quad_values(codes: u32, scale: f32, bias: f32) -> vec4<f32> {
    return fma(vec4<f32>(scale), code_values(codes), vec4<f32>(bias));
}

fn span_values(row: u32, span: u32) -> Span {
    let codes = span_codes(row, span);
    let s = span_scale(row, span);
    return Span(
        quad_values(codes.first.x, s.scale.x, s.bias.x),
        quad_values(codes.first.y, s.scale.x, s.bias.x),
        quad_values(codes.first.z, s.scale.x, s.bias.x),
        quad_values(codes.first.w, s.scale.x, s.bias.x),
        quad_values(codes.second.x, s.scale.y, s.bias.y),
        quad_values(codes.second.y, s.scale.y, s.bias.y),
        quad_values(codes.second.z, s.scale.y, s.bias.y),
        quad_values(codes.second.w, s.scale.y, s.bias.y),
    );
}
