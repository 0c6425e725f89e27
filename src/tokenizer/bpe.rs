//! Byte-level BPE: each word's bytes, written in a printable alphabet, are merged by the `tokenizers` crate.

use std::sync::LazyLock;

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab as CrateVocab};
use tracing::warn;

use super::Error;
use super::memo::Memo;
use super::pre_tokenizer::PreTokenizer;
use super::split::{Splitter, parts};
use super::vocab::Vocab;
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
    model: BPE,
    /// Bytes that no entry stands for. They get no token, and nothing merges across them.
    missing: [bool; 256],
}

impl Bpe {
    pub(super) fn from_gguf(gguf: &Gguf, vocab: &Vocab, pre: &PreTokenizer) -> Result<Bpe, Error> {
        let missing = |c: char| vocab.find(c.encode_utf8(&mut [0; 4]).as_bytes()).is_none();
        let model = build(gguf, vocab, pre, false).or_else(|_| build(gguf, vocab, pre, true))?;
        Ok(Bpe {
            splitter: Splitter::new(pre.passes)?,
            model,
            missing: std::array::from_fn(|byte| missing(ALPHABET[byte])),
        })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode<'t>(&self, text: &'t str, memo: &mut Memo<'t>, ids: &mut Vec<u32>) {
        self.splitter.split(text, &mut |word| {
            memo.encode(word, ids, |ids| {
                parts(word).for_each(|part| self.encode_word(part, ids));
            });
        });
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        for run in word.as_bytes().split(|&b| self.missing[b as usize]) {
            let printable: String = run.iter().map(|&b| ALPHABET[b as usize]).collect();
            // Fails only for an unknown token that is not an entry, and none is set.
            let tokens = self.model.tokenize(&printable).unwrap_or_default();
            ids.extend(tokens.iter().map(|token| token.id));
        }
    }
}

/// The crate's model. Merges of what is no entry make it fail; `only_known` leaves them out, which
/// takes longer.
fn build(gguf: &Gguf, vocab: &Vocab, pre: &PreTokenizer, only_known: bool) -> Result<BPE, Error> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let lines = gguf.strings(MERGES).ok_or(Error::Missing(MERGES))?;
    let n = lines.len();
    let merges: Merges = lines
        .filter_map(split_merge)
        .filter(|(left, right)| !only_known || is_known(vocab, left, right))
        .map(|(left, right)| (left.into(), right.into()))
        .collect();
    if merges.len() < n {
        warn!(
            "{} of {n} `{MERGES}` merge nothing of the vocabulary",
            n - merges.len()
        );
    }
    // The crate's cache would keep what clients send; `Memo` takes its place.
    BPE::builder()
        .vocab_and_merges(entries(vocab), merges)
        .ignore_merges(pre.whole_words)
        .cache_capacity(0)
        .build()
        .map_err(|e| Error::Build(e.to_string()))
}

fn is_known(vocab: &Vocab, left: &str, right: &str) -> bool {
    [left, right, &format!("{left}{right}")]
        .iter()
        .all(|text| vocab.find(text.as_bytes()).is_some())
}

fn entries(vocab: &Vocab) -> CrateVocab {
    let mut entries = CrateVocab::with_capacity(vocab.len());
    // Backwards, so that of equal entries the first one stays.
    for id in (0..vocab.len() as u32).rev() {
        if let Ok(text) = std::str::from_utf8(vocab.text(id)) {
            entries.insert(text.into(), id);
        }
    }
    entries
}

/// The two sides of a merge; a space at the very start belongs to the left one.
fn split_merge(line: &[u8]) -> Option<(&str, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let at = line.bytes().skip(1).position(|b| b == b' ')? + 1;
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
