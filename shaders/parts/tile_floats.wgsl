// A tile of a product in 32-bit floats: spans of weights and of the input pass through workgroup
// memory.
// Needs: TILE_ROWS, TILE_COLUMNS, BLOCK, BLOCK_COLUMNS, WG, SPANS, tile_row and tile_source (the
// kernel), source_quad (parts/source_*), span_values (quant/*), parts/fma4.

// Vectors of a span in workgroup memory, with one of padding so that neighbouring rows lie in
// different banks.
const SPAN_VECTORS: u32 = 9u;

var<workgroup> w_tile: array<vec4<f32>, TILE_ROWS * SPAN_VECTORS>;
var<workgroup> x_tile: array<vec4<f32>, TILE_COLUMNS * SPAN_VECTORS>;

fn load_span(span: u32, index: u32) {
    for (var i = index; i < TILE_ROWS; i += WG) {
        let w = span_values(tile_row(i), span);
        let at = i * SPAN_VECTORS;
        w_tile[at] = w.v0;
        w_tile[at + 1u] = w.v1;
        w_tile[at + 2u] = w.v2;
        w_tile[at + 3u] = w.v3;
        w_tile[at + 4u] = w.v4;
        w_tile[at + 5u] = w.v5;
        w_tile[at + 6u] = w.v6;
        w_tile[at + 7u] = w.v7;
    }
    for (var i = index; i < TILE_COLUMNS * 8u; i += WG) {
        let v = source_quad(tile_source(i / 8u), 8u * span + i % 8u);
        x_tile[i / 8u * SPAN_VECTORS + i % 8u] = v;
    }
}

// Adds a span to the sums of an invocation's block.
fn add_span(own_row: u32, own_column: u32, sums: ptr<function, Sums>) {
    for (var q = 0u; q < 8u; q++) {
        var w: array<vec4<f32>, BLOCK>;
        for (var r = 0u; r < BLOCK; r++) {
            w[r] = w_tile[(own_row + r * ROW_BLOCKS) * SPAN_VECTORS + q];
        }
        for (var n = 0u; n < BLOCK_COLUMNS; n++) {
            let v = x_tile[(own_column + n) * SPAN_VECTORS + q];
            for (var r = 0u; r < BLOCK; r++) {
                (*sums)[n * BLOCK + r] = fma4(w[r], v, (*sums)[n * BLOCK + r]);
            }
        }
    }
}
