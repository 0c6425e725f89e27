//! BPE: each word's bytes, or its characters, are merged by the ranks of the file.

use std::collections::HashMap;
use std::sync::LazyLock;

use tracing::warn;

use super::Error;
use super::memo::Memo;
use super::merge::{Merge, Merger, Symbol};
use super::pre_tokenizer::{Alphabet, PreTokenizer};
use super::split::{Splitter, parts};
use super::vocab::{SPACE_CHAR, Vocab};
use crate::gguf::Gguf;

/// The printable character of every byte, as GPT-2 has it: printable Latin-1 is itself, the other
/// bytes follow from U+0100 in their order.
static ALPHABET: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100..;
    std::array::from_fn(|byte| match byte as u8 {
        b @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..) => b as char,
        _ => next.next().and_then(char::from_u32).unwrap_or_default(),
    })
});

/// The byte of every character of [`ALPHABET`], by code point.
static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut bytes = [None; 0x144];
    for (byte, &c) in (0..=255).zip(ALPHABET.iter()) {
        bytes[c as usize] = Some(byte);
    }
    bytes
});

/// Appends the bytes of an entry; characters outside the alphabet stand for themselves.
pub(super) fn to_bytes(entry: &[u8], piece: &mut Vec<u8>) {
    let Ok(text) = std::str::from_utf8(entry) else {
        return piece.extend_from_slice(entry);
    };
    for c in text.chars() {
        match BYTES.get(c as usize) {
            Some(&Some(byte)) => piece.push(byte),
            _ => piece.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

pub(super) struct Bpe {
    splitter: Splitter,
    merges: HashMap<(u32, u32), Merge>,
    alphabet: Alphabet,
    /// Whether a word that is an entry is taken whole, without looking at merges.
    whole_words: bool,
    /// Whether capital letters become small ones first.
    lowercase: bool,
    /// The entry of each byte's printable character, or for text the one such as `<0x0A>`. A byte
    /// without one gets no token, and nothing merges across it.
    bytes: [Option<u32>; 256],
}

impl Bpe {
    pub(super) fn from_gguf(gguf: &Gguf, vocab: &Vocab, pre: &PreTokenizer) -> Result<Bpe, Error> {
        let printable = |c: char| vocab.find(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(Bpe {
            splitter: Splitter::new(pre.passes)?,
            merges: merges(gguf, vocab)?,
            alphabet: pre.alphabet,
            whole_words: pre.whole_words,
            lowercase: pre.alphabet == Alphabet::Words
                && gguf.bool("tokenizer.ggml.normalizer.lowercase") == Some(true),
            bytes: std::array::from_fn(|byte| match pre.alphabet {
                Alphabet::Bytes => printable(ALPHABET[byte]),
                Alphabet::Text { .. } => vocab.byte(byte as u8),
                Alphabet::Words => None,
            }),
        })
    }

    /// Starts on a text; its pieces then go through [`Session::encode`].
    pub(super) fn session<'a>(&'a self, vocab: &'a Vocab) -> Session<'a> {
        Session {
            bpe: self,
            vocab,
            word: String::new(),
            merger: Merger::default(),
        }
    }
}

/// Tokenizes word after word, keeping its allocations.
pub(super) struct Session<'a> {
    bpe: &'a Bpe,
    vocab: &'a Vocab,
    /// The word as entries write it.
    word: String,
    merger: Merger,
}

impl Session<'_> {
    /// Appends the ids of a text without special tokens.
    pub(super) fn encode<'t>(&mut self, text: &'t str, memo: &mut Memo<'t>, ids: &mut Vec<u32>) {
        if !self.bpe.lowercase {
            return self.encode_words(text, memo, ids);
        }
        // One character for one, as llama.cpp has it.
        let small = |c: char| {
            let mut small = c.to_lowercase();
            if small.len() == 1 {
                small.next().unwrap_or(c)
            } else {
                c
            }
        };
        let text: String = text.chars().map(small).collect();
        self.encode_words(&text, &mut Memo::default(), ids);
    }

    fn encode_words<'t>(&mut self, text: &'t str, memo: &mut Memo<'t>, ids: &mut Vec<u32>) {
        let bpe = self.bpe;
        bpe.splitter.split(text, &mut |word| {
            memo.encode(word, ids, |ids| self.encode_word(word, ids));
        });
    }

    fn encode_word(&mut self, word: &str, ids: &mut Vec<u32>) {
        let is_whole = match self.bpe.alphabet {
            Alphabet::Bytes => self.bpe.whole_words,
            Alphabet::Text { line_breaks } => line_breaks && word.starts_with('\n'),
            Alphabet::Words => false,
        };
        if is_whole {
            self.word.clear();
            match self.bpe.alphabet {
                Alphabet::Bytes => self.word.extend(word.bytes().map(|b| ALPHABET[b as usize])),
                Alphabet::Text { .. } | Alphabet::Words => self.word.push_str(word),
            }
            if let Some(id) = self.vocab.find(self.word.as_bytes()) {
                return ids.push(id);
            }
        }
        for part in parts(word) {
            match self.bpe.alphabet {
                Alphabet::Bytes => self.merge_bytes(part, ids),
                Alphabet::Text { .. } => self.merge_text(part, ids),
                Alphabet::Words => self.merge_characters(part, ids),
            }
        }
    }

    fn merge_bytes(&mut self, word: &str, ids: &mut Vec<u32>) {
        self.merger.clear();
        for byte in word.bytes() {
            self.merger.push(1, self.bpe.bytes[byte as usize]);
        }
        let symbols = self.merger.merge(|a, b| self.bpe.merged(a, b));
        ids.extend(symbols.filter_map(|symbol| symbol.token));
    }

    fn merge_characters(&mut self, word: &str, ids: &mut Vec<u32>) {
        self.merger.clear();
        for c in word.chars() {
            let entry = self.vocab.find(c.encode_utf8(&mut [0; 4]).as_bytes());
            self.merger.push(1, entry.filter(|_| !c.is_whitespace()));
        }
        let symbols = self.merger.merge(|a, b| self.bpe.merged(a, b));
        ids.extend(symbols.filter_map(|symbol| symbol.token));
    }

    fn merge_text(&mut self, word: &str, ids: &mut Vec<u32>) {
        self.merger.clear();
        for c in word.chars() {
            let c = if c == ' ' { SPACE_CHAR } else { c };
            let mut utf8 = [0; 4];
            match self.vocab.find(c.encode_utf8(&mut utf8).as_bytes()) {
                Some(id) => self.merger.push(1, Some(id)),
                None => {
                    let bytes = utf8[..c.len_utf8()].iter();
                    let bytes = bytes.filter_map(|&b| self.bpe.bytes[b as usize]);
                    bytes.for_each(|id| self.merger.push(1, Some(id)));
                }
            }
        }
        let symbols = self.merger.merge(|a, b| self.bpe.merged(a, b));
        ids.extend(symbols.filter_map(|symbol| symbol.token));
    }
}

