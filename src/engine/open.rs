//! What a model's file holds, read before a device is chosen.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use super::Error;
use crate::gguf::{Gguf, Lora};
use crate::model::Model;
use crate::tokenizer::Tokenizer;

/// The vocabulary and the model of a file, side by side: each is work of some tens of milliseconds
/// for one processor, to build tables of words, or to look at all weights.
///
/// Calls `progress` as [`Model::load_watched`] does.
///
/// # Errors
/// [`Error::File`] names what is wrong with the vocabulary; else those of [`Model::load_watched`].
pub fn open(
    gguf: &Arc<Gguf>,
    adapters: &[Lora],
    progress: &(dyn Fn() + Sync),
) -> Result<(Tokenizer, Model), Error> {
    let (tokenizer, model) = thread::scope(|scope| {
        let tokenizer = scope.spawn(|| Tokenizer::from_gguf(gguf));
        let model = Model::load_watched(gguf, adapters, progress);
        let tokenizer = tokenizer.join().unwrap_or_else(|e| resume_unwind(e));
        (tokenizer, model)
    });
    let tokenizer = tokenizer.map_err(|e| Error::File(e.to_string()))?;
    Ok((tokenizer, model?))
}
