// Weights that are half floats, four vectors per span. Needs: ROW_VEC4S, parts/tile_halves.
fn span_halves(row: u32, span: u32) -> HalfSpan {
    let at = row * ROW_VEC4S + 4u * span;
    let a = weights[at];
    let b = weights[at + 1u];
    let c = weights[at + 2u];
    let d = weights[at + 3u];
    let quads = array<Quad, 8>(
        half_quad(a.x, a.y), half_quad(a.z, a.w),
        half_quad(b.x, b.y), half_quad(b.z, b.w),
        half_quad(c.x, c.y), half_quad(c.z, c.w),
        half_quad(d.x, d.y), half_quad(d.z, d.w),
    );
    return HalfSpan(quads, vec4<f32>(1.0, 1.0, 0.0, 0.0));
}
