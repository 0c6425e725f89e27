// A tile of a product in integers: codes of weights as signed bytes, the input as sixteen bits in two
// bytes (parts/input_bytes). Sums of bytes are exact; scales are applied to those of a span, or of
// its halves where these have scales of their own.
// Needs: TILE_ROWS, TILE_COLUMNS, BLOCK, BLOCK_COLUMNS, WG, SPANS, SHARED (sources with the same
// input), TWO_SCALES (whether halves of a span have scales of their own), tile_row and tile_source
// (the kernel), span_codes, code_bytes and span_scale (quant/* and their parts).
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;

// Vectors of a span, an odd number so that neighbouring rows lie in different banks: of a weight two of
// codes, one of scales and biases; of the input two of upper bytes, two of lower ones, one with the
// scale and the sums of both halves.
const W_VECTORS: u32 = 3u;
const X_VECTORS: u32 = 5u;

var<workgroup> w_tile: array<vec4<u32>, TILE_ROWS * W_VECTORS>;
var<workgroup> x_tile: array<vec4<u32>, TILE_COLUMNS * X_VECTORS>;

fn bytes_of(codes: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(
        code_bytes(codes.x),
        code_bytes(codes.y),
        code_bytes(codes.z),
        code_bytes(codes.w),
    );
}

fn load_span(span: u32, index: u32) {
    for (var i = index; i < TILE_ROWS; i += WG) {
        let row = tile_row(i);
        let codes = span_codes(row, span);
        let s = span_scale(row, span);
        w_tile[i * W_VECTORS] = bytes_of(codes.first);
        w_tile[i * W_VECTORS + 1u] = bytes_of(codes.second);
        w_tile[i * W_VECTORS + 2u] = bitcast<vec4<u32>>(vec4<f32>(s.scale, s.bias));
    }
    for (var i = index; i < TILE_COLUMNS * X_VECTORS; i += WG) {
        let at = (tile_source(i / X_VECTORS) / SHARED * SPANS + span) * X_VECTORS;
        x_tile[i] = x[at + i % X_VECTORS];
    }
}

// Sixteen codes times sixteen numbers of two bytes.
fn dot16(codes: vec4<u32>, upper: vec4<u32>, lower: vec4<u32>) -> i32 {
    let uppers = dot4I8Packed(codes.x, upper.x)
        + dot4I8Packed(codes.y, upper.y)
        + dot4I8Packed(codes.z, upper.z)
        + dot4I8Packed(codes.w, upper.w);
    let lowers = dot4I8Packed(codes.x, lower.x)
        + dot4I8Packed(codes.y, lower.y)
        + dot4I8Packed(codes.z, lower.z)
        + dot4I8Packed(codes.w, lower.w);
    return 256 * uppers + lowers;
}

// Adds a span to the sums of an invocation's block.
fn add_span(own_row: u32, own_column: u32, sums: ptr<function, Sums>) {
    var first: array<vec4<u32>, BLOCK>;
    var second: array<vec4<u32>, BLOCK>;
    var scales: array<vec4<f32>, BLOCK>;
    for (var r = 0u; r < BLOCK; r++) {
        let at = (own_row + r * ROW_BLOCKS) * W_VECTORS;
        first[r] = w_tile[at];
        second[r] = w_tile[at + 1u];
        scales[r] = bitcast<vec4<f32>>(w_tile[at + 2u]);
    }
    for (var n = 0u; n < BLOCK_COLUMNS; n++) {
        let at = (own_column + n) * X_VECTORS;
        let uppers = array<vec4<u32>, 2>(x_tile[at], x_tile[at + 1u]);
        let lowers = array<vec4<u32>, 2>(x_tile[at + 2u], x_tile[at + 3u]);
        let input = bitcast<vec4<f32>>(x_tile[at + 4u]);
        for (var r = 0u; r < BLOCK; r++) {
            let a = dot16(first[r], uppers[0], lowers[0]);
            let b = dot16(second[r], uppers[1], lowers[1]);
            let s = scales[r];
            var sum = fma(s.z, input.y, fma(s.w, input.z, (*sums)[n * BLOCK + r]));
            if (TWO_SCALES) {
                sum = fma(input.x, fma(s.x, f32(a), s.y * f32(b)), sum);
            } else {
                sum = fma(input.x * s.x, f32(a + b), sum);
            }
            (*sums)[n * BLOCK + r] = sum;
        }
    }
}
