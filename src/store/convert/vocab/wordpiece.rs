//! WordPiece of `tokenizer.json`: entries that begin a word get U+2581, those that go on lose `##`.

use super::super::{Error, bad};
use super::file::{NAME, TokenizerFile, unsupported};
use super::{Kind, Vocabulary};
use std::collections::HashSet;

const SPACE: char = '\u{2581}';
const CONTINUES: &str = "##";
/// Characters of the longest word that readers of GGUF look up.
const LONGEST_WORD: u32 = 100;

/// The vocabulary of a file whose model is WordPiece.
pub fn vocabulary(mut file: TokenizerFile, n: usize) -> Result<Vocabulary, Error> {
    let prefix = file.model.continuing_subword_prefix.as_deref();
    if let Some(other) = prefix.filter(|prefix| *prefix != CONTINUES) {
        return Err(unsupported("continuing_subword_prefix", other));
    }
    if let Some(n) = file
        .model
        .max_input_chars_per_word
        .filter(|n| *n != LONGEST_WORD)
    {
        return Err(unsupported("max_input_chars_per_word", &n.to_string()));
    }
    let mut vocabulary = Vocabulary::new("bert", "default", n);
    let [normalizer] = file.normalizers()[..] else {
        return Err(bad(
            NAME,
            "WordPiece with other than one normalizer is not supported",
        ));
    };
    let is_plain = [normalizer.clean_text, normalizer.handle_chinese_chars]
        .into_iter()
        .all(|flag| flag != Some(false));
    if normalizer.kind != "BertNormalizer" || !is_plain {
        return Err(unsupported("normalizer", &normalizer.kind));
    }
    // Readers of GGUF make letters small and drop accents unless they are told not to.
    vocabulary.lowercase = normalizer.lowercase.filter(|lowercase| !lowercase);
    vocabulary.strip_accents = normalizer
        .strip_accents
        .filter(|strips| Some(*strips) != normalizer.lowercase);
    let pre = file.pre_tokenizers();
    if let Some(other) = pre.iter().find(|step| step.kind != "BertPreTokenizer") {
        return Err(unsupported("pre-tokenizer", &other.kind));
    }
    (vocabulary.first, vocabulary.last) = file.around()?;
    vocabulary.unknown = file.model.unk_token.take();
    let added = file.added();
    let special: HashSet<String> = added
        .iter()
        .filter(|token| token.is_special)
        .map(|token| token.text.clone())
        .collect();
    for (text, id) in std::mem::take(&mut file.model.vocab.0) {
        let (text, kind) = match () {
            _ if special.contains(&text) => (text, Kind::Control),
            _ if vocabulary.unknown.as_ref() == Some(&text) => (text, Kind::Unknown),
            _ if text.starts_with("[unused") => (text, Kind::Unused),
            _ => match text.strip_prefix(CONTINUES) {
                Some(rest) if !rest.is_empty() => (rest.to_owned(), Kind::Normal),
                _ => (format!("{SPACE}{text}"), Kind::Normal),
            },
        };
        vocabulary.set(NAME, id, text, kind)?;
    }
    let others = added
        .into_iter()
        .filter(|token| vocabulary.kind(token.id).is_none());
    let others = others.collect();
    vocabulary.add(NAME, others)?;
    Ok(vocabulary)
}
