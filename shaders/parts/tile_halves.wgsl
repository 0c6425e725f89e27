// A tile of a product whose factors are half floats: weights or their codes, which half floats hold
// exactly, and the input in units of the largest of 32 (parts/input_halves). They are multiplied and
// added as 32-bit floats.
// Needs: TILE_ROWS, TILE_COLUMNS, BLOCK, BLOCK_COLUMNS, WG, SPANS, SHARED (sources with the same
// input), tile_row and tile_source (the kernel), span_halves (parts/halves_*), parts/fma4.
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;

alias Quad = vec4<f16>;

struct HalfSpan {
    quads: array<Quad, 8>,
    // Scales, then biases of both halves.
    scales: vec4<f32>,
}

// Quads of a span, with one of padding so that neighbouring rows lie in different banks.
const SPAN_QUADS: u32 = 9u;
// Vectors of a span of the input in memory: two with the first pairs of all quads, two with the second
// ones, one with the scale and the sums of both halves.
const X_VECTORS: u32 = 5u;

var<workgroup> w_tile: array<Quad, TILE_ROWS * SPAN_QUADS>;
var<workgroup> w_scales: array<vec4<f32>, TILE_ROWS>;
var<workgroup> x_tile: array<Quad, TILE_COLUMNS * SPAN_QUADS>;
var<workgroup> x_scales: array<vec4<f32>, TILE_COLUMNS>;

// Naga does not reinterpret words as half floats; there and back again is exact.
fn half_quad(a: u32, b: u32) -> Quad {
    return Quad(vec4<f32>(unpack2x16float(a), unpack2x16float(b)));
}

fn load_span(span: u32, index: u32) {
    for (var i = index; i < TILE_ROWS; i += WG) {
        var w = span_halves(tile_row(i), span);
        for (var q = 0u; q < 8u; q++) {
            w_tile[i * SPAN_QUADS + q] = w.quads[q];
        }
        w_scales[i] = w.scales;
    }
    for (var i = index; i < TILE_COLUMNS * 8u; i += WG) {
        let column = i / 8u;
        let q = i % 8u;
        let at = (tile_source(column) / SHARED * SPANS + span) * X_VECTORS;
        let v = half_quad(x[at + q / 4u][q % 4u], x[at + 2u + q / 4u][q % 4u]);
        x_tile[column * SPAN_QUADS + q] = v;
        if (q == 0u) {
            x_scales[column] = bitcast<vec4<f32>>(x[at + 4u]);
        }
    }
}

// Adds a span to the sums of an invocation's block.
fn add_span(own_row: u32, own_column: u32, sums: ptr<function, Sums>) {
    for (var half = 0u; half < 2u; half++) {
        var partial: Sums;
        for (var q = 4u * half; q < 4u * half + 4u; q++) {
            var w: array<vec4<f32>, BLOCK>;
            for (var r = 0u; r < BLOCK; r++) {
                w[r] = vec4<f32>(w_tile[(own_row + r * ROW_BLOCKS) * SPAN_QUADS + q]);
            }
            for (var n = 0u; n < BLOCK_COLUMNS; n++) {
                let v = vec4<f32>(x_tile[(own_column + n) * SPAN_QUADS + q]);
                for (var r = 0u; r < BLOCK; r++) {
                    partial[n * BLOCK + r] = fma4(w[r], v, partial[n * BLOCK + r]);
                }
            }
        }
        for (var n = 0u; n < BLOCK_COLUMNS; n++) {
            let input = x_scales[own_column + n];
            for (var r = 0u; r < BLOCK; r++) {
                let s = w_scales[own_row + r * ROW_BLOCKS];
                let i = n * BLOCK + r;
                let sum = fma(s[2u + half], input[1u + half], (*sums)[i]);
                (*sums)[i] = fma(input.x * s[half], partial[i], sum);
            }
        }
    }
}
