//! Text to token ids and back, from the vocabulary inside a GGUF file, token for token as llama.cpp does it.

mod bpe;
mod end;
mod memo;
mod pre_tokenizer;
mod special;
mod split;
mod spm;
#[cfg(test)]
mod tests;
mod vocab;

use std::collections::BTreeSet;

use thiserror::Error;

use crate::gguf::Gguf;
use bpe::Bpe;
use memo::Memo;
use special::{Fragment, Specials};
use spm::Spm;
use vocab::{Kind, Texts, Vocab};

/// Why a file's vocabulary cannot be used.
#[derive(Debug, Error)]
pub enum Error {
    #[error("the file has no `{0}`: its vocabulary is incomplete, convert the model again")]
    Missing(&'static str),
    #[error("`{key}` has {len} entries for a vocabulary of {tokens}: convert the model again")]
    Length {
        key: &'static str,
        len: usize,
        tokens: usize,
    },
    #[error("tokenizer model `{0}` is not supported (supported: gpt2, llama)")]
    Model(String),
    #[error("pre-tokenizer `{name}` is not supported (supported: {supported})")]
    Pre { name: String, supported: String },
    #[error(
        "prompts of this model get a token (`{flag}`) that `{key}` does not name: convert the model again"
    )]
    NoToken {
        flag: &'static str,
        key: &'static str,
    },
    #[error("cannot build the tokenizer: {0}")]
    Build(String),
}

const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

enum Algorithm {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
}

/// A model's tokenizer. Ids outside the vocabulary are harmless everywhere: they have no text.
pub struct Tokenizer {
    vocab: Vocab,
    pieces: Texts,
    algorithm: Algorithm,
    /// Tokens recognised in text whose special tokens are parsed, and in text where they are not.
    parsed: Specials,
    literal: Specials,
    bos: Option<u32>,
    eos: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
    ends: BTreeSet<u32>,
}

