//! The entries of a vocabulary: their texts, their kinds, and the way from a text to its id.

use std::hash::{BuildHasher, RandomState};

use tracing::warn;

use super::Error;
use crate::gguf::Gguf;

/// Stands for a space in vocabulary entries, but for those of byte-level vocabularies.
pub(super) const SPACE_CHAR: char = '\u{2581}';
pub(super) const SPACE: &str = "\u{2581}";

/// What an entry is, from `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    /// An entry without meaning, among them those whose type we do not know.
    Unused,
    Byte,
}

impl Kind {
    fn from_ggml(kind: i32) -> Kind {
        match kind {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            6 => Kind::Byte,
            _ => Kind::Unused,
        }
    }
}

/// Byte strings one after another in a single allocation, by id.
#[derive(Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    pub(super) fn with_capacity(n: usize) -> Texts {
        Texts {
            bytes: Vec::with_capacity(n * 8),
            ends: Vec::with_capacity(n),
        }
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
    }

    /// Empty for an id that was never pushed.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match self.ends.get(id) {
            Some(&end) => {
                let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
                &self.bytes[start..end]
            }
            None => &[],
        }
    }
}

/// Where an entry is found by the hash of its text. The half of the hash that did not choose the
/// place is kept, so that other texts are told apart without reading them.
#[derive(Clone, Copy)]
struct Slot {
    tag: u32,
    id: u32,
}

const FREE: u32 = u32::MAX;

/// A vocabulary. Looking a text up costs one hash and no allocation.
pub(super) struct Vocab {
    texts: Texts,
    kinds: Vec<Kind>,
    /// Open addressing over ids, at most half full. The hash is keyed, since texts come from a file.
    slots: Vec<Slot>,
    hasher: RandomState,
    longest: usize,
}

impl Vocab {
    pub(super) fn from_gguf(gguf: &Gguf) -> Result<Vocab, Error> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        const TYPES: &str = "tokenizer.ggml.token_type";
        let tokens = gguf.strings(TOKENS).ok_or(Error::Missing(TOKENS))?;
        let n = tokens.len();
        if n == 0 || n >= FREE as usize / 2 {
            return Err(Error::Length {
                key: TOKENS,
                len: n,
                tokens: n,
            });
        }
        let kinds = match gguf.n_items(TYPES) {
            None => vec![Kind::Normal; n],
            Some(_) => gguf
                .i32s(TYPES)
                .ok_or(Error::Missing(TYPES))?
                .into_iter()
                .map(Kind::from_ggml)
                .collect(),
        };
        if kinds.len() != n {
            return Err(Error::Length {
                key: TYPES,
                len: kinds.len(),
                tokens: n,
            });
        }
        Ok(Vocab::new(tokens, kinds))
    }

    /// A score for every entry.
    pub(super) fn scores(&self, gguf: &Gguf) -> Result<Vec<f32>, Error> {
        const SCORES: &str = "tokenizer.ggml.scores";
        let integers = || Some(gguf.i32s(SCORES)?.into_iter().map(|s| s as f32).collect());
        let scores: Vec<f32> = gguf
            .f32s(SCORES)
            .or_else(integers)
            .ok_or(Error::Missing(SCORES))?;
        if scores.len() != self.len() {
            return Err(Error::Length {
                key: SCORES,
                len: scores.len(),
                tokens: self.len(),
            });
        }
        Ok(scores)
    }

    fn new<'a>(tokens: impl ExactSizeIterator<Item = &'a [u8]>, kinds: Vec<Kind>) -> Vocab {
        let n = tokens.len();
        let mut vocab = Vocab {
            texts: Texts::with_capacity(n),
            kinds,
            slots: vec![Slot { tag: 0, id: FREE }; (n * 2).next_power_of_two()],
            hasher: RandomState::new(),
            longest: 0,
        };
        for (id, text) in (0..).zip(tokens) {
            let placeholder;
            let text = if text.is_empty() {
                // It would match everywhere.
                placeholder = format!("[EMPTY_{id}]");
                placeholder.as_bytes()
            } else {
                text
            };
            if let Err((at, tag)) = vocab.slot(text) {
                vocab.slots[at] = Slot { tag, id };
            }
            vocab.texts.push(text);
            vocab.longest = vocab.longest.max(text.len());
        }
        vocab
    }

    /// The id of a text, or where it belongs and under which tag.
    fn slot(&self, text: &[u8]) -> Result<u32, (usize, u32)> {
        let hash = self.hasher.hash_one(text);
        let tag = (hash >> 32) as u32;
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.id == FREE {
                return Err((at, tag));
            }
            if slot.tag == tag && self.texts.get(slot.id) == text {
                return Ok(slot.id);
            }
            at = (at + 1) & mask;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Bytes of the longest entry.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        self.slot(text).ok()
    }

    /// The entry of a byte, such as `<0x0A>`.
    pub(super) fn byte(&self, byte: u8) -> Option<u32> {
        self.find(format!("<0x{byte:02X}>").as_bytes())
    }

    pub(super) fn text(&self, id: u32) -> &[u8] {
        self.texts.get(id)
    }

    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    pub(super) fn set_kind(&mut self, id: u32, kind: Kind) {
        self.kinds[id as usize] = kind;
    }

    /// The token that a key of the file names, else `default`; ids outside the vocabulary count
    /// as absent.
    pub(super) fn named(&self, gguf: &Gguf, key: &str, default: Option<u32>) -> Option<u32> {
        match gguf.u32(key) {
            Some(id) if (id as usize) < self.len() => return Some(id),
            None if !gguf.metadata().contains_key(key) => {}
            _ => warn!("`{key}` is not an id of the vocabulary, ignored"),
        }
        default.filter(|&id| (id as usize) < self.len())
    }
}

/// The byte that an entry such as `<0x0A>` stands for.
pub(super) fn byte_value(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok()?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Appends an entry's bytes with spaces for what stands for them.
pub(super) fn unescape(text: &[u8], piece: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match rest.strip_prefix(SPACE.as_bytes()) {
            Some(behind) => {
                piece.push(b' ');
                behind
            }
            None => {
                piece.push(byte);
                tail
            }
        };
    }
}
