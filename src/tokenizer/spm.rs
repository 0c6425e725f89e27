//! SentencePiece-style tokenization: of all neighbours that make an entry, the best score merges first.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap};

use super::Error;
use super::memo::Memo;
use super::split::parts;
use super::vocab::{SPACE, SPACE_CHAR, Vocab};
use crate::gguf::Gguf;

pub(super) struct Spm {
    scores: Vec<f32>,
    /// The token of each byte, for characters without an entry.
    bytes: Vec<Option<u32>>,
    /// Characters that come right before a space inside some entry. Behind any other character a
    /// space starts a new word: no entry, so no merge, reaches across.
    before_space: BTreeSet<char>,
    space_prefix: bool,
}

impl Spm {
    /// `unknown` stands for bytes without an entry.
    pub(super) fn from_gguf(
        gguf: &Gguf,
        vocab: &Vocab,
        unknown: Option<u32>,
    ) -> Result<Spm, Error> {
        const SCORES: &str = "tokenizer.ggml.scores";
        let integers = || Some(gguf.i32s(SCORES)?.into_iter().map(|s| s as f32).collect());
        let scores: Vec<f32> = gguf
            .f32s(SCORES)
            .or_else(integers)
            .ok_or(Error::Missing(SCORES))?;
        if scores.len() != vocab.len() {
            return Err(Error::Length {
                key: SCORES,
                len: scores.len(),
                tokens: vocab.len(),
            });
        }
        let byte_token = |byte: u8| {
            let named = vocab.find(format!("<0x{byte:02X}>").as_bytes());
            named.or_else(|| vocab.find(&[byte])).or(unknown)
        };
        Ok(Spm {
            // Both zeros rank the same.
            scores: scores.into_iter().map(|s| s + 0.0).collect(),
            bytes: (0..=255).map(byte_token).collect(),
            before_space: before_space(vocab),
            space_prefix: gguf.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true),
        })
    }

    /// Starts on a text; its pieces then go through [`Merger::encode`].
    pub(super) fn merger<'a>(&'a self, vocab: &'a Vocab) -> Merger<'a> {
        Merger {
            spm: self,
            vocab,
            word: String::new(),
            symbols: Vec::new(),
            queue: BinaryHeap::new(),
        }
    }

    /// Whether no merge reaches across the space behind `before`.
    fn starts_word(&self, before: &str, prefixed: bool) -> bool {
        let prefix = prefixed.then_some(SPACE_CHAR);
        match before.chars().next_back().or(prefix) {
            Some(' ') => !self.before_space.contains(&SPACE_CHAR),
            Some(c) => !self.before_space.contains(&c),
            None => false,
        }
    }
}

fn before_space(vocab: &Vocab) -> BTreeSet<char> {
    let mut before = BTreeSet::new();
    for id in 0..vocab.len() as u32 {
        let text = String::from_utf8_lossy(vocab.text(id));
        let inner = text.match_indices(SPACE).map(|(at, _)| &text[..at]);
        before.extend(inner.filter_map(|head| head.chars().next_back()));
    }
    before
}

const NONE: usize = usize::MAX;

/// A stretch of the word, linked to its neighbours; `len` is 0 once it is part of the one before.
struct Symbol {
    start: usize,
    len: usize,
    before: usize,
    next: usize,
    token: Option<u32>,
}

/// Two neighbours that together are `token`.
struct Pair {
    score: f32,
    left: usize,
    len: usize,
    token: u32,
}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> Ordering {
        let key = |pair: &Pair| Reverse(pair.left);
        self.score
            .total_cmp(&other.score)
            .then_with(|| key(self).cmp(&key(other)))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

/// Merges word after word, keeping its allocations.
pub(super) struct Merger<'a> {
    spm: &'a Spm,
    vocab: &'a Vocab,
    /// The word with its spaces as entries have them.
    word: String,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
}

impl Merger<'_> {
    /// Appends the ids of a text without special tokens; `first` says that it stands at the start
    /// or behind a special token, where a vocabulary may want a space in front.
    pub(super) fn encode<'t>(
        &mut self,
        text: &'t str,
        first: bool,
        memo: &mut Memo<'t>,
        ids: &mut Vec<u32>,
    ) {
        let mut prefixed = first && self.spm.space_prefix;
        let mut start = 0;
        for (at, _) in text.match_indices([' ', SPACE_CHAR]) {
            if self.spm.starts_word(&text[start..at], prefixed) {
                self.encode_word(&text[start..at], prefixed, memo, ids);
                (start, prefixed) = (at, false);
            }
        }
        self.encode_word(&text[start..], prefixed, memo, ids);
    }

    fn encode_word<'t>(
        &mut self,
        word: &'t str,
        prefixed: bool,
        memo: &mut Memo<'t>,
        ids: &mut Vec<u32>,
    ) {
        if prefixed {
            self.merge_parts(SPACE, word, ids);
        } else {
            memo.encode(word, ids, |ids| self.merge_parts("", word, ids));
        }
    }

    fn merge_parts(&mut self, prefix: &str, word: &str, ids: &mut Vec<u32>) {
        self.word.push_str(prefix);
        for part in parts(word) {
            self.merge_word(part, ids);
            self.word.clear();
        }
    }

    /// Merges what is in `self.word` and `word` behind it.
    fn merge_word(&mut self, word: &str, ids: &mut Vec<u32>) {
        let escape = |c| if c == ' ' { SPACE_CHAR } else { c };
        self.word.extend(word.chars().map(escape));
        self.start();
        while let Some(pair) = self.queue.pop() {
            self.merge(&pair);
        }
        let word = self.word.as_bytes();
        for symbol in self.symbols.iter().filter(|s| s.len > 0) {
            match symbol.token {
                Some(id) => ids.push(id),
                None => {
                    let bytes = &word[symbol.start..symbol.start + symbol.len];
                    ids.extend(bytes.iter().filter_map(|&b| self.spm.bytes[b as usize]));
                }
            }
        }
    }

    fn start(&mut self) {
        self.symbols.clear();
        for (i, (start, c)) in self.word.char_indices().enumerate() {
            let len = c.len_utf8();
            self.symbols.push(Symbol {
                start,
                len,
                before: i.wrapping_sub(1),
                next: i + 1,
                token: self.vocab.find(&self.word.as_bytes()[start..start + len]),
            });
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
        for left in 1..self.symbols.len() {
            self.consider(left - 1, left);
        }
    }

    fn consider(&mut self, left: usize, right: usize) {
        if left == NONE || right == NONE {
            return;
        }
        let start = self.symbols[left].start;
        let len = self.symbols[left].len + self.symbols[right].len;
        if len > self.vocab.longest() {
            return;
        }
        let text = &self.word.as_bytes()[start..start + len];
        if let Some(token) = self.vocab.find(text) {
            self.queue.push(Pair {
                score: self.spm.scores[token as usize],
                left,
                len,
                token,
            });
        }
    }

    fn merge(&mut self, pair: &Pair) {
        let Symbol {
            len, before, next, ..
        } = self.symbols[pair.left];
        // A pair is out of date once either side has grown or is gone.
        if len == 0 || next == NONE || len + self.symbols[next].len != pair.len {
            return;
        }
        let behind = self.symbols[next].next;
        self.symbols[next].len = 0;
        let left = &mut self.symbols[pair.left];
        left.len = pair.len;
        left.next = behind;
        left.token = Some(pair.token);
        if behind != NONE {
            self.symbols[behind].before = pair.left;
        }
        self.consider(before, pair.left);
        self.consider(pair.left, behind);
    }
}
