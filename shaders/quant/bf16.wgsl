// Upper halves of 32-bit floats, four vectors per span. Needs: ROW_VEC4S, parts/span.
fn pairs(a: u32, b: u32) -> vec4<f32> {
    let upper = 0xffff0000u;
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & upper, b << 16u, b & upper));
}

fn span_values(row: u32, span: u32) -> Span {
    let at = row * ROW_VEC4S + 4u * span;
    let a = weights[at];
    let b = weights[at + 1u];
    let c = weights[at + 2u];
    let d = weights[at + 3u];
    return Span(
        pairs(a.x, a.y), pairs(a.z, a.w),
        pairs(b.x, b.y), pairs(b.z, b.w),
        pairs(c.x, c.y), pairs(c.z, c.w),
        pairs(d.x, d.y), pairs(d.z, d.w),
    );
}