impl Tokenizer {
    /// Builds the tokenizer from `tokenizer.ggml.*`.
    ///
    /// Token ids that point outside the vocabulary count as absent. Errors name the key that is
    /// missing or wrong, or the tokenizer model or pre-tokenizer that is not supported.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, Error> {
        let is_spm = match gguf.str("tokenizer.ggml.model") {
            Some("gpt2") => false,
            Some("llama") => true,
            Some(other) => return Err(Error::Model(other.into())),
            None => return Err(Error::Missing("tokenizer.ggml.model")),
        };
        let mut vocab = Vocab::from_gguf(gguf)?;
        // SentencePiece's own order of its special entries; byte-level vocabularies have none.
        let default = |id: u32| (is_spm && (id as usize) < vocab.len()).then_some(id);
        let bos = vocab.named(gguf, BOS, default(1));
        let eos = vocab.named(gguf, EOS, default(2));
        let unknown = vocab.named(gguf, "tokenizer.ggml.unknown_token_id", default(0));
        let ends = end::tokens(gguf, &mut vocab, eos);
        let (algorithm, prompts_start_with_bos) = if is_spm {
            let spm = Spm::from_gguf(gguf, &vocab, unknown)?;
            (Algorithm::Spm(Box::new(spm)), true)
        } else {
            let name = gguf.str("tokenizer.ggml.pre").unwrap_or("default");
            let pre = pre_tokenizer::by_name(name)?;
            let bpe = Bpe::from_gguf(gguf, &vocab, pre)?;
            (Algorithm::Bpe(Box::new(bpe)), pre.adds_bos)
        };
        let trims = special::trims_after(gguf);
        let markup = |kind| matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown);
        Ok(Tokenizer {
            pieces: pieces(&vocab, is_spm),
            parsed: Specials::new(&vocab, trims, markup),
            literal: Specials::new(&vocab, trims, |kind| kind == Kind::UserDefined),
            vocab,
            algorithm,
            bos,
            eos,
            adds_bos: adds(gguf, ADD_BOS, prompts_start_with_bos, BOS, bos)?,
            adds_eos: adds(gguf, ADD_EOS, false, EOS, eos)?,
            ends,
        })
    }

    /// Token ids of `text`, as llama.cpp's `llama_tokenize`.
    ///
    /// `add_special` puts the beginning-of-sequence token in front (and the end-of-sequence token
    /// behind) where the vocabulary asks for it; `parse_special` recognises control tokens written
    /// in the text, which only a rendered prompt may do. User-defined tokens are always recognised.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        if add_special && self.adds_bos {
            ids.extend(self.bos);
        }
        let specials = if parse_special {
            &self.parsed
        } else {
            &self.literal
        };
        let mut memo = Memo::default();
        match &self.algorithm {
            Algorithm::Bpe(bpe) => {
                specials.partition(&self.vocab, text, |fragment| match fragment {
                    Fragment::Token(id) => ids.push(id),
                    Fragment::Text(text) => bpe.encode(text, &mut memo, &mut ids),
                })
            }
            Algorithm::Spm(spm) => {
                let mut merger = spm.merger(&self.vocab);
                let mut first = true;
                specials.partition(&self.vocab, text, |fragment| {
                    match fragment {
                        Fragment::Token(id) => ids.push(id),
                        Fragment::Text(text) => merger.encode(text, first, &mut memo, &mut ids),
                    }
                    first = matches!(fragment, Fragment::Token(_));
                });
            }
        }
        if add_special && self.adds_eos {
            ids.extend(self.eos);
        }
        ids
    }

    /// The bytes a token stands for, not always whole characters; special tokens give their text.
    /// Unused tokens and ids outside the vocabulary are empty.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.get(id)
    }

    /// The tokens' text put together, what is not UTF-8 replaced by U+FFFD. Without `special`,
    /// control and unknown tokens render as nothing.
    pub fn decode(&self, ids: &[u32], special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if special || !self.is_control(id) {
                bytes.extend_from_slice(self.token_bytes(id));
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        }
    }

    /// Whether the model ends its answer with this token: the end-of-sequence, end-of-turn and
    /// end-of-message ids, and the texts that mark an end in well-known vocabularies.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// Whether the token is markup rather than text: of type control or unknown.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.vocab.kind(id), Kind::Control | Kind::Unknown)
    }

    /// The beginning-of-sequence token, where the vocabulary has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-sequence token, where the vocabulary has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether `encode` with `add_special` puts `bos` in front.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Entries of the vocabulary; every id is below it.
    pub fn n_vocab(&self) -> usize {
        self.vocab.len()
    }

    /// The vocabulary entry as written in the file (for byte-level vocabularies in their printable
    /// alphabet); `None` outside the vocabulary and for an entry that is not UTF-8.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        let inside = (id as usize) < self.vocab.len();
        inside.then(|| std::str::from_utf8(self.vocab.text(id)).ok())?
    }

    /// The id of a vocabulary entry as written in the file; the first one if it occurs twice.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocab.find(text.as_bytes())
    }
}

/// Whether a prompt gets the token `id`, by the flag of the file.
fn adds(
    gguf: &Gguf,
    flag: &'static str,
    default: bool,
    key: &'static str,
    id: Option<u32>,
) -> Result<bool, Error> {
    match gguf.bool(flag).unwrap_or(default) {
        true if id.is_none() => Err(Error::NoToken { flag, key }),
        set => Ok(set),
    }
}

/// The bytes that each token renders as.
fn pieces(vocab: &Vocab, is_spm: bool) -> Texts {
    let mut pieces = Texts::with_capacity(vocab.len());
    let mut piece = Vec::new();
    for id in 0..vocab.len() as u32 {
        let text = vocab.text(id);
        piece.clear();
        match vocab.kind(id) {
            Kind::Control | Kind::Unknown | Kind::UserDefined => piece.extend_from_slice(text),
            Kind::Normal if is_spm => spm::unescape(text, &mut piece),
            Kind::Normal => bpe::to_bytes(text, &mut piece),
            Kind::Byte => match vocab::byte_value(text) {
                Some(byte) => piece.push(byte),
                None => piece.extend_from_slice(text),
            },
            Kind::Unused => {}
        }
        pieces.push(&piece);
    }
    pieces
}
