//! The entries that a text starts with, found in one walk along it.

use std::ops::Range;

use super::vocab::{Kind, Vocab};

/// Longer entries are not looked for: the search may compare that many bytes at every position.
const LONGEST: usize = 1024;

const NONE: u32 = u32::MAX;

/// Entries ordered by text, so that those which share a prefix are neighbours.
pub(super) struct Prefixes {
    entries: Vec<Entry>,
    /// The entries that start with a byte.
    starts: [Range<usize>; 256],
}

struct Entry {
    id: u32,
    len: u32,
    /// Index of the longest other entry that this one starts with, or `NONE`.
    shorter: u32,
}

impl Prefixes {
    /// The entries of the kinds that `wanted` accepts.
    pub(super) fn new(vocab: &Vocab, wanted: impl Fn(Kind) -> bool) -> Prefixes {
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
        let mut prefixes = Prefixes {
            entries: Vec::with_capacity(ids.len()),
            starts: std::array::from_fn(|_| 0..0),
        };
        for id in ids {
            prefixes.add(vocab, id);
        }
        prefixes
    }

    fn add(&mut self, vocab: &Vocab, id: u32) {
        let text = vocab.text(id);
        let index = self.entries.len();
        let mut shorter = index.checked_sub(1);
        while let Some(before) = shorter
            && !text.starts_with(vocab.text(self.entries[before].id))
        {
            shorter = self.shorter(before);
        }
        let starts = &mut self.starts[text[0] as usize];
        if starts.start == starts.end {
            starts.start = index;
        }
        starts.end = index + 1;
        self.entries.push(Entry {
            id,
            len: text.len() as u32,
            shorter: shorter.map_or(NONE, |before| before as u32),
        });
    }

    pub(super) fn id(&self, entry: usize) -> u32 {
        self.entries[entry].id
    }

    /// Length of an entry in bytes.
    pub(super) fn n_bytes(&self, entry: usize) -> usize {
        self.entries[entry].len as usize
    }

    /// The longest other entry that this one starts with.
    pub(super) fn shorter(&self, entry: usize) -> Option<usize> {
        let shorter = self.entries[entry].shorter;
        (shorter != NONE).then_some(shorter as usize)
    }

    /// The longest entry that the non-empty `text` starts with: the entries that begin with what is read so far
    /// are a range of the ordered list, which every byte narrows.
    pub(super) fn longest(&self, vocab: &Vocab, text: &[u8]) -> Option<usize> {
        let Range { mut start, mut end } = self.starts[text[0] as usize].clone();
        let mut longest = None;
        for (depth, &byte) in text.iter().enumerate().skip(1) {
            if start < end && self.n_bytes(start) == depth {
                longest = Some(start);
                start += 1;
            }
            if start == end {
                return longest;
            }
            let at = |entry: &Entry| vocab.text(entry.id)[depth];
            let rest = &self.entries[start..end];
            let common = at(&rest[0]) == byte && at(&rest[rest.len() - 1]) == byte;
            if !common {
                end = start + rest.partition_point(|e| at(e) <= byte);
                start += rest.partition_point(|e| at(e) < byte);
            }
        }
        let whole = start < end && self.n_bytes(start) == text.len();
        if whole { Some(start) } else { longest }
    }
}
