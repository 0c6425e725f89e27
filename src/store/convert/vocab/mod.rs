//! Vocabularies: `tokenizer.json` or `tokenizer.model` to the keys below `tokenizer.ggml.`.

mod bpe;
mod file;
mod pre_tokenizer;
mod sentencepiece;
mod special;
mod wordpiece;

use super::checkpoint::Checkpoint;
use super::config::Config;
use super::{Error, bad};
use crate::gguf::Header;
use std::collections::HashMap;

/// What an entry is, with GGUF's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A token outside of the model's own entries.
pub struct Added {
    pub id: u32,
    pub text: String,
    pub is_special: bool,
}

/// A vocabulary by id.
#[derive(Default)]
pub struct Vocabulary {
    /// `tokenizer.ggml.model`.
    model: &'static str,
    /// `tokenizer.ggml.pre`.
    pre: &'static str,
    tokens: Vec<Option<(String, Kind)>>,
    /// What comes first, the highest; of vocabularies without merges.
    scores: HashMap<u32, f32>,
    merges: Vec<String>,
    /// Whether a text begins with a space that it does not have.
    space_prefix: Option<bool>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
    /// Tokens that every text gets, in front and behind, as the file has it.
    first: Option<String>,
    last: Option<String>,
    /// What stands for text that no entry covers.
    unknown: Option<String>,
    /// Whether white space behind added tokens belongs to them.
    strips_behind: bool,
}

impl Vocabulary {
    /// A vocabulary of `n` entries, none of them known.
    fn new(model: &'static str, pre: &'static str, n: usize) -> Vocabulary {
        Vocabulary {
            model,
            pre,
            tokens: vec![None; n],
            ..Vocabulary::default()
        }
    }

    /// Adds an entry. Ids beyond the embedding matrix cannot be used.
    fn set(&mut self, file: &str, id: u32, text: String, kind: Kind) -> Result<(), Error> {
        let n = self.tokens.len();
        let Some(place) = self.tokens.get_mut(id as usize) else {
            let what = format!("token {text:?} has id {id}, the embedding has {n} rows");
            return Err(bad(file, what));
        };
        match place {
            Some((other, _)) if *other != text => Err(bad(
                file,
                format!("tokens {other:?} and {text:?} have the same id {id}"),
            )),
            _ => {
                *place = Some((text, kind));
                Ok(())
            }
        }
    }

    /// Adds tokens, or tells what entries are. Those beyond the embedding matrix are left out: images' often are.
    fn add(&mut self, file: &str, added: Vec<Added>) -> Result<(), Error> {
        for Added {
            id,
            text,
            is_special,
        } in added
        {
            if id as usize >= self.tokens.len() {
                tracing::warn!("{file}: token {text:?} is left out: id {id} has no embedding");
                continue;
            }
            let kind = match is_special {
                _ if self.kind(id) == Some(Kind::Unknown) => Kind::Unknown,
                true => Kind::Control,
                false => Kind::UserDefined,
            };
            self.set(file, id, text, kind)?;
        }
        Ok(())
    }

    fn kind(&self, id: u32) -> Option<Kind> {
        self.tokens
            .get(id as usize)?
            .as_ref()
            .map(|(_, kind)| *kind)
    }

    fn set_kind(&mut self, id: u32, kind: Kind) {
        if let Some(Some((_, old))) = self.tokens.get_mut(id as usize) {
            *old = kind;
        }
    }

    fn id(&self, text: &str) -> Option<u32> {
        let is_it =
            |token: &Option<(String, Kind)>| token.as_ref().is_some_and(|(own, _)| own == text);
        self.tokens.iter().position(is_it).map(|id| id as u32)
    }

    /// Writes the entries; ids without one get a name that no text has.
    fn write(&self, header: &mut Header) {
        header.string("tokenizer.ggml.model", self.model);
        header.string("tokenizer.ggml.pre", self.pre);
        let text = |(id, token): (usize, &Option<(String, Kind)>)| match token {
            Some((text, _)) => text.clone(),
            None => format!("[PAD{id}]"),
        };
        let tokens: Vec<String> = self.tokens.iter().enumerate().map(text).collect();
        header.strings("tokenizer.ggml.tokens", &tokens);
        let kind =
            |token: &Option<(String, Kind)>| token.as_ref().map_or(Kind::Unused, |t| t.1) as i32;
        let kinds: Vec<i32> = self.tokens.iter().map(kind).collect();
        header.i32s("tokenizer.ggml.token_type", &kinds);
        if self.model == "llama" {
            let score = |id: u32| self.scores.get(&id).copied().unwrap_or_default();
            let scores: Vec<f32> = (0..self.tokens.len() as u32).map(score).collect();
            header.f32s("tokenizer.ggml.scores", &scores);
        }
        if self.model == "gpt2" {
            header.strings("tokenizer.ggml.merges", &self.merges);
        }
        for (key, value) in [
            ("tokenizer.ggml.add_space_prefix", self.space_prefix),
            ("tokenizer.ggml.normalizer.lowercase", self.lowercase),
            (
                "tokenizer.ggml.normalizer.strip_accents",
                self.strip_accents,
            ),
        ] {
            if let Some(value) = value {
                header.bool(key, value);
            }
        }
    }
}

/// Reads the checkpoint's vocabulary, whose entries are the `n_vocab` rows of the embedding, and writes it with the
/// chat template.
pub fn write(
    checkpoint: &Checkpoint,
    config: &Config,
    arch: &str,
    n_vocab: usize,
    header: &mut Header,
) -> Result<(), Error> {
    let mut vocabulary = if checkpoint.has(file::NAME) {
        let file = file::TokenizerFile::read(checkpoint)?;
        match file.model.kind() {
            "BPE" => bpe::vocabulary(file, n_vocab)?,
            "WordPiece" => wordpiece::vocabulary(file, n_vocab)?,
            other => {
                let text = format!(
                    "{}: model {other:?} is not supported; supported are BPE, WordPiece",
                    file::NAME
                );
                return Err(Error::Unsupported(text));
            }
        }
    } else if checkpoint.has(sentencepiece::NAME) {
        sentencepiece::vocabulary(checkpoint, n_vocab)?
    } else {
        let text = format!(
            "{} or {} is missing: it has the vocabulary",
            file::NAME,
            sentencepiece::NAME
        );
        return Err(Error::BadRequest(text));
    };
    if (vocabulary.model == "bert") != (arch == "bert") {
        let text = format!(
            "a vocabulary of type {} is not supported for {arch}",
            vocabulary.model
        );
        return Err(Error::Unsupported(text));
    }
    // No key says it: readers go by the name of the model.
    if arch == "phi3" && vocabulary.strips_behind {
        header.string("general.name", "Phi-3");
    }
    if arch == "bert" {
        let n_types = config.u32("type_vocab_size")?;
        header.u32("tokenizer.ggml.token_type_count", n_types);
    }
    let special = special::Special::read(checkpoint, config, &mut vocabulary)?;
    vocabulary.write(header);
    special.write(header);
    Ok(())
}
