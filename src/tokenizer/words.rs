//! Words of vocabularies that write spaces in their entries: stretches that no entry reaches across.

use std::collections::BTreeSet;

use super::vocab::{SPACE, SPACE_CHAR, Vocab};

pub(super) struct Words {
    /// Characters that come right before a space inside some entry. Behind any other character a
    /// space starts a new word: no entry, so no merge, reaches across.
    before_space: BTreeSet<char>,
}

impl Words {
    pub(super) fn new(vocab: &Vocab) -> Words {
        let mut before_space = BTreeSet::new();
        for id in 0..vocab.len() as u32 {
            let text = String::from_utf8_lossy(vocab.text(id));
            let inner = text.match_indices(SPACE).map(|(at, _)| &text[..at]);
            before_space.extend(inner.filter_map(|head| head.chars().next_back()));
        }
        Words { before_space }
    }

    /// Calls `word` with the words of a text, in order; together they are the text. `prefixed`
    /// says that a space will be put in front of it.
    pub(super) fn split<'t>(&self, text: &'t str, prefixed: bool, mut word: impl FnMut(&'t str)) {
        let mut start = 0;
        for (at, _) in text.match_indices([' ', SPACE_CHAR]) {
            if self.starts(&text[start..at], prefixed && start == 0) {
                word(&text[start..at]);
                start = at;
            }
        }
        word(&text[start..]);
    }

    /// Whether no merge reaches across the space behind `before`.
    fn starts(&self, before: &str, prefixed: bool) -> bool {
        let prefix = prefixed.then_some(SPACE_CHAR);
        match before.chars().next_back().or(prefix) {
            Some(' ') => !self.before_space.contains(&SPACE_CHAR),
            Some(c) => !self.before_space.contains(&c),
            None => false,
        }
    }
}
