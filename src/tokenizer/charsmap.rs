//! SentencePiece's compiled normalisation: a trie of byte strings, each with its replacement.
//!
//! The trie is a double array of XOR-ed offsets as the library darts-clone lays it out, read as
//! llama.cpp and SentencePiece read it.

use super::Error;
use crate::gguf::Gguf;

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// Replacements of strings by what the model was trained with; none in an empty one.
#[derive(Default)]
pub(super) struct Charsmap {
    units: Vec<Unit>,
    /// Texts that end with a zero byte, by their place.
    replacements: Vec<u8>,
}

/// A node of the trie; the first is the root.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    /// What a child's place differs by from this node's, but for the child's byte.
    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & (1 << 9)) >> 6)) as usize
    }

    /// The byte that leads here; larger than a byte for a node with a value.
    fn label(self) -> u32 {
        self.0 & ((1 << 31) | 0xFF)
    }

    fn has_value(self) -> bool {
        self.0 & (1 << 8) != 0
    }

    /// Of the node that holds it: where the replacement is.
    fn value(self) -> usize {
        (self.0 & !(1 << 31)) as usize
    }
}

impl Charsmap {
    /// The file's map; the empty one where it has none.
    pub(super) fn from_gguf(gguf: &Gguf) -> Result<Charsmap, Error> {
        match gguf.bytes(CHARSMAP) {
            Some(bytes) => Charsmap::parse(bytes).ok_or(Error::Charsmap(CHARSMAP)),
            None if gguf.metadata().contains_key(CHARSMAP) => Err(Error::Charsmap(CHARSMAP)),
            None => Ok(Charsmap::default()),
        }
    }

    /// The size of the units in bytes, the units, the replacements.
    fn parse(bytes: &[u8]) -> Option<Charsmap> {
        let word = |b: &[u8]| Some(u32::from_le_bytes(b.try_into().ok()?));
        let (size, rest) = bytes.split_at_checked(4)?;
        let (units, replacements) = rest.split_at_checked(word(size)? as usize)?;
        let ends = replacements.last() == Some(&0);
        let units = units.chunks(4).map(|unit| word(unit).map(Unit));
        let units = units.collect::<Option<Vec<_>>>()?;
        ends.then(|| Charsmap {
            units,
            replacements: replacements.into(),
        })
    }

    /// The longest string of the map that `text` starts with: its length in bytes and what replaces
    /// it.
    pub(super) fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut node = self.units.first()?.offset();
        let mut longest = None;
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            node ^= byte as usize;
            let Some(unit) = self
                .units
                .get(node)
                .filter(|u| u.label() == u32::from(byte))
            else {
                break;
            };
            node ^= unit.offset();
            if unit.has_value() && text.is_char_boundary(at + 1) {
                longest = self.units.get(node).map(|holder| (at + 1, holder.value()));
            }
        }
        let (len, at) = longest?;
        let replacement = self.replacements.get(at..)?.split(|&b| b == 0).next()?;
        Some((len, std::str::from_utf8(replacement).ok()?))
    }
}
