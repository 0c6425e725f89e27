//! The pool of cache pages: who holds which, and which full ones a new prompt can share.
//!
//! A full page is found by its tokens and the full page before it, so equal tokens at equal
//! places of equal beginnings are one page. Pages that nobody holds keep what they have until
//! they are needed, the one unused longest first.

use std::collections::{BTreeMap, HashMap};

use crate::backend::PAGE_TOKENS;

/// Names a published page for as long as it is published; never given twice. 0 is the beginning
/// of every sequence.
type Serial = u64;

/// What makes two pages equal: what is in it, and all that comes before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    before: Serial,
    tokens: [u32; PAGE_TOKENS],
}

#[derive(Debug, Default)]
struct Page {
    n_holders: usize,
    /// Under which key it is published.
    key: Option<Key>,
    serial: Serial,
    /// Its place in `PagePool::idle`.
    idle_since: u64,
}

/// The pages of one sequence.
#[derive(Debug, Default)]
pub struct PageTable {
    pub pages: Vec<u32>,
    /// Leading pages that are published or equal to a published one.
    n_published: usize,
    last_published: Serial,
}

impl PageTable {
    /// The cache slot of a position that the pages cover.
    pub fn slot(&self, position: usize) -> u32 {
        let page = self.pages[position / PAGE_TOKENS] as usize;
        (page * PAGE_TOKENS + position % PAGE_TOKENS) as u32
    }
}

/// All pages of a model's cache.
#[derive(Debug)]
pub struct PagePool {
    pages: Vec<Page>,
    /// Pages without holder and without content worth keeping.
    blank: Vec<u32>,
    /// Published pages without holder, by the time they became idle.
    idle: BTreeMap<u64, u32>,
    published: HashMap<Key, u32>,
    next_serial: Serial,
    clock: u64,
}

impl PagePool {
    /// A pool of empty pages.
    pub fn new(n_pages: usize) -> PagePool {
        PagePool {
            pages: (0..n_pages).map(|_| Page::default()).collect(),
            blank: (0..n_pages as u32).rev().collect(),
            idle: BTreeMap::new(),
            published: HashMap::new(),
            next_serial: 1,
            clock: 0,
        }
    }

    /// Pages that nobody holds.
    pub fn n_free(&self) -> usize {
        self.blank.len() + self.idle.len()
    }

    /// A table of the published pages that `tokens` begin with. Holds them.
    pub fn share(&mut self, tokens: &[u32]) -> PageTable {
        let mut table = PageTable::default();
        for chunk in tokens.chunks_exact(PAGE_TOKENS) {
            let key = key(table.last_published, chunk);
            let Some(&page) = self.published.get(&key) else {
                break;
            };
            let entry = &mut self.pages[page as usize];
            if entry.n_holders == 0 {
                self.idle.remove(&entry.idle_since);
            }
            entry.n_holders += 1;
            table.last_published = entry.serial;
            table.pages.push(page);
        }
        table.n_published = table.pages.len();
        table
    }

    /// Makes the table cover `n_tokens`. Whether there were pages enough; if not, those that
    /// there were stay in the table.
    pub fn grow(&mut self, table: &mut PageTable, n_tokens: usize) -> bool {
        while table.pages.len() * PAGE_TOKENS < n_tokens {
            let Some(page) = self.take() else {
                return false;
            };
            table.pages.push(page);
        }
        true
    }

    fn take(&mut self) -> Option<u32> {
        let page = match self.blank.pop() {
            Some(page) => page,
            None => self.idle.pop_first()?.1,
        };
        let entry = &mut self.pages[page as usize];
        entry.n_holders = 1;
        if let Some(key) = entry.key.take() {
            self.published.remove(&key);
        }
        Some(page)
    }

