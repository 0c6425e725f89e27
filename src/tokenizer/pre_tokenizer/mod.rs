//! The table of pre-tokenizers: how each kind of BPE vocabulary has text cut into words.

mod patterns;
mod table;

use super::Error;
use super::split::Pass;
use table::PRE_TOKENIZERS;

/// How models with this `tokenizer.ggml.pre` cut text into words.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    pub(super) passes: &'static [Pass],
    /// Whether prompts start with BOS unless the file says otherwise.
    pub(super) adds_bos: bool,
    /// Whether a word that is an entry is taken whole, without looking at merges.
    pub(super) whole_words: bool,
    pub(super) alphabet: Alphabet,
}

/// What the entries of a vocabulary are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// GPT-2's printable characters, one a byte.
    Bytes,
    /// Text as it is, with U+2581 for spaces and entries such as `<0x0A>` for the bytes of
    /// characters without one. With `line_breaks`, a run of line breaks that is an entry is taken
    /// whole.
    Text { line_breaks: bool },
    /// Text as it is, of which white space gives no tokens, and neither does a character that is
    /// no entry.
    Words,
}

/// The row of a `tokenizer.ggml.pre`.
pub(super) fn by_name(name: &str) -> Result<&'static PreTokenizer, Error> {
    let row = PRE_TOKENIZERS.iter().find(|row| row.names.contains(&name));
    row.ok_or_else(|| Error::Pre {
        name: name.into(),
        supported: names().collect::<Vec<_>>().join(", "),
    })
}

/// Every `tokenizer.ggml.pre` that is supported.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PRE_TOKENIZERS.iter().flat_map(|row| row.names).copied()
}

#[cfg(test)]
mod tests {
    use super::super::split::Splitter;
    use super::*;

    fn words(pre: &str, text: &'static str) -> Vec<&'static str> {
        let pre = by_name(pre).expect("in the table");
        let splitter = Splitter::new(pre.passes).expect("valid patterns");
        let mut words = Vec::new();
        splitter.split(text, &mut |word| words.push(word));
        words
    }

    #[test]
    fn every_row_compiles_and_keeps_the_text() {
        let text = "I'm 12345 x=\u{E9}\u{4F60}\u{3000}1\r\n\n  \tDON'T  $5,000! ";
        for name in names() {
            assert_eq!(words(name, text).concat(), text, "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut all: Vec<_> = names().collect();
        all.sort_unstable();
        let n = all.len();
        all.dedup();
        assert_eq!(all.len(), n);
    }

    #[test]
    fn rows_without_a_reference_file_cut_as_expected() {
        let text = "It's 12345 a+b  c";
        let gpt2 = ["It", "'s", " 12345", " a", "+", "b", " ", " c"];
        assert_eq!(words("gpt-2", text), gpt2);
        let default = ["It", "'", "s", " ", "123", "45", " a", "+", "b", " ", " c"];
        assert_eq!(words("default", text), default);
    }
}
