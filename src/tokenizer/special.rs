//! Finding special tokens in text, the longest first, before anything else is tokenized.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::vocab::{Kind, Vocab};
use crate::gguf::Gguf;

/// A stretch of the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Text(&'a str),
    Token(u32),
}

/// Longer entries are not looked for: the search may compare that many bytes at every position.
const LONGEST: usize = 1024;

/// Candidates that are weighed against each other at once; only a longer run of overlapping ones,
/// such as a million newlines, is decided in parts.
const MOST_OVERLAPPING: usize = 1 << 20;

/// A set of tokens to find in text.
pub(super) struct Specials {
    /// Ordered by text, so that the tokens which share a prefix are neighbours.
    tokens: Vec<Token>,
    /// The tokens that start with a byte.
    starts: [Range<usize>; 256],
    trims_after: bool,
}

struct Token {
    id: u32,
    len: usize,
    /// The longest other token that this one starts with.
    shorter: Option<usize>,
    trims: bool,
}

/// A token that could be at `start`, by its index.
#[derive(Clone, Copy)]
struct Candidate {
    start: usize,
    token: usize,
}

impl Specials {
    /// The entries of the kinds that `wanted` accepts. With `trims_after`, white space behind most
    /// of them belongs to them.
    pub(super) fn new(vocab: &Vocab, trims_after: bool, wanted: impl Fn(Kind) -> bool) -> Specials {
        let mut ids: Vec<u32> = (0..vocab.len() as u32)
            .filter(|&id| wanted(vocab.kind(id)))
            .filter(|&id| {
                let text = vocab.text(id);
                text.len() <= LONGEST && std::str::from_utf8(text).is_ok()
            })
            // Of entries with the same text only the one that a look-up finds.
            .filter(|&id| vocab.find(vocab.text(id)) == Some(id))
            .collect();
        ids.sort_unstable_by_key(|&id| vocab.text(id));
        let mut specials = Specials {
            tokens: Vec::with_capacity(ids.len()),
            starts: std::array::from_fn(|_| 0..0),
            trims_after,
        };
        for id in ids {
            specials.add(vocab, id);
        }
        specials
    }

    fn add(&mut self, vocab: &Vocab, id: u32) {
        let text = vocab.text(id);
        let index = self.tokens.len();
        let mut shorter = index.checked_sub(1);
        while let Some(before) = shorter
            && !text.starts_with(vocab.text(self.tokens[before].id))
        {
            shorter = self.tokens[before].shorter;
        }
        let starts = &mut self.starts[text[0] as usize];
        if starts.start == starts.end {
            starts.start = index;
        }
        starts.end = index + 1;
        self.tokens.push(Token {
            id,
            len: text.len(),
            shorter,
            trims: self.trims_after && !matches!(text, b"<unk>" | b"<s>" | b"<|endoftext|>"),
        });
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
            let token = &self.tokens[found.token];
            if found.start < rest {
                return;
            }
            if found.start > rest {
                emit(Fragment::Text(&text[rest..found.start]));
            }
            emit(Fragment::Token(token.id));
            rest = found.start + token.len;
            if token.trims {
                rest += blank_prefix(&text.as_bytes()[rest..]);
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
            let Some(token) = self.longest_at(vocab, &text[start..]) else {
                continue;
            };
            if start >= reach || cluster.len() == MOST_OVERLAPPING {
                self.settle(&mut cluster, found);
            }
            reach = reach.max(start + self.tokens[token].len);
            cluster.push(Candidate { start, token });
        }
        self.settle(&mut cluster, found);
    }

    /// The longest token that `text` starts with: the tokens that begin with what is read so far
    /// are a range of the ordered list, which every byte narrows.
    fn longest_at(&self, vocab: &Vocab, text: &[u8]) -> Option<usize> {
        let Range { mut start, mut end } = self.starts[text[0] as usize].clone();
        let mut longest = None;
        for (depth, &byte) in text.iter().enumerate().skip(1) {
            if start < end && self.tokens[start].len == depth {
                longest = Some(start);
                start += 1;
            }
            if start == end {
                return longest;
            }
            let at = |token: &Token| vocab.text(token.id)[depth];
            let rest = &self.tokens[start..end];
            let common = at(&rest[0]) == byte && at(&rest[rest.len() - 1]) == byte;
            if !common {
                end = start + rest.partition_point(|t| at(t) <= byte);
                start += rest.partition_point(|t| at(t) < byte);
            }
        }
        let whole = start < end && self.tokens[start].len == text.len();
        if whole { Some(start) } else { longest }
    }

    /// Decides a run of overlapping candidates and leaves `cluster` empty.
    fn settle(&self, cluster: &mut Vec<Candidate>, found: &mut impl FnMut(Candidate)) {
        if cluster.len() < 2 {
            return cluster.drain(..).for_each(found);
        }
        let base = cluster[0].start;
        let end = |c: &Candidate| c.start + self.tokens[c.token].len;
        let mut taken = vec![false; cluster.iter().map(end).max().unwrap_or(base) - base];
        let mut queue: BinaryHeap<_> = cluster
            .drain(..)
            .map(|c| (self.tokens[c.token].len, Reverse(c.start), c.token))
            .collect();
        while let Some((len, Reverse(start), token)) = queue.pop() {
            // What is taken is at least as long, so an overlap covers one of the two ends.
            let at = start - base;
            if taken[at] {
                continue;
            }
            if taken[at + len - 1] {
                let shorter = self.tokens[token].shorter;
                queue.extend(shorter.map(|t| (self.tokens[t].len, Reverse(start), t)));
                continue;
            }
            taken[at..at + len].fill(true);
            cluster.push(Candidate { start, token });
        }
        cluster.sort_unstable_by_key(|c| c.start);
        cluster.drain(..).for_each(found);
    }
}

/// Bytes of white space, as C's `isspace` has it, at the start.
fn blank_prefix(text: &[u8]) -> usize {
    let is_blank = |&&b: &&u8| b.is_ascii_whitespace() || b == 0x0B;
    text.iter().take_while(is_blank).count()
}

/// Whether white space behind special tokens belongs to them, which no key of the file says: true
/// of Phi-3, known by the model's name.
pub(super) fn trims_after(gguf: &Gguf) -> bool {
    let name = gguf.str("general.name").unwrap_or_default().to_lowercase();
    name.contains("phi-3") || name.contains("phi3")
}
