// How a sequence's cache is shared out among workgroups: by its length alone, so that a result
// does not depend on what else runs. Needs: SPLIT_TOKENS, MAX_SPLITS, TILE.

// Tokens of a split for `n` tokens, a multiple of TILE.
fn split_tokens(n: u32) -> u32 {
    let needed = (n + MAX_SPLITS - 1u) / MAX_SPLITS;
    return max(SPLIT_TOKENS, (needed + TILE - 1u) / TILE * TILE);
}

// First token that position `p` sees, rounded down to a tile.
fn first_tile(p: u32) -> u32 {
    return window_start(p) / TILE * TILE;
}

fn window_start(p: u32) -> u32 {
    if (WINDOW > 0u && p + 1u > WINDOW) {
        return p + 1u - WINDOW;
    }
    return 0u;
}

fn n_splits(p: u32) -> u32 {
    let n = p + 1u - first_tile(p);
    let tokens = split_tokens(n);
    return (n + tokens - 1u) / tokens;
}
