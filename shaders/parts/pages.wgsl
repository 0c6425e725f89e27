// Where a sequence keeps its tokens. Needs: PAGE, parts/batch.

// Slot of the first token of page `page` of the sequence with this table.
fn page_slot(table: u32, page: u32) -> u32 {
    return batch[table + page] * PAGE;
}
