// The block of results of one invocation in a tile: BLOCK rows of a weight, BLOCK_COLUMNS of the
// input. Neighbours take neighbouring rows, so that their reads and their results lie together. Each
// result is one running sum over the spans in order, whatever the tile.
// Needs: TILE_ROWS, BLOCK, BLOCK_COLUMNS, SPANS, load_span and add_span (parts/tile_*).
alias Sums = array<f32, BLOCK * BLOCK_COLUMNS>;

const ROW_BLOCKS: u32 = TILE_ROWS / BLOCK;

fn block_row(index: u32, r: u32) -> u32 {
    return index % ROW_BLOCKS + r * ROW_BLOCKS;
}

fn block_column(index: u32, n: u32) -> u32 {
    return index / ROW_BLOCKS * BLOCK_COLUMNS + n;
}

fn block_sums(index: u32) -> Sums {
    var sums: Sums;
    for (var span = 0u; span < SPANS; span++) {
        load_span(span, index);
        workgroupBarrier();
        add_span(block_row(index, 0u), block_column(index, 0u), &sums);
        workgroupBarrier();
    }
    return sums;
}
