// keys[slot of t] = k[t], values[slot of t] = v[t] in blocks of 32 numbers; tokens without a slot are left
// out. An invocation makes two neighbouring blocks of both, whose half floats share a word.
// Needs: WG, K_STRIDE, K_OFFSET, V_STRIDE, V_OFFSET, NO_SLOT, block_factor and code_word (kv/*),
// parts/kv_blocks, parts/half_bits, parts/batch. Twin: cpu kv_write.
@group(0) @binding(0) var<storage, read> k: array<f32>;
@group(0) @binding(1) var<storage, read> v: array<f32>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read_write> keys: array<Cached>;
@group(0) @binding(4) var<storage, read_write> values: array<Cached>;

struct Block {
    half: u32,
    words: array<u32, BLOCK_WORDS>,
}

fn encoded(x: ptr<function, array<vec4<f32>, 8>>) -> Block {
    // The first of several.
    var furthest = 0.0;
    for (var i = 0u; i < 32u; i++) {
        let number = (*x)[i / 4u][i % 4u];
        if (abs(number) > abs(furthest)) {
            furthest = number;
        }
    }
    let factor = block_factor(furthest);
    let inverse = select(1.0 / factor, 0.0, factor == 0.0);
    var block: Block;
    block.half = half_bits(factor);
    for (var i = 0u; i < BLOCK_WORDS; i++) {
        block.words[i] = code_word(x, i, inverse);
    }
    return block;
}

fn write_keys(row: u32, slot: u32, first: u32) {
    var halves = 0u;
    for (var b = first; b < min(first + 2u, KEY_BLOCKS); b++) {
        var x: array<vec4<f32>, 8>;
        for (var i = 0u; i < 8u; i++) {
            let at = row * K_STRIDE + K_OFFSET + 32u * b + 4u * i;
            x[i] = vec4<f32>(k[at], k[at + 1u], k[at + 2u], k[at + 3u]);
        }
        var block = encoded(&x);
        for (var i = 0u; i < BLOCK_WORDS; i++) {
            keys[slot * KEY_WORDS + b * BLOCK_WORDS + i] = block.words[i];
        }
        halves |= block.half << (16u * (b - first));
    }
    if (first < KEY_BLOCKS) {
        keys[slot * KEY_WORDS + KEY_BLOCKS * BLOCK_WORDS + first / 2u] = halves;
    }
}

fn write_values(row: u32, slot: u32, first: u32) {
    var halves = 0u;
    for (var b = first; b < min(first + 2u, VALUE_BLOCKS); b++) {
        var x: array<vec4<f32>, 8>;
        for (var i = 0u; i < 8u; i++) {
            let at = row * V_STRIDE + V_OFFSET + 32u * b + 4u * i;
            x[i] = vec4<f32>(v[at], v[at + 1u], v[at + 2u], v[at + 3u]);
        }
        var block = encoded(&x);
        for (var i = 0u; i < BLOCK_WORDS; i++) {
            values[slot * VALUE_WORDS + b * BLOCK_WORDS + i] = block.words[i];
        }
        halves |= block.half << (16u * (b - first));
    }
    if (first < VALUE_BLOCKS) {
        values[slot * VALUE_WORDS + VALUE_BLOCKS * BLOCK_WORDS + first / 2u] = halves;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (row >= n_rows()) {
        return;
    }
    let slot = batch_slot(row);
    if (slot == NO_SLOT) {
        return;
    }
    write_keys(row, slot, 2u * id.x);
    write_values(row, slot, 2u * id.x);
}
