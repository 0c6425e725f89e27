//! Cutting text into words with a pre-tokenizer's patterns, in time linear in the text.
//!
//! The patterns are compiled to automata, so no text makes them backtrack. Automata cannot look
//! ahead; the four look-aheads in use are constants, and what they look at is done after the match.

use std::ops::Range;

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};

use super::Error;

/// White space up to, but without, the last character before a word.
pub(super) const TRAILING_SPACE: &str = r"\s+(?!\S)";

/// As [`TRAILING_SPACE`], in pieces of up to 512 characters, each a power of two.
pub(super) const CASCADING_SPACE: &str = concat!(
    r"\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)",
    r"|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
);

/// Digits in groups of three, of which the first may be shorter.
pub(super) const DIGITS_FROM_THE_RIGHT: &str = r"\d{1,3}(?=(?:\d{3})*\b)";

/// The places with a multiple of three digits behind them.
pub(super) const THREES_FROM_THE_RIGHT: &str = r"(?=(\d{3})+(?!\d))";

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
    let mut cut = |at| {
        if at > done {
            split(later, &text[done..at], word);
            done = at;
        }
    };
    let mut from = 0;
    while let Some((look, run)) = stage.next(text, from) {
        from = look.cut(text, run, &mut cut);
    }
    cut(text.len());
}

/// One pass.
struct Stage {
    regex: Regex,
    /// How what each pattern matches is cut.
    looks: Vec<Look>,
}

impl Stage {
    fn new(pass: Pass) -> Result<Stage, Error> {
        let looks: Vec<_> = pass.iter().map(|pattern| Look::of(pattern)).collect();
        let patterns = pass.iter().zip(&looks);
        let patterns: Vec<_> = patterns.map(|(pattern, look)| look.run(pattern)).collect();
        let regex = Regex::new_many(&patterns).map_err(|e| Error::Build(e.to_string()))?;
        Ok(Stage { regex, looks })
    }

    /// The next match at or after `from`.
    fn next(&self, text: &str, from: usize) -> Option<(Look, Range<usize>)> {
        if from == text.len() {
            return None;
        }
        let input = Input::new(text).range(from..);
        let anchored = input.clone().anchored(Anchored::Yes);
        // Most passes match everywhere, and an anchored search need not look for its start.
        let found = self
            .regex
            .search_half(&anchored)
            .map(|half| (half.pattern(), from..half.offset()));
        let (pattern, run) = found.or_else(|| {
            let found = self.regex.search(&input)?;
            Some((found.pattern(), found.range()))
        })?;
        Some((self.looks[pattern], run))
    }
}

/// What is done after a match, in place of a look-ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The match is a word.
    None,
    TrailingSpace,
    CascadingSpace,
    DigitsFromTheRight,
    ThreesFromTheRight,
}

impl Look {
    fn of(pattern: &str) -> Look {
        match pattern {
            TRAILING_SPACE => Look::TrailingSpace,
            CASCADING_SPACE => Look::CascadingSpace,
            DIGITS_FROM_THE_RIGHT => Look::DigitsFromTheRight,
            THREES_FROM_THE_RIGHT => Look::ThreesFromTheRight,
            _ => Look::None,
        }
    }

    /// The pattern of the whole run that is cut.
    fn run(self, pattern: &'static str) -> &'static str {
        match self {
            Look::None => pattern,
            Look::TrailingSpace | Look::CascadingSpace => r"\s+",
            Look::DigitsFromTheRight => r"\p{N}+",
            Look::ThreesFromTheRight => "[0-9]+",
        }
    }

    /// Calls `cut` with every place where a word ends, and returns where the next match may start.
    fn cut(self, text: &str, run: Range<usize>, cut: &mut impl FnMut(usize)) -> usize {
        let Range { start, end } = run;
        let chars = || text[start..end].char_indices().map(|(at, _)| start + at);
        match self {
            Look::None => {
                cut(start);
                cut(end);
            }
            Look::TrailingSpace | Look::CascadingSpace => {
                cut(start);
                // A lone character is matched by the alternative behind, or is a word by itself.
                let last = chars().next_back().filter(|&last| last > start);
                let end = if end < text.len() {
                    last.unwrap_or(end)
                } else {
                    end
                };
                if self == Look::CascadingSpace {
                    cascade(chars().take_while(|&at| at < end), cut);
                }
                cut(end);
                return end;
            }
            // As llama.cpp has it, the text in front belongs to the first group.
            Look::DigitsFromTheRight => {
                let n = chars().count();
                let groups = chars()
                    .enumerate()
                    .filter(|(i, _)| *i > 0 && (n - i) % 3 == 0);
                groups.for_each(|(_, at)| cut(at));
                cut(end);
            }
            // The last group belongs to the text behind.
            Look::ThreesFromTheRight => {
                let ends = (start..end).filter(|at| (end - at) % 3 == 0);
                ends.for_each(cut);
            }
        }
        end
    }
}

/// Cuts a run of characters into pieces of the lengths that [`CASCADING_SPACE`] lists, long ones
/// first.
fn cascade(chars: impl Iterator<Item = usize>, cut: &mut impl FnMut(usize)) {
    let chars: Vec<usize> = chars.collect();
    let mut rest = &chars[..];
    while let Some(&at) = rest.first() {
        cut(at);
        let length = [512, 256, 128, 64, 32, 16, 8, 4, 2, 1];
        let length = length.into_iter().find(|&n| n <= rest.len());
        rest = &rest[length.unwrap_or(1)..];
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
