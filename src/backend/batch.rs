//! The data of one step: which tokens, at which positions, of which sequences.

/// Tokens in a cache page.
pub const PAGE_TOKENS: usize = 32;

/// Slot of a row whose keys and values are not to be stored.
pub const NO_SLOT: u32 = u32::MAX;

/// Which kernels a step uses. The phase, not the number of rows, decides: so a token's result
/// does not depend on what shares its batch or on how a prompt was cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Chunks of prompts, any number of rows per sequence.
    Prefill,
    /// One row per sequence; more only where decode gives what prefill gives
    /// ([`super::Backend::decode_equals_prefill`]).
    Decode,
}

/// The pages of one sequence, in order of position: position `p` lies in page `p / PAGE_TOKENS`.
pub type TableRow = Vec<u32>;

/// One step's input. All vectors over tokens have the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub phase: Phase,
    /// Token ids, each below the vocabulary size. `[n_tokens]`
    pub tokens: Vec<u32>,
    /// Position in its sequence, counted from 0. `[n_tokens]`
    pub positions: Vec<u32>,
    /// Cache slot that takes the token's keys and values. `[n_tokens]`
    pub slots: Vec<u32>,
    /// Index into `tables`. Rows of one sequence are consecutive, by rising position. `[n_tokens]`
    pub sequences: Vec<u32>,
    /// Page table of each sequence; covers at least the positions of its tokens.
    pub tables: Vec<TableRow>,
    /// Slot of each sequence's recurrent states, different ones for different sequences; as many
    /// as `tables`. A sequence that begins at position 0 begins with states of zeros.
    pub states: Vec<u32>,
    /// Rows (indices into the tokens) whose logits are wanted, rising. May be empty.
    pub outputs: Vec<u32>,
}

/// The rows of one sequence in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First row.
    pub first: usize,
    /// Number of rows.
    pub len: usize,
    /// Slot of the sequence's recurrent states.
    pub state: usize,
    /// Whether the first row is the sequence's first token: its states are zeros before.
    pub begins: bool,
}

impl Batch {
    /// Number of rows.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// A batch of one sequence: tokens from position `start`, in pages `0, 1, 2, ...`. For tests,
    /// benches and tools that run a model without a scheduler.
    pub fn single(phase: Phase, tokens: &[u32], start: usize, outputs: Vec<u32>) -> Batch {
        let end = start + tokens.len();
        let positions: Vec<u32> = (start as u32..end as u32).collect();
        Batch {
            phase,
            tokens: tokens.to_vec(),
            slots: positions.clone(),
            positions,
            sequences: vec![0; tokens.len()],
            tables: vec![(0..end.div_ceil(PAGE_TOKENS) as u32).collect()],
            states: vec![0],
            outputs,
        }
    }

    /// A batch of whole texts, each in pages of its own, its last row wanted.
    pub fn whole(texts: &[&[u32]]) -> Batch {
        let mut batch = Batch::single(Phase::Prefill, &[], 0, Vec::new());
        batch.tables.clear();
        batch.states = (0..texts.len() as u32).collect();
        let mut n_pages = 0;
        for (i, text) in texts.iter().enumerate() {
            let first_slot = (n_pages * PAGE_TOKENS) as u32;
            let positions = 0..text.len() as u32;
            batch.tokens.extend_from_slice(text);
            batch
                .slots
                .extend(positions.clone().map(|p| first_slot + p));
            batch.positions.extend(positions);
            batch.sequences.resize(batch.tokens.len(), i as u32);
            let end = n_pages + text.len().div_ceil(PAGE_TOKENS);
            batch.tables.push((n_pages as u32..end as u32).collect());
            batch.outputs.push(batch.tokens.len() as u32 - 1);
            n_pages = end;
        }
        batch
    }

    /// Checks that every sequence begins in this batch, and that its rows lie together by rising
    /// position: what pooling and attention in both directions rely on.
    ///
    /// # Errors
    /// Names the first row that is out of order.
    pub fn check_whole(&self) -> Result<(), String> {
        let runs = self.sequences.chunk_by(|a, b| a == b);
        let expected = runs.flat_map(|run| 0..run.len() as u32);
        match self
            .positions
            .iter()
            .zip(expected)
            .position(|(&p, e)| p != e)
        {
            None => Ok(()),
            Some(row) => Err(format!(
                "row {row} does not continue a sequence that is whole"
            )),
        }
    }

