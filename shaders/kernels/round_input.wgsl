// The input of products in integers or half floats: spans of 32 columns in 16 bits each, in units of
// their largest. A span is five vectors: two with the first words of its quads, two with the second
// ones, then the scale and the sums of both halves.
// Needs: WG, SPANS, STEPS, packed and unpacked (parts/input_*), x_quad (parts/x_*), parts/batch.
// Twin: none of its own; products are compared with those of x as it was.
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<u32>>;

// A span below it is zero: the factor of a smaller one would be too large for a float.
const LEAST: f32 = 1e-30;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let span = id.x;
    let row = id.y;
    if (span >= SPANS || row >= n_rows()) {
        return;
    }
    var quads: array<vec4<f32>, 8>;
    var largest = vec4<f32>(0.0);
    for (var q = 0u; q < 8u; q++) {
        quads[q] = x_quad(row, 8u * span + q);
        largest = max(largest, abs(quads[q]));
    }
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    var factor = 0.0;
    if (most > LEAST) {
        factor = STEPS / most;
    }
    // Sums are of the rounded numbers: a weight's bias then cancels exactly what its codes add.
    var words: array<vec4<u32>, 4>;
    var sums: array<vec4<f32>, 2>;
    for (var q = 0u; q < 8u; q++) {
        let both = packed(quads[q] * factor);
        words[q / 4u][q % 4u] = both.x;
        words[2u + q / 4u][q % 4u] = both.y;
        sums[q / 4u] += unpacked(both);
    }
    let one = vec4<f32>(1.0);
    let scale = most / STEPS;
    let at = 5u * (row * SPANS + span);
    for (var i = 0u; i < 4u; i++) {
        out[at + i] = words[i];
    }
    out[at + 4u] = bitcast<vec4<u32>>(scale * vec4<f32>(1.0, dot(sums[0], one), dot(sums[1], one), 0.0));
}
