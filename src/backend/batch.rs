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
    /// One row per sequence.
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
    /// Rows (indices into the tokens) whose logits are wanted, rising. May be empty.
    pub outputs: Vec<u32>,
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
            outputs,
        }
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
        let rising = self.outputs.windows(2).all(|w| w[0] < w[1]);
        if !rising || self.outputs.last().is_some_and(|&o| o as usize >= n) {
            return Err("the wanted rows are not rising rows of the batch".into());
        }
        Ok(())
    }
}
