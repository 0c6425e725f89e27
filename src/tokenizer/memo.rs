//! Words that came before in the same text: text repeats itself, so most words are copied, not merged.

use std::collections::HashMap;
use std::ops::Range;

/// The ids of the words so far, as places in the ids of the text. It lives as long as one call, so
/// what a client sends takes no memory for longer.
#[derive(Default)]
pub(super) struct Memo<'t> {
    words: HashMap<&'t str, Range<usize>>,
}

impl<'t> Memo<'t> {
    /// Appends the ids of `word`, which depend on nothing else; `encode` appends them the first time.
    pub(super) fn encode(
        &mut self,
        word: &'t str,
        ids: &mut Vec<u32>,
        encode: impl FnOnce(&mut Vec<u32>),
    ) {
        if let Some(known) = self.words.get(word) {
            return ids.extend_from_within(known.clone());
        }
        let start = ids.len();
        encode(ids);
        self.words.insert(word, start..ids.len());
    }
}
