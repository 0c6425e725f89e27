//! Merging neighbours, the best pair first, until none is left, as SentencePiece does.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

const NONE: usize = usize::MAX;

/// A stretch of the word, linked to its neighbours; `len` is 0 once it is part of the one before.
pub(super) struct Symbol {
    pub(super) start: usize,
    pub(super) len: usize,
    before: usize,
    next: usize,
    pub(super) token: Option<u32>,
}

/// What two neighbours become.
#[derive(Clone, Copy)]
pub(super) struct Merge {
    pub(super) token: u32,
    /// Higher ones merge first, and of equals the left one.
    pub(super) priority: u32,
}

/// Two neighbours at `left` that may merge; `len` bytes together.
struct Pair {
    merge: Merge,
    left: usize,
    len: usize,
}

impl Pair {
    fn key(&self) -> (u32, Reverse<usize>) {
        (self.merge.priority, Reverse(self.left))
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Pair {}

/// Merges word after word, keeping its allocations.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
}

impl Merger {
    /// Starts a word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
    }

    /// Appends a symbol of `len` bytes to the word.
    pub(super) fn push(&mut self, len: usize, token: Option<u32>) {
        let at = self.symbols.len();
        let start = self.symbols.last().map_or(0, |s| s.start + s.len);
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        self.symbols.push(Symbol {
            start,
            len,
            before: at.wrapping_sub(1),
            next: NONE,
            token,
        });
    }

    /// Merges by `rule`, and returns the symbols that are left.
    pub(super) fn merge(
        &mut self,
        rule: impl Fn(&Symbol, &Symbol) -> Option<Merge>,
    ) -> impl Iterator<Item = &Symbol> {
        for left in 1..self.symbols.len() {
            self.consider(&rule, left - 1, left);
        }
        while let Some(pair) = self.queue.pop() {
            self.apply(&rule, &pair);
        }
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn consider(
        &mut self,
        rule: &impl Fn(&Symbol, &Symbol) -> Option<Merge>,
        left: usize,
        right: usize,
    ) {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (&self.symbols[left], &self.symbols[right]);
        if let Some(merge) = rule(a, b) {
            let len = a.len + b.len;
            self.queue.push(Pair { merge, left, len });
        }
    }

    fn apply(&mut self, rule: &impl Fn(&Symbol, &Symbol) -> Option<Merge>, pair: &Pair) {
        let Symbol {
            len, before, next, ..
        } = self.symbols[pair.left];
        // A pair is out of date once either side has grown or is gone.
        if len == 0 || next == NONE || len + self.symbols[next].len != pair.len {
            return;
        }
        let behind = self.symbols[next].next;
        self.symbols[next].len = 0;
        let left = &mut self.symbols[pair.left];
        left.len = pair.len;
        left.next = behind;
        left.token = Some(pair.merge.token);
        if behind != NONE {
            self.symbols[behind].before = pair.left;
        }
        self.consider(rule, before, pair.left);
        self.consider(rule, pair.left, behind);
    }
}
