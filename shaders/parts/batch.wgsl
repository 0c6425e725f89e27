// The step's input. The kernel declares `batch`; gpu/batch.rs writes it: seventeen words of counts
// and offsets, then the columns that they point at.
// Needs: ROWS_WORD (0: one row per token, 1: one row per wanted row).

fn n_rows() -> u32 {
    return batch[ROWS_WORD];
}

fn batch_token(row: u32) -> u32 {
    return batch[batch[3] + row];
}

fn batch_position(row: u32) -> u32 {
    return batch[batch[4] + row];
}

fn batch_slot(row: u32) -> u32 {
    return batch[batch[5] + row];
}

// Where the page table of the row's sequence begins.
fn batch_table(row: u32) -> u32 {
    return batch[batch[6] + row];
}

fn batch_output(row: u32) -> u32 {
    return batch[batch[7] + row];
}

// First row and number of rows of a tile of queries of one sequence, and the positions of the
// sequence up to its last row.
fn batch_tile(tile: u32) -> vec3<u32> {
    let at = batch[8] + 3u * tile;
    return vec3<u32>(batch[at], batch[at + 1u], batch[at + 2u]);
}

// The token that a row stands for.
fn token_of(row: u32) -> u32 {
    if (ROWS_WORD == 0u) {
        return row;
    }
    return batch_output(row);
}
