// Where blocks of 32 cached numbers lie: a token has BLOCK_WORDS (kv/*) words of codes a block, then half
// floats, one a block. Needs: KEYS, VALUES, `keys` and `values` of words.
const KEY_BLOCKS: u32 = KEYS / 32u;
const VALUE_BLOCKS: u32 = VALUES / 32u;
const KEY_WORDS: u32 = KEY_BLOCKS * BLOCK_WORDS + (KEY_BLOCKS + 1u) / 2u;
const VALUE_WORDS: u32 = VALUE_BLOCKS * BLOCK_WORDS + (VALUE_BLOCKS + 1u) / 2u;

// Half float `i` of a token whose half floats begin with this word and its successors.
fn half_of(word: u32, i: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}

fn cached_key(slot: u32, quad: u32) -> vec4<f32> {
    let token = slot * KEY_WORDS;
    let block = quad >> 3u;
    let scale = half_of(keys[token + KEY_BLOCKS * BLOCK_WORDS + (block >> 1u)], block);
    let word = keys[token + block * BLOCK_WORDS + quad % BLOCK_WORDS];
    return scale * quad_codes(word, (quad & 7u) / BLOCK_WORDS);
}

fn cached_value(slot: u32, quad: u32) -> vec4<f32> {
    let token = slot * VALUE_WORDS;
    let block = quad >> 3u;
    let scale = half_of(values[token + VALUE_BLOCKS * BLOCK_WORDS + (block >> 1u)], block);
    let word = values[token + block * BLOCK_WORDS + quad % BLOCK_WORDS];
    return scale * quad_codes(word, (quad & 7u) / BLOCK_WORDS);
}
