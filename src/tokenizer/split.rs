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
    pub(super) fn split(&self, text: &str, word: &mut impl FnMut(&str)) {
        split(&self.stages, text, word);
    }
}

fn split(stages: &[Stage], text: &str, word: &mut impl FnMut(&str)) {
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