impl Bpe {
    fn merged(&self, left: &Symbol, right: &Symbol) -> Option<Merge> {
        self.merges.get(&(left.token?, right.token?)).copied()
    }
}

/// The table of merges; those of what is no entry are left out.
fn merges(gguf: &Gguf, vocab: &Vocab) -> Result<HashMap<(u32, u32), Merge>, Error> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let lines = gguf.strings(MERGES).ok_or(Error::Missing(MERGES))?;
    let n = lines.len();
    let mut merges = HashMap::with_capacity(n);
    let mut whole = Vec::new();
    let mut n_useless = 0;
    // The first of equal merges counts.
    for (line, priority) in lines.zip((0..u32::MAX).rev()) {
        let known = split_merge(line).and_then(|(left, right)| {
            whole.clear();
            whole.extend_from_slice(left);
            whole.extend_from_slice(right);
            let token = vocab.find(&whole)?;
            Some(((vocab.find(left)?, vocab.find(right)?), token))
        });
        match known {
            Some((pair, token)) => {
                merges.entry(pair).or_insert(Merge { token, priority });
            }
            None => n_useless += 1,
        }
    }
    if n_useless > 0 {
        warn!("{n_useless} of {n} `{MERGES}` merge nothing of the vocabulary");
    }
    Ok(merges)
}

/// The two sides of a merge; a space at the very start belongs to the left one.
fn split_merge(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().skip(1).position(|&b| b == b' ')? + 1;
    Some((&line[..at], &line[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_covers_every_byte_once() {
        for byte in 0..=255u8 {
            let mut piece = Vec::new();
            let c = ALPHABET[byte as usize];
            to_bytes(c.to_string().as_bytes(), &mut piece);
            assert_eq!(piece, [byte]);
        }
        assert_eq!(ALPHABET[usize::from(b' ')], '\u{120}');
        assert_eq!(ALPHABET[usize::from(b'\n')], '\u{10A}');
    }
}
