// Where a sequence keeps its tokens. Needs: PAGE, parts/batch.

// Slot of the first token of page `page` of a sequence.
fn page_slot(sequence: u32, page: u32) -> u32 {
    let table = batch[batch[8] + sequence];
    return batch[table + page] * PAGE;
}
