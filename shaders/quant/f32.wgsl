// 32-bit floats, eight vectors per span. Needs: ROW_VEC4S, parts/span.
fn span_values(row: u32, span: u32) -> Span {
    let at = row * ROW_VEC4S + 8u * span;
    return Span(
        bitcast<vec4<f32>>(weights[at]),
        bitcast<vec4<f32>>(weights[at + 1u]),
        bitcast<vec4<f32>>(weights[at + 2u]),
        bitcast<vec4<f32>>(weights[at + 3u]),
        bitcast<vec4<f32>>(weights[at + 4u]),
        bitcast<vec4<f32>>(weights[at + 5u]),
        bitcast<vec4<f32>>(weights[at + 6u]),
        bitcast<vec4<f32>>(weights[at + 7u]),
    );
}
