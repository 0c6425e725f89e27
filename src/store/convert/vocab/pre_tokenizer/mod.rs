//! The name of a pre-tokenizer, which is all that GGUF has of it, by the patterns that a file spells out.

mod table;

use super::super::{Error, bad};
use super::file::{NAME, Pattern, Step, TokenizerFile, unsupported};
use table::{CONTRACTION, DIGIT, DIGITS, GPT2, PUNCTUATION, ROWS};

/// Bytes of an unknown pattern that an error shows.
const MAX_SHOWN: usize = 600;

/// Other spellings of what the table has, each with the table's. Quantifiers that give nothing back match the same where
/// no character of theirs can begin what follows, which is so in all rows.
const SPELLINGS: [(&str, &str); 11] = [
    ("\r", r"\r"),
    ("\n", r"\n"),
    (r"]?+", "]?"),
    (r"]++", "]+"),
    (r"]*+", "]*"),
    (r"}++", "}+"),
    (r"\p{N}{1}|", r"\p{N}|"),
    // Up to the last line break of the white space, either way.
    (r"\s*[\r\n]|", r"\s*[\r\n]+|"),
    ("'(?i:[sdmt]|ll|ve|re)", CONTRACTION),
    (
        "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
        CONTRACTION,
    ),
    ("'(?:[sdmt]|ll|ve|re)", "'s|'t|'re|'ve|'m|'ll|'d"),
];

/// `tokenizer.ggml.pre` of a byte-level file.
///
/// # Errors
/// [`Error::Unsupported`] with the patterns that no row of the table has.
pub fn name(file: &TokenizerFile) -> Result<&'static str, Error> {
    let mut patterns = Vec::new();
    for step in file.pre_tokenizers() {
        patterns.extend(pattern(step)?);
    }
    let row = ROWS.iter().find(|row| row.patterns == patterns);
    let row = row.ok_or_else(|| {
        let mut text = format!("{patterns:?}");
        if text.len() > MAX_SHOWN {
            text.truncate(text.floor_char_boundary(MAX_SHOWN));
            text += "...";
        }
        Error::Unsupported(format!(
            "{NAME}: a pre-tokenizer of the patterns {text} is not supported"
        ))
    })?;
    Ok(match file.model.ignore_merges {
        Some(true) => row.whole,
        _ => row.name,
    })
}

/// What a step cuts out; nothing where it only writes bytes as characters.
fn pattern(step: &Step) -> Result<Option<String>, Error> {
    match (step.kind.as_str(), &step.pattern) {
        ("Split", Some(Pattern::Regex(regex))) => {
            let regex = spelt_out(regex);
            let is_kept = match step.behavior.as_deref() {
                Some("Isolated") => true,
                // Keeping what matches and nothing else is the same where a pattern matches everything.
                Some("Removed") => step.invert && regex.ends_with(r"|\s+"),
                _ => false,
            };
            match is_kept {
                true => Ok(Some(regex)),
                false => Err(unsupported(
                    "a pre-tokenizer Split of the behavior",
                    step.behavior.as_deref().unwrap_or_default(),
                )),
            }
        }
        ("Digits", _) => Ok(Some(match step.individual_digits {
            Some(true) => DIGIT.into(),
            _ => DIGITS.into(),
        })),
        ("Punctuation", _) => match step.behavior.as_deref() {
            Some("Isolated") | None => Ok(Some(PUNCTUATION.into())),
            Some(other) => Err(unsupported(
                "a pre-tokenizer Punctuation of the behavior",
                other,
            )),
        },
        ("ByteLevel", _) if step.add_prefix_space == Some(true) => Err(bad(
            NAME,
            "add_prefix_space of a ByteLevel pre-tokenizer is not supported",
        )),
        ("ByteLevel", _) => Ok((step.use_regex != Some(false)).then(|| GPT2.into())),
        (kind, _) => Err(unsupported("pre-tokenizer", kind)),
    }
}

/// A pattern as the table spells it.
fn spelt_out(regex: &str) -> String {
    let mut regex = regex.to_owned();
    for (other, own) in SPELLINGS {
        regex = regex.replace(other, own);
    }
    // Only a lone character is left for the last alternative.
    match regex.strip_suffix(r"\s+(?!\S)|\s") {
        Some(start) => format!(r"{start}\s+(?!\S)|\s+"),
        None => regex,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for regex in [
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1}| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*[\r\n]|\s+(?!\S)|\s",
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
        ] {
            let row = ROWS.iter().find(|row| row.patterns == [spelt_out(regex)]);
            assert_eq!(row.map(|row| row.name), Some("qwen2"), "{regex}");
        }
        // The end of a text is taken whole, line breaks included.
        let other = r"\p{L}+|\s++$|\s*[\r\n]|\s+(?!\S)|\s";
        assert!(spelt_out(other).contains(r"\s++$"));
        // Numbers of several threes: here the plus repeats the group.
        assert_eq!(spelt_out(r"\p{N}{1,3}+|\s+"), r"\p{N}{1,3}+|\s+");
    }

    #[test]
    fn rows_are_spelt_as_patterns_are_read() {
        for row in ROWS {
            for pattern in row.patterns {
                assert_eq!(spelt_out(pattern), *pattern, "{}", row.name);
            }
        }
        for (i, row) in ROWS.iter().enumerate() {
            let twin = ROWS[..i]
                .iter()
                .find(|other| other.patterns == row.patterns);
            assert!(twin.is_none(), "{}", row.name);
        }
    }
}
