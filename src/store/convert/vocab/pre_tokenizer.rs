//! The name of a pre-tokenizer, which is all that GGUF has of it, by the patterns that a file spells out.

use super::super::{Error, bad};
use super::file::{NAME, Pattern, Step, TokenizerFile, unsupported};

const DIGITS: &str = "each digit";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Patterns one after another, and the name of their rules: where words that are entries are taken whole, and where not.
struct Row {
    patterns: &'static [&'static str],
    name: &'static str,
    whole: &'static str,
}

const fn row(patterns: &'static [&'static str], name: &'static str) -> Row {
    Row {
        patterns,
        name,
        whole: name,
    }
}

const ROWS: &[Row] = &[
    Row {
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        name: "dbrx",
        whole: "llama-bpe",
    },
    row(
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        "qwen2",
    ),
    row(
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        "qwen35",
    ),
    row(
        &[concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )],
        "gpt-4o",
    ),
    row(
        &[concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )],
        "tekken",
    ),
    row(&[DIGITS, GPT2], "smollm"),
    row(&[GPT2], "gpt-2"),
    row(
        &[
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[一-龥ࠀ-一가-\u{d7ff}]+",
            DIGITS,
        ],
        "deepseek-coder",
    ),
];

/// `tokenizer.ggml.pre` of a byte-level file.
pub fn name(file: &TokenizerFile) -> Result<&'static str, Error> {
    let mut patterns = Vec::new();
    for step in file.pre_tokenizers() {
        patterns.extend(pattern(step)?);
    }
    let row = ROWS.iter().find(|row| row.patterns == patterns);
    let row = row.ok_or_else(|| {
        let text = format!("{NAME}: a pre-tokenizer of the patterns {patterns:?} is not supported");
        Error::Unsupported(text)
    })?;
    Ok(if file.model.ignore_merges == Some(true) {
        row.whole
    } else {
        row.name
    })
}

/// What a step cuts out; nothing where it only writes bytes as characters.
fn pattern(step: &Step) -> Result<Option<String>, Error> {
    // Keeping what matches and nothing else is the same where a pattern matches everything.
    let is_isolated = matches!(
        (step.behavior.as_deref(), step.invert),
        (Some("Isolated"), false) | (Some("Removed"), true)
    );
    match (step.kind.as_str(), &step.pattern) {
        ("Split", Some(Pattern::Regex(regex))) if is_isolated => Ok(Some(spelt_out(regex))),
        ("Digits", _) if step.individual_digits == Some(true) => Ok(Some(DIGITS.into())),
        ("ByteLevel", _) if step.add_prefix_space == Some(true) => Err(bad(
            NAME,
            "add_prefix_space of a ByteLevel pre-tokenizer is not supported",
        )),
        ("ByteLevel", _) => Ok((step.use_regex != Some(false)).then(|| GPT2.into())),
        (kind, _) => Err(unsupported("pre-tokenizer", kind)),
    }
}

/// A pattern whose line breaks are written as such; some files have the characters themselves.
fn spelt_out(regex: &str) -> String {
    regex.replace('\r', r"\r").replace('\n', r"\n")
}
