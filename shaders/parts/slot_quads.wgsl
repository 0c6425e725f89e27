// The input of a slot, four columns at a time: every offset a multiple of four, every slot a
// whole number of spans. Needs: X_STRIDE, X_OFFSET, SLOT_STRIDE (0: all slots share one).
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

fn slot_quad(row: u32, slot: u32, quad: u32) -> vec4<f32> {
    return x[(row * X_STRIDE + X_OFFSET + slot * SLOT_STRIDE) / 4u + quad];
}
