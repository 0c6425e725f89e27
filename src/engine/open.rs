//! What a model's file holds, read before a device is chosen.

use std::sync::Arc;

use super::Error;
use crate::gguf::{Gguf, Lora};
use crate::model::Model;
use crate::tokenizer::Tokenizer;

/// The vocabulary and the model of a file, side by side: each is work of some tens of milliseconds
/// for one processor, to build tables of words, or to look at all weights. The first takes longer and
/// is not shared out, so it begins first.
///
/// Calls `progress` as [`Model::load_beside`] does.
///
/// # Errors
/// [`Error::File`] names what is wrong with the vocabulary; else those of [`Model::load_beside`].
pub fn open(
    gguf: &Arc<Gguf>,
    adapters: &[Lora],
    progress: &(dyn Fn() + Sync),
) -> Result<(Tokenizer, Model), Error> {
    let vocabulary = || Tokenizer::from_gguf(gguf);
    let (tokenizer, model) = Model::load_beside(gguf, adapters, progress, vocabulary)?;
    let tokenizer = tokenizer.map_err(|e| Error::File(e.to_string()))?;
    Ok((tokenizer, model))
}
