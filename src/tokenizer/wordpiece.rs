//! WordPiece: text made plain as BERT's own tokenizer does it, each word covered by the `tokenizers` crate.
//!
//! Normalisation follows Hugging Face's `BertNormalizer`, which the models were trained with, where
//! llama.cpp's shortcut would lose text (vowels of Hangul and of Indic scripts).

use std::borrow::Cow;

use regex_automata::meta::Regex;
use tokenizers::Model;
use tokenizers::models::bpe::Vocab as Entries;
use tokenizers::models::wordpiece::WordPiece as CrateModel;
use unicode_normalization::UnicodeNormalization;

use super::Error;
use super::memo::Memo;
use super::split::{Pass, Splitter};
use super::vocab::{SPACE, Vocab};
use crate::gguf::Gguf;

/// White space, then what is a word by itself: punctuation and Chinese characters (the ranges of
/// BERT's tokenizers). Any other run is a word.
const WORDS: Pass = &[
    r"\s+",
    concat!(
        r"[[[:punct:]]\p{P}\u{3400}-\u{4DBF}\u{4E00}-\u{9FFF}\u{F900}-\u{FAFF}\u{20000}-\u{2A6DF}",
        r"\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{2F800}-\u{2FA1F}]"
    ),
];

/// Control characters and the sign of a broken character.
const CONTROLS: &str = r"[[\p{Cc}\p{Cf}\p{Co}\u{FFFD}]--[\t\n\r]]+";
const ACCENTS: &str = r"\p{Mn}+";

/// Characters of the longest word that is looked up; longer ones are unknown as a whole.
const LONGEST_WORD: usize = 100;
/// What the crate has before entries that go on with a word; a GGUF has [`SPACE`] before the others.
const CONTINUES: &str = "##";

pub(super) struct WordPiece {
    words: Splitter,
    controls: Regex,
    accents: Option<Regex>,
    lowercase: bool,
    model: CrateModel,
}

impl WordPiece {
    /// `unknown` stands for words that no entries cover.
    pub(super) fn from_gguf(
        gguf: &Gguf,
        vocab: &Vocab,
        unknown: Option<u32>,
    ) -> Result<WordPiece, Error> {
        let lowercase = gguf.bool("tokenizer.ggml.normalizer.lowercase");
        let lowercase = lowercase.unwrap_or(true);
        let strips = gguf.bool("tokenizer.ggml.normalizer.strip_accents");
        let regex = |pattern| Regex::new(pattern).map_err(|e| Error::Build(e.to_string()));
        Ok(WordPiece {
            words: Splitter::new(&[WORDS])?,
            controls: regex(CONTROLS)?,
            accents: match strips.unwrap_or(lowercase) {
                true => Some(regex(ACCENTS)?),
                false => None,
            },
            lowercase,
            model: model(vocab, unknown)?,
        })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let text = self.normalize(text);
        let mut memo = Memo::default();
        self.words.split(&text, &mut |word| {
            if word.starts_with(char::is_whitespace) {
                return;
            }
            memo.encode(word, ids, |ids| {
                // Fails only for an unknown token that is not an entry, which `model` rules out.
                let tokens = self.model.tokenize(word).unwrap_or_default();
                ids.extend(tokens.iter().map(|token| token.id));
            });
        });
    }

    fn normalize<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = without(&self.controls, text);
        if let Some(accents) = &self.accents
            && !text.is_ascii()
        {
            // Splitting off Chinese comes first for BERT, but the canonical form of a Chinese
            // character is one as well.
            let decomposed: String = text.nfd().collect();
            text = Cow::Owned(without(accents, &decomposed).into_owned());
        }
        if self.lowercase {
            text = Cow::Owned(match text.is_ascii() {
                true => text.to_ascii_lowercase(),
                // Not `str::to_lowercase`, which knows of final sigmas.
                false => text.chars().flat_map(char::to_lowercase).collect(),
            });
        }
        text
    }
}

/// The crate's model over the file's entries.
fn model(vocab: &Vocab, unknown: Option<u32>) -> Result<CrateModel, Error> {
    let unknown = unknown.filter(|&id| (id as usize) < vocab.len());
    let unknown = unknown.ok_or(Error::Missing("tokenizer.ggml.unknown_token_id"))?;
    let name = |id: u32| {
        let text = String::from_utf8_lossy(vocab.text(id));
        match text.strip_prefix(SPACE) {
            Some(word) => word.to_owned(),
            None => format!("{CONTINUES}{text}"),
        }
    };
    // Backwards, so that of equal entries the first one stays.
    let entries: Entries = (0..vocab.len() as u32)
        .rev()
        .map(|id| (name(id), id))
        .collect();
    CrateModel::builder()
        .vocab(entries)
        .unk_token(name(unknown))
        .continuing_subword_prefix(CONTINUES.into())
        .max_input_chars_per_word(LONGEST_WORD)
        .build()
        .map_err(|e| Error::Build(e.to_string()))
}

/// The text without what a pattern matches.
fn without<'t>(pattern: &Regex, text: &'t str) -> Cow<'t, str> {
    let mut rest = 0;
    let mut kept = String::new();
    for found in pattern.find_iter(text) {
        kept.push_str(&text[rest..found.start()]);
        rest = found.end();
    }
    if rest == 0 {
        return Cow::Borrowed(text);
    }
    kept.push_str(&text[rest..]);
    Cow::Owned(kept)
}
