//! BPE: each word's bytes, or its characters, are merged by the `tokenizers` crate, by the ranks of the file.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::panic::resume_unwind;
use std::sync::LazyLock;
use std::thread;

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab as Entries};
use tracing::warn;

use super::Error;
use super::memo::Memo;
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
    model: BPE,
    alphabet: Alphabet,
    /// Whether a word that is an entry is taken whole, without looking at merges.
    whole_words: bool,
    /// Whether capital letters become small ones first.
    lowercase: bool,
    /// Whether a byte's printable character is an entry.
    known: [bool; 256],
    /// The entry of each byte such as `<0x0A>`, for text.
    bytes: [Option<u32>; 256],
}

impl Bpe {
    pub(super) fn from_gguf(gguf: &Gguf, vocab: &Vocab, pre: &PreTokenizer) -> Result<Bpe, Error> {
        let is_text = matches!(pre.alphabet, Alphabet::Text { .. });
        let byte = |byte| is_text.then(|| vocab.byte(byte)).flatten();
        Ok(Bpe {
            splitter: Splitter::new(pre.passes)?,
            model: model(gguf, vocab)?,
            alphabet: pre.alphabet,
            whole_words: pre.whole_words,
            lowercase: pre.alphabet == Alphabet::Words
                && gguf.bool("tokenizer.ggml.normalizer.lowercase") == Some(true),
            known: std::array::from_fn(|byte| is_entry(vocab, ALPHABET[byte])),
            bytes: std::array::from_fn(|b| byte(b as u8)),
        })
    }

    /// Starts on a text; its pieces then go through [`Session::encode`].
    pub(super) fn session<'a>(&'a self, vocab: &'a Vocab) -> Session<'a> {
        Session {
            bpe: self,
            vocab,
            run: String::new(),
        }
    }
}

fn is_entry(vocab: &Vocab, c: char) -> bool {
    vocab.find(c.encode_utf8(&mut [0; 4]).as_bytes()).is_some()
}

/// Tokenizes word after word, keeping its allocations.
pub(super) struct Session<'a> {
    bpe: &'a Bpe,
    vocab: &'a Vocab,
    /// Characters as entries write them, each an entry: nothing merges across another one.
    run: String,
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
        if is_whole && let Some(id) = self.whole(word) {
            return ids.push(id);
        }
        for part in parts(word) {
            match self.bpe.alphabet {
                Alphabet::Bytes => self.read_bytes(part, ids),
                Alphabet::Text { .. } => self.read_text(part, ids),
                Alphabet::Words => self.read_characters(part, ids),
            }
            self.merge(ids);
        }
    }

    /// The entry that a word is.
    fn whole(&mut self, word: &str) -> Option<u32> {
        if self.bpe.alphabet != Alphabet::Bytes {
            return self.vocab.find(word.as_bytes());
        }
        self.run.extend(word.bytes().map(|b| ALPHABET[b as usize]));
        let id = self.vocab.find(self.run.as_bytes());
        self.run.clear();
        id
    }

    /// Bytes without an entry get no token.
    fn read_bytes(&mut self, word: &str, ids: &mut Vec<u32>) {
        for byte in word.bytes() {
            match self.bpe.known[byte as usize] {
                true => self.run.push(ALPHABET[byte as usize]),
                false => self.merge(ids),
            }
        }
    }

    /// Neither white space nor characters without an entry get a token.
    fn read_characters(&mut self, word: &str, ids: &mut Vec<u32>) {
        for c in word.chars() {
            match !c.is_whitespace() && is_entry(self.vocab, c) {
                true => self.run.push(c),
                false => self.merge(ids),
            }
        }
    }

    /// Characters without an entry are written in bytes.
    fn read_text(&mut self, word: &str, ids: &mut Vec<u32>) {
        for c in word.chars() {
            let c = if c == ' ' { SPACE_CHAR } else { c };
            if is_entry(self.vocab, c) {
                self.run.push(c);
                continue;
            }
            self.merge(ids);
            let mut utf8 = [0; 4];
            let bytes = c.encode_utf8(&mut utf8).bytes();
            ids.extend(bytes.filter_map(|b| self.bpe.bytes[b as usize]));
        }
    }

    /// Appends the tokens of the run, and starts the next one.
    fn merge(&mut self, ids: &mut Vec<u32>) {
        // Fails only for an unknown token that is not an entry, and none is set.
        let tokens = self.bpe.model.tokenize(&self.run).unwrap_or_default();
        ids.extend(tokens.iter().map(|token| token.id));
        self.run.clear();
    }
}

const MERGES: &str = "tokenizer.ggml.merges";

/// The crate's model. It takes no merges of what is no entry, so where a file has such, they are left
/// out, and so are repeated ones, of which the first counts.
fn model(gguf: &Gguf, vocab: &Vocab) -> Result<BPE, Error> {
    let lines = gguf.strings(MERGES).ok_or(Error::Missing(MERGES))?;
    let n = lines.len();
    let split = || lines.clone().filter_map(split_merge);
    let (all, merges) = thread::scope(|scope| {
        let all = scope.spawn(|| entries(vocab));
        let merges = (!any_repeats(lines.clone())).then(|| owned(split()));
        let all = all.join().unwrap_or_else(|e| resume_unwind(e));
        (all, merges)
    });
    if let Some(merges) = merges.filter(|merges| merges.len() == n)
        && let Ok(model) = build(all, merges)
    {
        return Ok(model);
    }
    let merges = useful(split(), vocab);
    let n_useless = n - merges.len();
    warn!("{n_useless} of {n} `{MERGES}` merge nothing of the vocabulary");
    build(entries(vocab), owned(merges.into_iter()))
}

fn any_repeats<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let hasher = RandomState::new();
    let mut hashes: Vec<u64> = lines.map(|line| hasher.hash_one(line)).collect();
    hashes.sort_unstable();
    hashes.windows(2).any(|pair| pair[0] == pair[1])
}

/// The merges of entries to entries, each once.
fn useful<'a>(
    merges: impl Iterator<Item = (&'a str, &'a str)>,
    vocab: &Vocab,
) -> Vec<(&'a str, &'a str)> {
    let mut seen = HashSet::new();
    let mut whole = String::new();
    let mut is_useful = |&(left, right): &(&str, &str)| {
        whole.clear();
        whole.extend([left, right]);
        let id = |text: &str| vocab.find(text.as_bytes());
        let (Some(left), Some(right), Some(_)) = (id(left), id(right), id(&whole)) else {
            return false;
        };
        seen.insert((left, right))
    };
    merges.filter(|merge| is_useful(merge)).collect()
}

fn owned<'a>(merges: impl Iterator<Item = (&'a str, &'a str)>) -> Merges {
    merges.map(|(a, b)| (a.into(), b.into())).collect()
}

fn build(entries: Entries, merges: Merges) -> Result<BPE, Error> {
    // The crate's cache would keep what clients send; `Memo` takes its place.
    BPE::builder()
        .vocab_and_merges(entries, merges)
        .cache_capacity(0)
        .build()
        .map_err(|e| Error::Build(e.to_string()))
}

fn entries(vocab: &Vocab) -> Entries {
    let mut entries = Entries::with_capacity(vocab.len());
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
