// Codes of weights as half floats. Needs: parts/tile_halves, span_codes, code_bytes and span_scale
// (quant/* and their parts).
fn code_quad(codes: u32) -> Quad {
    return Quad(unpack4xI8(code_bytes(codes)));
}

fn span_halves(row: u32, span: u32) -> HalfSpan {
    let codes = span_codes(row, span);
    let s = span_scale(row, span);
    let quads = array<Quad, 8>(
        code_quad(codes.first.x), code_quad(codes.first.y),
        code_quad(codes.first.z), code_quad(codes.first.w),
        code_quad(codes.second.x), code_quad(codes.second.y),
        code_quad(codes.second.z), code_quad(codes.second.w),
    );
    return HalfSpan(quads, vec4<f32>(s.scale, s.bias));
}
