//! `tokenizer.json`, as the library tokenizers writes it.

use super::super::checkpoint::Checkpoint;
use super::super::limits::{Few, Members};
use super::super::{Error, MAX_ENTRIES, bad};
use super::Added;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

pub const NAME: &str = "tokenizer.json";
const MAX_BYTES: u64 = 64 << 20;
const MAX_MERGES: usize = 1 << 22;
const MAX_ADDED: usize = 1 << 17;

/// The parts that make ids.
#[derive(Deserialize)]
pub struct TokenizerFile {
    pub model: Model,
    #[serde(default)]
    added_tokens: Few<AddedToken, MAX_ADDED>,
    normalizer: Option<Step>,
    pre_tokenizer: Option<Step>,
    post_processor: Option<Post>,
}

#[derive(Deserialize)]
pub struct Model {
    /// Older files leave it out.
    #[serde(rename = "type")]
    kind: Option<String>,
    pub vocab: Entries,
    #[serde(default)]
    pub merges: Few<Merge, MAX_MERGES>,
    pub byte_fallback: Option<bool>,
    pub ignore_merges: Option<bool>,
    pub unk_token: Option<String>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    pub max_input_chars_per_word: Option<u32>,
}

impl Model {
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("BPE")
    }
}

/// Two entries that become one.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Merge {
    Text(String),
    Pair([String; 2]),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    rstrip: bool,
}

/// A normalizer or a pre-tokenizer, with the members of all kinds.
#[derive(Debug, Deserialize)]
pub struct Step {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    normalizers: Few<Step, 16>,
    #[serde(default)]
    pretokenizers: Few<Step, 16>,
    pub pattern: Option<Pattern>,
    pub content: Option<String>,
    pub prepend: Option<String>,
    pub behavior: Option<String>,
    #[serde(default)]
    pub invert: bool,
    pub individual_digits: Option<bool>,
    pub use_regex: Option<bool>,
    pub add_prefix_space: Option<bool>,
    pub prepend_scheme: Option<String>,
    pub replacement: Option<String>,
    pub split: Option<bool>,
    pub lowercase: Option<bool>,
    pub strip_accents: Option<bool>,
    pub clean_text: Option<bool>,
    pub handle_chinese_chars: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub enum Pattern {
    String(String),
    Regex(String),
}

/// What puts tokens around a text.
#[derive(Deserialize)]
struct Post {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    processors: Few<Post, 16>,
    #[serde(default)]
    single: Few<Piece, 64>,
    cls: Option<(String, u32)>,
    sep: Option<(String, u32)>,
}

#[derive(Deserialize)]
enum Piece {
    SpecialToken { id: String },
    Sequence {},
}

impl TokenizerFile {
    pub fn read(checkpoint: &Checkpoint) -> Result<TokenizerFile, Error> {
        let file = checkpoint.json(NAME, MAX_BYTES)?;
        file.ok_or_else(|| Error::BadRequest(format!("{NAME} is missing")))
    }

    /// The normalizers, in the order in which they work.
    pub fn normalizers(&self) -> Vec<&Step> {
        flat(self.normalizer.as_ref())
    }

    pub fn pre_tokenizers(&self) -> Vec<&Step> {
        flat(self.pre_tokenizer.as_ref())
    }

    /// Whether the white space behind all added tokens belongs to them, but for those that never take it.
    pub fn strips_behind(&self) -> bool {
        let plain = ["<unk>", "<s>", "<|endoftext|>"];
        let all = self.added_tokens.0.iter();
        let mut others = all
            .filter(|token| !plain.contains(&token.content.as_str()))
            .peekable();
        others.peek().is_some() && others.all(|token| token.rstrip)
    }

    pub fn added(&mut self) -> Vec<Added> {
        let tokens = std::mem::take(&mut self.added_tokens.0).into_iter();
        let added = |token: AddedToken| Added {
            id: token.id,
            text: token.content,
            is_special: token.special,
        };
        tokens.map(added).collect()
    }

    /// The token that a text gets in front, and the one behind it.
    pub fn around(&self) -> Result<(Option<String>, Option<String>), Error> {
        let mut around = (None, None);
        for post in self.post_processor.iter().flat_map(flat_post) {
            match post.kind.as_str() {
                "ByteLevel" => {}
                "BertProcessing" | "RobertaProcessing" => {
                    let text = |token: &Option<(String, u32)>| {
                        token.as_ref().map(|(text, _)| text.clone())
                    };
                    around = (text(&post.cls), text(&post.sep));
                }
                "TemplateProcessing" => around = template(&post.single.0)?,
                other => return Err(unsupported("post-processor", other)),
            }
        }
        Ok(around)
    }
}

/// A template of at most one token in front of the text and one behind it.
fn template(pieces: &[Piece]) -> Result<(Option<String>, Option<String>), Error> {
    match pieces {
        [Piece::Sequence {}] => Ok((None, None)),
        [Piece::SpecialToken { id }, Piece::Sequence {}] => Ok((Some(id.clone()), None)),
        [Piece::Sequence {}, Piece::SpecialToken { id }] => Ok((None, Some(id.clone()))),
        [
            Piece::SpecialToken { id: first },
            Piece::Sequence {},
            Piece::SpecialToken { id: last },
        ] => Ok((Some(first.clone()), Some(last.clone()))),
        _ => {
            let text = "post-processor: more than one token in front of a text or behind it is not supported";
            Err(bad(NAME, text))
        }
    }
}

/// An error about a part of the file.
pub fn unsupported(what: &str, name: &str) -> Error {
    Error::Unsupported(format!("{NAME}: {what} {name:?} is not supported"))
}

fn flat(step: Option<&Step>) -> Vec<&Step> {
    let mut steps = Vec::new();
    if let Some(step) = step {
        match step.kind.as_str() {
            "Sequence" => {
                let inner = step.normalizers.0.iter().chain(&step.pretokenizers.0);
                inner.for_each(|step| steps.extend(flat(Some(step))));
            }
            _ => steps.push(step),
        }
    }
    steps
}

fn flat_post(post: &Post) -> Vec<&Post> {
    match post.kind.as_str() {
        "Sequence" => post.processors.0.iter().flat_map(flat_post).collect(),
        _ => vec![post],
    }
}

/// The entries of a model by name; nothing where the model keeps them otherwise.
pub struct Entries(pub Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the entries of a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Entries, A::Error> {
        let members = serde::de::value::MapAccessDeserializer::new(members);
        Ok(Entries(
            Members::<u32, MAX_ENTRIES>::deserialize(members)?.0,
        ))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Entries, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Entries(Vec::new()))
    }
}
