// The rows of one sequence in a batch. Needs: RUNS_WORD, parts/batch.
struct Run {
    first: u32,
    n: u32,
    // Slot of the sequence's recurrent states.
    state: u32,
    // Whether the states before the first row are zeros.
    begins: bool,
}

fn batch_run(index: u32) -> Run {
    let at = batch[RUNS_WORD] + 4u * index;
    return Run(batch[at], batch[at + 1u], batch[at + 2u], batch[at + 3u] != 0u);
}
