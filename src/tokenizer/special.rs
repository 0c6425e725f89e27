//! Finding special tokens in text, the longest first, before anything else is tokenized.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::prefixes::Prefixes;
use super::vocab::{Kind, Vocab};
use crate::gguf::Gguf;

/// A stretch of the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Text(&'a str),
    Token(u32),
}

/// Candidates that are weighed against each other at once; only a longer run of overlapping ones,
/// such as a million newlines, is decided in parts.
const MOST_OVERLAPPING: usize = 1 << 20;

/// A set of tokens to find in text.
pub(super) struct Specials {
    tokens: Prefixes,
    trimming: Trimming,
}

/// White space in the text that belongs to a token next to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trimming {
    None,
    /// What follows most tokens.
    Behind,
    /// What precedes the token of this text.
    Before(&'static str),
}

/// A token that could be at `start`, by its index.
#[derive(Clone, Copy)]
struct Candidate {
    start: usize,
    token: usize,
}

impl Specials {
    /// The entries of the kinds that `wanted` accepts.
    pub(super) fn new(
        vocab: &Vocab,
        trimming: Trimming,
        wanted: impl Fn(Kind) -> bool,
    ) -> Specials {
        Specials {
            tokens: Prefixes::new(vocab, wanted),
            trimming,
        }
    }

    /// Cuts the text at the tokens found in it and calls `emit` with the pieces, in order. Where
    /// tokens overlap, the longer one is found; among equally long ones, the first.
    pub(super) fn partition<'a>(
        &self,
        vocab: &Vocab,
        text: &'a str,
        mut emit: impl FnMut(Fragment<'a>),
    ) {
        let mut rest = 0;
        let mut found = |found: Candidate| {
            if found.start < rest {
                return;
            }
            let id = self.tokens.id(found.token);
            let mut before = &text[rest..found.start];
            if self.trimming.is_before(vocab.text(id)) {
                before = before.trim_end_matches(is_blank);
            }
            if !before.is_empty() {
                emit(Fragment::Text(before));
            }
            emit(Fragment::Token(id));
            rest = found.start + self.tokens.n_bytes(found.token);
            if self.trimming.is_behind(vocab.text(id)) {
                rest = text.len() - text[rest..].trim_start_matches(is_blank).len();
            }
        };
        self.find(vocab, text.as_bytes(), &mut found);
        if rest < text.len() {
            emit(Fragment::Text(&text[rest..]));
        }
    }

    fn find(&self, vocab: &Vocab, text: &[u8], found: &mut impl FnMut(Candidate)) {
        let mut cluster = Vec::new();
        let mut reach = 0;
        for start in 0..text.len() {
            let Some(token) = self.tokens.longest(vocab, &text[start..]) else {
                continue;
            };
            if start >= reach || cluster.len() == MOST_OVERLAPPING {
                self.settle(&mut cluster, found);
            }
            reach = reach.max(start + self.tokens.n_bytes(token));
            cluster.push(Candidate { start, token });
        }
        self.settle(&mut cluster, found);
    }

    /// Decides a run of overlapping candidates and leaves `cluster` empty.
    fn settle(&self, cluster: &mut Vec<Candidate>, found: &mut impl FnMut(Candidate)) {
        if cluster.len() < 2 {
            return cluster.drain(..).for_each(found);
        }
        let base = cluster[0].start;
        let end = |c: &Candidate| c.start + self.tokens.n_bytes(c.token);
        let mut taken = vec![false; cluster.iter().map(end).max().unwrap_or(base) - base];
        let mut queue: BinaryHeap<_> = cluster
            .drain(..)
            .map(|c| (self.tokens.n_bytes(c.token), Reverse(c.start), c.token))
            .collect();
        while let Some((len, Reverse(start), token)) = queue.pop() {
            // What is taken is at least as long, so an overlap covers one of the two ends.
            let at = start - base;
            if taken[at] {
                continue;
            }
            if taken[at + len - 1] {
                let shorter = self.tokens.shorter(token);
                queue.extend(shorter.map(|t| (self.tokens.n_bytes(t), Reverse(start), t)));
                continue;
            }
            taken[at..at + len].fill(true);
            cluster.push(Candidate { start, token });
        }
        cluster.sort_unstable_by_key(|c| c.start);
        cluster.drain(..).for_each(found);
    }
}

/// White space, as C's `isspace` has it.
fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{B}'
}

impl Trimming {
    /// Which tokens trim, no key of the file says: it is known by the names of models.
    pub(super) fn of(gguf: &Gguf) -> Trimming {
        let name = gguf.str("general.name").unwrap_or_default().to_lowercase();
        let pre = gguf.str("tokenizer.ggml.pre").unwrap_or_default();
        let contains = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
        if contains(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
            || contains(gguf.architecture(), &["nomic-bert-moe", "jina-bert-v3"])
        {
            Trimming::Before("<mask>")
        } else if contains(&name, &["phi-3", "phi3"]) {
            Trimming::Behind
        } else if name.contains("modern-bert") {
            Trimming::Before("[MASK]")
        } else {
            Trimming::None
        }
    }

    fn is_before(self, token: &[u8]) -> bool {
        matches!(self, Trimming::Before(text) if text.as_bytes() == token)
    }

    fn is_behind(self, token: &[u8]) -> bool {
        self == Trimming::Behind && !matches!(token, b"<unk>" | b"<s>" | b"<|endoftext|>")
    }
}
