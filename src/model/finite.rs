//! Refuses weights that are no numbers, as a broken conversion or a damaged disk leaves them.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Error;
use crate::backend::WeightSpec;

/// Bytes that a thread looks at before it takes more.
const PIECE: usize = 1 << 20;

/// Rows of a matrix of experts that are looked at, of each expert.
const EXPERT_ROWS: usize = 2;

/// Looks at all weights, on all processors: that takes as long as to read the file, which the first
/// prompt does again for nothing. Of experts it looks at a few rows, since a prompt may not need
/// them, and the file may be larger than memory. Calls `progress` after each piece. One of the threads
/// does `other` before it takes its first: what a load has to do besides takes as long on one processor.
///
/// # Errors
/// Names the first tensor with a number that is not finite.
pub(super) fn check<T: Send>(
    specs: &[WeightSpec],
    progress: &(dyn Fn() + Sync),
    other: impl FnOnce() -> T + Send,
) -> (T, Result<(), Error>) {
    let pieces: Vec<(usize, &[u8])> = specs
        .iter()
        .enumerate()
        .flat_map(|(i, spec)| pieces(spec).map(move |bytes| (i, bytes)))
        .collect();
    let next = AtomicUsize::new(0);
    let first_bad = Mutex::new(None);
    let look = || {
        while let Some(&(i, bytes)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !specs[i].quant.is_finite(bytes) {
                let mut first = first_bad.lock().unwrap_or_else(|e| e.into_inner());
                *first = Some(first.map_or(i, |other: usize| other.min(i)));
                return;
            }
            progress();
        }
    };
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    let done = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let done = other();
            look();
            done
        });
        for _ in 2..n_threads.min(pieces.len()) {
            scope.spawn(look);
        }
        look();
        other.join().unwrap_or_else(|e| resume_unwind(e))
    });
    let checked = match first_bad.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(i) => Err(error(&specs[i].name)),
        None => Ok(()),
    };
    (done, checked)
}

/// What is looked at of a weight, in whole blocks.
fn pieces(spec: &WeightSpec) -> impl Iterator<Item = &[u8]> {
    let row = spec.row_bytes();
    let block = spec.quant.block_bytes();
    let sampled = spec.n_experts > 1;
    spec.parts().flat_map(move |(rows, bytes)| {
        let wanted = if sampled { EXPERT_ROWS.min(rows) } else { 1 };
        let step = rows.div_ceil(wanted).max(1) * row;
        let taken = if sampled { row } else { rows * row };
        let starts = (0..bytes.len()).step_by(step.max(1));
        starts.flat_map(move |start| bytes[start..][..taken].chunks(PIECE.next_multiple_of(block)))
    })
}

/// That a tensor has such numbers.
pub(super) fn error(name: &str) -> Error {
    Error::Tensor(format!(
        "tensor {name} has numbers that are not finite: fetch or convert the model again"
    ))
}
