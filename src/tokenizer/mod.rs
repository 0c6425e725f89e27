//! Text to token ids and back, from the vocabulary inside a GGUF file, token for token as llama.cpp does it.

mod bpe;
mod charsmap;
mod end;
mod memo;
mod merge;
mod pre_tokenizer;
mod prefixes;
mod special;
mod split;
mod spm;
#[cfg(test)]
mod tests;
mod unigram;
mod vocab;
mod wordpiece;
mod words;

use std::collections::BTreeSet;

use thiserror::Error;

use crate::gguf::Gguf;
use bpe::Bpe;
use memo::Memo;
use pre_tokenizer::Alphabet;
use special::{Fragment, Specials, Trimming};
use spm::Spm;
use unigram::Unigram;
use vocab::{Kind, Texts, Vocab};
use wordpiece::WordPiece;

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
    #[error("tokenizer model `{name}` is not supported (supported: {supported})")]
    Model { name: String, supported: String },
    #[error("pre-tokenizer `{name}` is not supported (supported: {supported})")]
    Pre { name: String, supported: String },
    #[error(
        "prompts of this model get a token (`{flag}`) that `{key}` does not name: convert the model again"
    )]
    NoToken {
        flag: &'static str,
        key: &'static str,
    },
    #[error("`{0}` is no table of replacements: convert the model again")]
    Charsmap(&'static str),
    #[error("cannot build the tokenizer: {0}")]
    Build(String),
}

const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

const SEP: &str = "tokenizer.ggml.seperator_token_id";

/// The families of vocabularies, by `tokenizer.ggml.model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// BPE by merges, mostly byte-level.
    Bpe,
    /// SentencePiece's own BPE.
    Spm,
    WordPiece,
    Unigram,
}

const MODELS: &[(&str, Family)] = &[
    ("gpt2", Family::Bpe),
    ("gemma4", Family::Bpe),
    ("whitespace", Family::Bpe),
    ("llama", Family::Spm),
    ("bert", Family::WordPiece),
    ("t5", Family::Unigram),
];

/// Every `tokenizer.ggml.model` that is supported.
pub fn models() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|model| model.0)
}

/// Every `tokenizer.ggml.pre` that is supported.
pub fn pre_tokenizers() -> impl Iterator<Item = &'static str> {
    pre_tokenizer::names()
}

/// Special tokens that a family has where the file does not name them.
#[derive(Default)]
struct Defaults {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    sep: Option<u32>,
}

impl Family {
    fn defaults(self) -> Defaults {
        match self {
            Family::Bpe => Defaults::default(),
            Family::Spm => Defaults {
                bos: Some(1),
                eos: Some(2),
                unknown: Some(0),
                sep: None,
            },
            Family::WordPiece => Defaults {
                bos: Some(101),
                eos: None,
                unknown: Some(100),
                sep: Some(102),
            },
            Family::Unigram => Defaults {
                bos: None,
                eos: Some(1),
                unknown: Some(2),
                sep: None,
            },
        }
    }
}

enum Algorithm {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
    WordPiece(Box<WordPiece>),
    Unigram(Box<Unigram>),
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
    /// What `encode` with `add_special` puts in front of the text, and behind it.
    prefix: Option<u32>,
    suffix: Option<u32>,
    ends: BTreeSet<u32>,
}

