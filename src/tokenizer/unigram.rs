//! Unigram: of all ways to cover a word with entries, the one with the highest sum of scores.

use super::Error;
use super::charsmap::Charsmap;
use super::memo::Memo;
use super::prefixes::Prefixes;
use super::split::parts;
use super::vocab::{Kind, SPACE, Vocab};
use super::words::Words;
use crate::gguf::Gguf;

/// What an unknown character costs more than the worst entry.
const UNKNOWN_PENALTY: f32 = 10.0;

pub(super) struct Unigram {
    charsmap: Charsmap,
    words: Words,
    entries: Prefixes,
    scores: Vec<f32>,
    unknown: u32,
    unknown_score: f32,
    space_prefix: bool,
    /// Whether a run of spaces counts as one, and none at the end.
    merges_spaces: bool,
}

impl Unigram {
    /// `unknown` stands for characters without an entry.
    pub(super) fn from_gguf(
        gguf: &Gguf,
        vocab: &Vocab,
        unknown: Option<u32>,
    ) -> Result<Unigram, Error> {
        let scores = vocab.scores(gguf)?;
        let flag = |key| gguf.bool(key).unwrap_or(false);
        let normal = (0..).zip(&scores);
        let normal = normal.filter(|(id, _)| vocab.kind(*id) == Kind::Normal);
        let worst = normal.map(|(_, &score)| score).fold(f32::MAX, f32::min);
        Ok(Unigram {
            charsmap: Charsmap::from_gguf(gguf)?,
            words: Words::new(vocab),
            entries: Prefixes::new(vocab, |kind| {
                matches!(kind, Kind::Normal | Kind::UserDefined | Kind::Unused)
            }),
            scores: (0..)
                .zip(scores)
                .map(|(id, score)| match vocab.kind(id) {
                    // As likely as can be.
                    Kind::UserDefined => 0.0,
                    _ => score,
                })
                .collect(),
            unknown: unknown.ok_or(Error::Missing("tokenizer.ggml.unknown_token_id"))?,
            unknown_score: worst - UNKNOWN_PENALTY,
            space_prefix: flag("tokenizer.ggml.add_space_prefix"),
            merges_spaces: flag("tokenizer.ggml.remove_extra_whitespaces"),
        })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, ids: &mut Vec<u32>) {
        let text = self.normalize(text);
        let mut memo = Memo::default();
        let mut best = Vec::new();
        let first = ids.len();
        self.words.split(&text, false, |word| {
            let start = ids.len();
            memo.encode(word, ids, |ids| {
                parts(word).for_each(|part| self.encode_word(vocab, part, &mut best, ids));
            });
            // A run of unknown characters is one token.
            let unknown = |at: usize| ids.get(at) == Some(&self.unknown);
            if start > first && unknown(start - 1) && unknown(start) {
                ids.remove(start);
            }
        });
    }

    fn normalize(&self, text: &str) -> String {
        let mut normal = String::with_capacity(text.len() + text.len() / 2);
        let mut rest = text;
        let mut in_word = false;
        let mut prefix = self.space_prefix;
        while let Some(c) = rest.chars().next() {
            let (len, piece) = self
                .charsmap
                .longest(rest)
                .unwrap_or((c.len_utf8(), &rest[..c.len_utf8()]));
            for c in piece.chars() {
                if c != ' ' {
                    if !in_word && (prefix || self.merges_spaces) {
                        normal.push_str(SPACE);
                        prefix = false;
                    }
                    normal.push(c);
                } else if !self.merges_spaces {
                    normal.push_str(SPACE);
                }
                in_word = c != ' ';
            }
            rest = &rest[len..];
        }
        normal
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, best: &mut Vec<Step>, ids: &mut Vec<u32>) {
        best.clear();
        best.resize(word.len() + 1, Step::UNREACHED);
        best[0].score = 0.0;
        for (at, c) in word.char_indices() {
            let sum = best[at].score;
            let mut reach = |len: usize, id: u32, score: f32| {
                let step = &mut best[at + len];
                let score = sum + f64::from(score);
                if score > step.score {
                    *step = Step { score, id, len };
                }
            };
            let mut has_own = false;
            let mut entry = self.entries.longest(vocab, &word.as_bytes()[at..]);
            while let Some(found) = entry {
                let (id, len) = (self.entries.id(found), self.entries.n_bytes(found));
                reach(len, id, self.scores[id as usize]);
                has_own |= len == c.len_utf8();
                entry = self.entries.shorter(found);
            }
            if !has_own {
                reach(c.len_utf8(), self.unknown, self.unknown_score);
            }
        }
        let start = ids.len();
        let mut end = word.len();
        while end > 0 {
            let step = &best[end];
            let is_run = ids[start..].last() == Some(&self.unknown) && step.id == self.unknown;
            if !is_run {
                ids.push(step.id);
            }
            end -= step.len;
        }
        ids[start..].reverse();
    }
}

/// The best way to a place of the word: the last token and its length in bytes.
#[derive(Clone, Copy)]
struct Step {
    score: f64,
    id: u32,
    len: usize,
}

impl Step {
    /// No sum of 32-bit scores is lower; `len` keeps the way back from standing still.
    const UNREACHED: Step = Step {
        score: f64::MIN,
        id: 0,
        len: 1,
    };
}
