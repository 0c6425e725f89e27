//! Cutting text into words with a pre-tokenizer's patterns, in time linear in the text.
//!
//! The patterns are compiled to automata, so no text makes them backtrack. Automata cannot look
//! ahead; the one look-ahead in use, [`TRAILING_SPACE`], is white space that leaves its last
//! character to the word behind, which is done after the match.

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input, PatternID};

use super::Error;

/// White space up to, but without, the last character before a word.
pub(super) const TRAILING_SPACE: &str = r"\s+(?!\S)";

/// One pass over the text: alternatives, of which the first that matches counts. What none matches
/// is a word as well.
pub(super) type Pass = &'static [&'static str];

/// Bytes of a word that are merged at once. Merging takes some hundred bytes of memory for each, so
/// a word that no language has is cut.
const LONGEST_WORD: usize = 1 << 20;

/// A word in parts that can be merged; one, however short, for any but the longest.
pub(super) fn parts(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(word);
    std::iter::from_fn(move || {
        let word = rest?;
        let (part, behind) = word.split_at(word.floor_char_boundary(LONGEST_WORD));
        rest = (!behind.is_empty()).then_some(behind);
        Some(part)
    })
}

struct Stage {
    regex: Regex,
    trailing_space: Option<PatternID>,
}

/// Passes one after another, each over the words of the pass before.
pub(super) struct Splitter {
    stages: Vec<Stage>,
}

impl Splitter {
    pub(super) fn new(passes: &[Pass]) -> Result<Splitter, Error> {
        let stages = passes.iter().map(|pass| Stage::new(pass));
        Ok(Splitter {
            stages: stages.collect::<Result<_, _>>()?,
        })
    }

    /// Calls `word` with every word of the text, in order. Together they are the text.
    pub(super) fn split<'t>(&self, text: &'t str, word: &mut impl FnMut(&'t str)) {
        split(&self.stages, text, word);
    }
}

fn split<'t>(stages: &[Stage], text: &'t str, word: &mut impl FnMut(&'t str)) {
    let Some((stage, later)) = stages.split_first() else {
        return word(text);
    };
    let mut done = 0;
    while done < text.len() {
        let (start, end) = stage.next(text, done).unwrap_or((text.len(), text.len()));
        if start > done {
            split(later, &text[done..start], word);
        }
        if end > start {
            split(later, &text[start..end], word);
        }
        done = end;
    }
}

impl Stage {
    fn new(pass: Pass) -> Result<Stage, Error> {
        let trailing_space = pass.iter().position(|&p| p == TRAILING_SPACE);
        let patterns: Vec<_> = pass
            .iter()
            .map(|&p| if p == TRAILING_SPACE { r"\s+" } else { p })
            .collect();
        let regex = Regex::new_many(&patterns).map_err(|e| Error::Build(e.to_string()))?;
        Ok(Stage {
            regex,
            trailing_space: trailing_space.map(PatternID::must),
        })
    }

    /// The next match at or after `from`.
    fn next(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let input = Input::new(text).range(from..);
        let anchored = input.clone().anchored(Anchored::Yes);
        // Most passes match everywhere, and an anchored search need not look for its start.
        let found = self
            .regex
            .search_half(&anchored)
            .map(|half| (half.pattern(), from, half.offset()));
        let (pattern, start, mut end) = found.or_else(|| {
            let found = self.regex.search(&input)?;
            Some((found.pattern(), found.start(), found.end()))
        })?;
        if Some(pattern) == self.trailing_space && end < text.len() {
            let last = text[start..end].char_indices().next_back();
            // A lone character is matched by the alternative behind, or is a word by itself.
            end = last.map_or(end, |(at, _)| if at > 0 { start + at } else { end });
        }
        Some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(passes: &[Pass], text: &'static str) -> Vec<&'static str> {
        let splitter = Splitter::new(passes).expect("valid patterns");
        let mut words = Vec::new();
        splitter.split(text, &mut |word| words.push(word));
        words
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_next_word() {
        let pass: Pass = &[r" ?\p{L}+", TRAILING_SPACE];
        assert_eq!(words(&[pass], "a   b"), ["a", "  ", " b"]);
        assert_eq!(words(&[pass], "a b "), ["a", " b", " "]);
        assert_eq!(
            words(&[pass], "a\u{2003}\u{2003}b"),
            ["a", "\u{2003}", "\u{2003}", "b"]
        );
        assert_eq!(words(&[pass], "   "), ["   "]);
    }

    #[test]
    fn what_no_alternative_matches_is_a_word() {
        assert_eq!(words(&[&["[0-9]"]], "ab12c"), ["ab", "1", "2", "c"]);
        assert!(words(&[&["[0-9]"]], "").is_empty());
    }

    #[test]
    fn only_huge_words_are_cut() {
        assert_eq!(parts("").collect::<Vec<_>>(), [""]);
        let word = "\u{E9}".repeat(LONGEST_WORD);
        let lengths: Vec<_> = parts(&word).map(str::len).collect();
        assert_eq!(lengths, [LONGEST_WORD; 2]);
        let word = format!("a{word}");
        let lengths: Vec<_> = parts(&word).map(str::len).collect();
        assert_eq!(lengths, [LONGEST_WORD - 1, LONGEST_WORD, 2]);
    }

    #[test]
    fn later_passes_see_one_word_at_a_time() {
        let pass: Pass = &[r" ?\p{L}+", TRAILING_SPACE];
        // The run of spaces ends where the digit was cut off.
        assert_eq!(words(&[&["[0-9]"], pass], "a  1"), ["a", "  ", "1"]);
    }
}
