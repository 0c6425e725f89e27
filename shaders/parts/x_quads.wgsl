// The input of a product, four columns at a time: every offset a multiple of four, every row a
// whole number of spans. Needs: X_STRIDE, X_OFFSET.
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

fn x_quad(row: u32, quad: u32) -> vec4<f32> {
    return x[row * (X_STRIDE / 4u) + X_OFFSET / 4u + quad];
}
