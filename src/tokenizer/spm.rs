//! SentencePiece-style tokenization: of all neighbours that make an entry, the best score merges first.

use super::Error;
use super::memo::Memo;
use super::merge::{Merge, Merger, Symbol};
use super::split::parts;
use super::vocab::{SPACE, SPACE_CHAR, Vocab};
use super::words::Words;
use crate::gguf::Gguf;

pub(super) struct Spm {
    /// What merges first, by token.
    priorities: Vec<u32>,
    /// The token of each byte, for characters without an entry.
    bytes: Vec<Option<u32>>,
    words: Words,
    space_prefix: bool,
}

impl Spm {
    /// `unknown` stands for bytes without an entry.
    pub(super) fn from_gguf(
        gguf: &Gguf,
        vocab: &Vocab,
        unknown: Option<u32>,
    ) -> Result<Spm, Error> {
        let scores = vocab.scores(gguf)?;
        let byte_token = |byte: u8| vocab.byte(byte).or_else(|| vocab.find(&[byte])).or(unknown);
        Ok(Spm {
            priorities: scores.into_iter().map(priority).collect(),
            bytes: (0..=255).map(byte_token).collect(),
            words: Words::new(vocab),
            space_prefix: gguf.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true),
        })
    }

    /// Starts on a text; its pieces then go through [`Session::encode`].
    pub(super) fn session<'a>(&'a self, vocab: &'a Vocab) -> Session<'a> {
        Session {
            spm: self,
            vocab,
            word: String::new(),
            merger: Merger::default(),
        }
    }
}

/// Tokenizes word after word, keeping its allocations.
pub(super) struct Session<'a> {
    spm: &'a Spm,
    vocab: &'a Vocab,
    /// The word with its spaces as entries have them.
    word: String,
    merger: Merger,
}

impl Session<'_> {
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
        self.spm.words.split(text, prefixed, |word| {
            self.encode_word(word, prefixed, memo, ids);
            prefixed = false;
        });
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
        self.merger.clear();
        for (start, c) in self.word.char_indices() {
            let len = c.len_utf8();
            let token = self.vocab.find(&self.word.as_bytes()[start..start + len]);
            self.merger.push(len, token);
        }
        let word = self.word.as_bytes();
        let merged = |left: &Symbol, right: &Symbol| {
            let len = left.len + right.len;
            let text = &word[left.start..left.start + len];
            let token = (len <= self.vocab.longest()).then(|| self.vocab.find(text))??;
            let priority = self.spm.priorities[token as usize];
            Some(Merge { token, priority })
        };
        for symbol in self.merger.merge(merged) {
            match symbol.token {
                Some(id) => ids.push(id),
                None => {
                    let bytes = &word[symbol.start..symbol.start + symbol.len];
                    ids.extend(bytes.iter().filter_map(|&b| self.spm.bytes[b as usize]));
                }
            }
        }
    }
}

/// A number for every score, in their order; both zeros are the same.
fn priority(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let is_negative = bits >> 31 == 1;
    if is_negative { !bits } else { bits | 1 << 31 }
}