    /// Lets later prompts share the full pages that hold `tokens`, the beginning of the sequence.
    pub fn publish(&mut self, table: &mut PageTable, tokens: &[u32]) {
        let chunks = tokens.chunks_exact(PAGE_TOKENS).skip(table.n_published);
        for chunk in chunks {
            let key = key(table.last_published, chunk);
            let page = table.pages[table.n_published];
            let published = *self.published.entry(key.clone()).or_insert(page);
            let entry = &mut self.pages[published as usize];
            if entry.key.is_none() {
                entry.key = Some(key);
                entry.serial = self.next_serial;
                self.next_serial += 1;
            }
            table.last_published = entry.serial;
            table.n_published += 1;
        }
    }

    /// Gives the pages of a table back. The last page goes first, so that beginnings live longest.
    pub fn release(&mut self, table: PageTable) {
        for page in table.pages.into_iter().rev() {
            let entry = &mut self.pages[page as usize];
            entry.n_holders -= 1;
            if entry.n_holders > 0 {
                continue;
            }
            if entry.key.is_none() {
                self.blank.push(page);
                continue;
            }
            self.clock += 1;
            entry.idle_since = self.clock;
            self.idle.insert(self.clock, page);
        }
    }
}

fn key(before: Serial, chunk: &[u32]) -> Key {
    let tokens = chunk.try_into().expect("a chunk is a page long");
    Key { before, tokens }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: usize) -> Vec<u32> {
        (0..n as u32).collect()
    }

    fn write(pool: &mut PagePool, tokens: &[u32]) -> PageTable {
        let mut table = pool.share(tokens);
        assert!(pool.grow(&mut table, tokens.len()));
        pool.publish(&mut table, tokens);
        table
    }

    #[test]
    fn full_pages_are_shared_and_partial_ones_are_not() {
        let mut pool = PagePool::new(8);
        let a = write(&mut pool, &tokens(70));
        let b = write(&mut pool, &tokens(80));
        assert_eq!(a.pages[..2], b.pages[..2]);
        assert_ne!(a.pages[2], b.pages[2]);
        assert_eq!(pool.n_free(), 4);
        pool.release(a);
        assert_eq!(pool.n_free(), 5);
        pool.release(b);
        assert_eq!(pool.n_free(), 8);
    }

    #[test]
    fn a_page_needs_an_equal_beginning() {
        let mut pool = PagePool::new(8);
        let a = write(&mut pool, &tokens(64));
        let mut other = tokens(64);
        other[3] = 99;
        let b = write(&mut pool, &other);
        assert_ne!(a.pages[1], b.pages[1]);
    }

    #[test]
    fn released_pages_keep_their_content_until_needed() {
        let mut pool = PagePool::new(4);
        let a = write(&mut pool, &tokens(96));
        let pages = a.pages.clone();
        pool.release(a);
        let again = pool.share(&tokens(96));
        assert_eq!(again.pages, pages);
        pool.release(again);
        // Needs three of four pages: the blank one, then the last pages of the old sequence.
        let fresh: Vec<u32> = (1000..1096).collect();
        let b = write(&mut pool, &fresh);
        assert_eq!(pool.share(&tokens(96)).pages, pages[..1]);
        assert_eq!(b.pages.len(), 3);
    }

    #[test]
    fn growth_stops_when_the_pool_is_empty_and_keeps_what_it_got() {
        let mut pool = PagePool::new(2);
        let mut table = PageTable::default();
        assert!(!pool.grow(&mut table, 65));
        assert_eq!(table.pages.len(), 2);
        pool.release(table);
        assert_eq!(pool.n_free(), 2);
    }

    #[test]
    fn a_copy_of_a_published_page_is_not_published_but_its_followers_are() {
        let mut pool = PagePool::new(8);
        let mut a = PageTable::default();
        let mut b = PageTable::default();
        assert!(pool.grow(&mut a, 64) && pool.grow(&mut b, 64));
        pool.publish(&mut a, &tokens(32));
        pool.publish(&mut b, &tokens(64));
        let shared = pool.share(&tokens(64));
        assert_eq!(shared.pages, [a.pages[0], b.pages[1]]);
    }
}