    /// The rows of each sequence that takes part, in order.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        let mut first = 0;
        std::iter::from_fn(move || {
            let sequence = *self.sequences.get(first)?;
            let rest = self.sequences[first..].iter();
            let run = Run {
                first,
                len: rest.take_while(|&&s| s == sequence).count(),
                state: self.states[sequence as usize] as usize,
                begins: self.positions[first] == 0,
            };
            first += run.len;
            Some(run)
        })
    }

    /// Checks what every backend relies on. `n_positions` bounds positions where they are learned.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn check(&self, n_vocab: usize, n_positions: usize, n_slots: usize) -> Result<(), String> {
        let n = self.n_tokens();
        if self.positions.len() != n || self.slots.len() != n || self.sequences.len() != n {
            return Err("the columns of the batch differ in length".into());
        }
        for i in 0..n {
            if self.tokens[i] as usize >= n_vocab {
                return Err(format!(
                    "token {} is outside the vocabulary of {n_vocab}",
                    self.tokens[i]
                ));
            }
            if self.positions[i] as usize >= n_positions {
                return Err(format!(
                    "position {} is beyond the {n_positions} that the model has learned",
                    self.positions[i]
                ));
            }
            let Some(table) = self.tables.get(self.sequences[i] as usize) else {
                return Err(format!("row {i} names a sequence without a page table"));
            };
            if self.positions[i] as usize >= table.len() * PAGE_TOKENS {
                return Err(format!("row {i} lies beyond its page table"));
            }
            if self.slots[i] != NO_SLOT && self.slots[i] as usize >= n_slots {
                return Err(format!("row {i} names slot {} of {n_slots}", self.slots[i]));
            }
        }
        let mut pages = self.tables.iter().flatten();
        if pages.any(|&page| (page as usize + 1) * PAGE_TOKENS > n_slots) {
            return Err("a page table names a page outside the cache".into());
        }
        if self.states.len() != self.tables.len() {
            return Err("there must be a state slot for each page table".into());
        }
        let rising = self.outputs.windows(2).all(|w| w[0] < w[1]);
        if !rising || self.outputs.last().is_some_and(|&o| o as usize >= n) {
            return Err("the wanted rows are not rising rows of the batch".into());
        }
        Ok(())
    }

    /// Checks what operations with recurrent states rely on, of a batch that [`Batch::check`]
    /// accepts: one run of rows for each sequence, in a slot of its own below `n_states`.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn check_states(&self, n_states: usize) -> Result<(), String> {
        let mut is_taken = vec![false; n_states];
        for Run { first, state, .. } in self.runs() {
            match is_taken.get_mut(state) {
                None => {
                    return Err(format!(
                        "row {first} names state slot {state} of {n_states}"
                    ));
                }
                Some(true) => return Err(format!("two runs of rows share state slot {state}")),
                Some(taken) => *taken = true,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_rows_of_each_sequence() {
        let batch = Batch {
            positions: vec![0, 1, 9],
            sequences: vec![0, 0, 1],
            tables: vec![vec![0]; 2],
            states: vec![3, 1],
            ..Batch::single(Phase::Prefill, &[5, 6, 7], 0, vec![])
        };
        let run = |first, len, state, begins| Run {
            first,
            len,
            state,
            begins,
        };
        let runs: Vec<Run> = batch.runs().collect();
        assert_eq!(runs, [run(0, 2, 3, true), run(2, 1, 1, false)]);
        assert_eq!(batch.check_states(4), Ok(()));
        assert!(batch.check_states(3).is_err(), "a slot that there is not");
        let shared = Batch {
            states: vec![1, 1],
            ..batch
        };
        assert!(shared.check_states(4).is_err(), "a slot of two sequences");
    }

    #[test]
    fn texts_have_pages_of_their_own() {
        let batch = Batch::whole(&[&[5; 33], &[7]]);
        assert_eq!(batch.tables, [vec![0, 1], vec![2]]);
        assert_eq!(batch.outputs, [32, 33]);
        assert_eq!((batch.slots[33], batch.positions[33]), (64, 0));
        assert_eq!(batch.check_whole(), Ok(()));
        assert_eq!(batch.check(8, usize::MAX, 3 * PAGE_TOKENS), Ok(()));
    }

    #[test]
    fn a_sequence_that_began_earlier_is_not_whole() {
        let whole = Batch::single(Phase::Prefill, &[5, 6, 7], 0, vec![2]);
        assert_eq!(whole.check_whole(), Ok(()));
        let later = Batch::single(Phase::Prefill, &[5, 6, 7], 1, vec![2]);
        assert!(later.check_whole().is_err());
        let split = Batch {
            sequences: vec![0, 1, 0],
            positions: vec![0, 0, 1],
            ..whole
        };
        assert!(split.check_whole().is_err());
    }
}