impl Tokenizer {
    /// Builds the tokenizer from `tokenizer.ggml.*`.
    ///
    /// Token ids that point outside the vocabulary count as absent. Errors name the key that is
    /// missing or wrong, or the tokenizer model or pre-tokenizer that is not supported.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, Error> {
        let model = gguf.str("tokenizer.ggml.model");
        let model = model.ok_or(Error::Missing("tokenizer.ggml.model"))?;
        let family = MODELS.iter().find(|row| row.0 == model);
        let family = family
            .ok_or_else(|| Error::Model {
                name: model.into(),
                supported: models().collect::<Vec<_>>().join(", "),
            })?
            .1;
        let mut vocab = Vocab::from_gguf(gguf)?;
        let defaults = family.defaults();
        let bos = vocab.named(gguf, BOS, defaults.bos);
        let eos = vocab.named(gguf, EOS, defaults.eos);
        let sep = vocab.named(gguf, SEP, defaults.sep);
        let unknown = vocab.named(gguf, "tokenizer.ggml.unknown_token_id", defaults.unknown);
        let ends = end::tokens(gguf, &mut vocab, eos);
        let flag = |flag, default| gguf.bool(flag).unwrap_or(default);
        let mut alphabet = Alphabet::Text { line_breaks: false };
        let (algorithm, prefix, suffix) = match family {
            Family::Bpe => {
                let name = match model {
                    "gemma4" | "whitespace" => model,
                    _ => gguf.str("tokenizer.ggml.pre").unwrap_or("default"),
                };
                let pre = pre_tokenizer::by_name(name)?;
                alphabet = pre.alphabet;
                let bpe = Bpe::from_gguf(gguf, &vocab, pre)?;
                // Files of gemma 4 deny that it needs its first token.
                let adds_bos = pre.adds_bos && matches!(alphabet, Alphabet::Text { .. });
                let adds_bos = adds_bos || flag(ADD_BOS, pre.adds_bos);
                let prefix = added(adds_bos, ADD_BOS, BOS, bos)?;
                let suffix = added(flag(ADD_EOS, false), ADD_EOS, EOS, eos)?;
                (Algorithm::Bpe(Box::new(bpe)), prefix, suffix)
            }
            Family::Spm => {
                let spm = Spm::from_gguf(gguf, &vocab, unknown)?;
                let prefix = added(flag(ADD_BOS, true), ADD_BOS, BOS, bos)?;
                let suffix = added(flag(ADD_EOS, false), ADD_EOS, EOS, eos)?;
                (Algorithm::Spm(Box::new(spm)), prefix, suffix)
            }
            // Texts stand between both tokens whatever the flags say.
            Family::WordPiece => {
                let wordpiece = WordPiece::from_gguf(gguf, &vocab, unknown)?;
                let prefix = added(true, ADD_BOS, BOS, bos)?;
                let suffix = added(true, "tokenizer.ggml.add_sep_token", SEP, sep)?;
                (Algorithm::WordPiece(Box::new(wordpiece)), prefix, suffix)
            }
            Family::Unigram => {
                let unigram = Unigram::from_gguf(gguf, &vocab, unknown)?;
                let prefix = added(flag(ADD_BOS, false), ADD_BOS, BOS, bos)?;
                let suffix = added(flag(ADD_EOS, true), ADD_EOS, EOS, eos)?;
                (Algorithm::Unigram(Box::new(unigram)), prefix, suffix)
            }
        };
        let trimming = Trimming::of(gguf);
        let markup = |kind| matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown);
        Ok(Tokenizer {
            pieces: pieces(&vocab, alphabet),
            parsed: Specials::new(&vocab, trimming, markup),
            literal: Specials::new(&vocab, trimming, |kind| kind == Kind::UserDefined),
            vocab,
            algorithm,
            bos,
            eos,
            prefix,
            suffix,
            ends,
        })
    }

    /// Token ids of `text`, as llama.cpp's `llama_tokenize`.
    ///
    /// `add_special` puts the beginning-of-sequence token in front (and the end-of-sequence token,
    /// or WordPiece's separator, behind) where the vocabulary asks for it; `parse_special` recognises control tokens written
    /// in the text, which only a rendered prompt may do. User-defined tokens are always recognised.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        if add_special {
            ids.extend(self.prefix);
        }
        let specials = if parse_special {
            &self.parsed
        } else {
            &self.literal
        };
        let mut memo = Memo::default();
        match &self.algorithm {
            Algorithm::Bpe(bpe) => {
                let mut session = bpe.session(&self.vocab);
                specials.partition(&self.vocab, text, |fragment| match fragment {
                    Fragment::Token(id) => ids.push(id),
                    Fragment::Text(text) => session.encode(text, &mut memo, &mut ids),
                })
            }
            Algorithm::Spm(spm) => {
                let mut session = spm.session(&self.vocab);
                let mut first = true;
                specials.partition(&self.vocab, text, |fragment| {
                    match fragment {
                        Fragment::Token(id) => ids.push(id),
                        Fragment::Text(text) => session.encode(text, first, &mut memo, &mut ids),
                    }
                    first = matches!(fragment, Fragment::Token(_));
                });
            }
            Algorithm::WordPiece(wordpiece) => {
                specials.partition(&self.vocab, text, |fragment| match fragment {
                    Fragment::Token(id) => ids.push(id),
                    Fragment::Text(text) => wordpiece.encode(text, &mut ids),
                })
            }
            Algorithm::Unigram(unigram) => {
                specials.partition(&self.vocab, text, |fragment| match fragment {
                    Fragment::Token(id) => ids.push(id),
                    Fragment::Text(text) => unigram.encode(&self.vocab, text, &mut ids),
                })
            }
        }
        if add_special {
            ids.extend(self.suffix);
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
        self.prefix.is_some()
    }

    /// The token that `encode` with `add_special` puts behind the text.
    pub fn suffix(&self) -> Option<u32> {
        self.suffix
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

/// The token `id` that every prompt gets, if `wanted` by the flag of the file.
fn added(
    wanted: bool,
    flag: &'static str,
    key: &'static str,
    id: Option<u32>,
) -> Result<Option<u32>, Error> {
    match wanted {
        true if id.is_none() => Err(Error::NoToken { flag, key }),
        true => Ok(id),
        false => Ok(None),
    }
}

/// The bytes that each token renders as.
fn pieces(vocab: &Vocab, alphabet: Alphabet) -> Texts {
    let mut pieces = Texts::with_capacity(vocab.len());
    let mut piece = Vec::new();
    for id in 0..vocab.len() as u32 {
        let text = vocab.text(id);
        piece.clear();
        match vocab.kind(id) {
            Kind::Control | Kind::Unknown | Kind::UserDefined => piece.extend_from_slice(text),
            Kind::Normal if alphabet == Alphabet::Bytes => bpe::to_bytes(text, &mut piece),
            Kind::Normal => vocab::unescape(text, &mut piece),
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
