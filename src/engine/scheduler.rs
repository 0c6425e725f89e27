//! Which sequences take part in the next step, and with which tokens.
//!
//! A step is a prefill of chunks of one or several prompts, or a decode of all sequences that
//! generate; the two alternate where both have work. Sequences keep the order in which they
//! arrived; short of pages, the youngest is preempted and computed again later.

use std::collections::VecDeque;

use super::Error;
use super::pages::PagePool;
use super::sequence::Sequence;
use crate::backend::{Batch, PAGE_TOKENS, Phase, Sampling};

/// How much may be in one step.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Sequences that run at once; the rows of a decode step.
    pub n_parallel: usize,
    /// Rows of a prefill step.
    pub n_batch: usize,
    /// Rows of a decode step beside those: guessed tokens.
    pub n_draft: usize,
}

/// The part of a step that belongs to one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Index into [`Scheduler::running`].
    pub sequence: usize,
    pub n_tokens: usize,
    /// Whether its last row is wanted: the next token is not known yet.
    pub wants_token: bool,
    /// Guessed tokens after those, whose rows are wanted too.
    pub n_draft: usize,
}

impl Share {
    /// Rows that are wanted.
    pub fn n_outputs(&self) -> usize {
        usize::from(self.wants_token) + self.n_draft
    }
}

/// A batch and whose it is. The wanted rows are those of the shares, in order.
#[derive(Debug)]
pub struct Step {
    pub batch: Batch,
    pub shares: Vec<Share>,
    /// How the device chooses the token after each wanted row; none where the host does.
    pub sampling: Vec<Option<Sampling>>,
    /// Whether each row's token is the one that the step before chooses for the same row.
    pub follows: bool,
}

/// All sequences of a model, and the pages they hold.
#[derive(Debug)]
pub struct Scheduler {
    budget: Budget,
    pool: PagePool,
    /// Slots of recurrent states that no sequence has; each running one has its own.
    free_states: Vec<u32>,
    waiting: VecDeque<Sequence>,
    /// By admission.
    pub running: Vec<Sequence>,
    last_phase: Phase,
}

impl Scheduler {
    /// Without sequences. The pool must hold one sequence of full context.
    pub fn new(budget: Budget, n_pages: usize) -> Scheduler {
        Scheduler {
            budget,
            pool: PagePool::new(n_pages),
            free_states: (0..budget.n_parallel as u32).rev().collect(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            last_phase: Phase::Decode,
        }
    }

    /// Takes a new sequence.
    pub fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Drops the sequences whose client went away.
    pub fn drop_cancelled(&mut self) {
        self.waiting.retain(|s| !s.is_cancelled());
        for i in (0..self.running.len()).rev() {
            if self.running[i].is_cancelled() {
                self.remove(i);
            }
        }
    }

    /// Takes a running sequence out and frees its pages.
    pub fn remove(&mut self, index: usize) {
        self.take_out(index);
    }

    /// Takes a running sequence out; its pages and its states are free.
    fn take_out(&mut self, index: usize) -> Sequence {
        let mut sequence = self.running.remove(index);
        self.free_states.push(sequence.state);
        self.pool.release(sequence.stop());
        sequence
    }

    /// Ends all sequences.
    pub fn fail_all(&mut self, error: &Error) {
        let running = self.running.drain(..);
        for mut sequence in running.chain(self.waiting.drain(..)) {
            sequence.fail(error.clone());
        }
    }

    /// The next step; none if nobody can go on.
    pub fn next_step(&mut self) -> Option<Step> {
        self.admit();
        let order = match self.last_phase {
            Phase::Decode => [Phase::Prefill, Phase::Decode],
            Phase::Prefill => [Phase::Decode, Phase::Prefill],
        };
        let step = order.into_iter().find_map(|phase| self.plan(phase))?;
        self.last_phase = step.batch.phase;
        Some(step)
    }

    /// The decode step after one that is under way, for the same sequences, whose next tokens only
    /// the device will know; none where something else may have to come between, or the host must
    /// choose a token.
    pub fn step_ahead(&mut self, step: &Step) -> Option<Step> {
        let may_admit = !self.waiting.is_empty() && self.running.len() < self.budget.n_parallel;
        let n_chosen = step.sampling.iter().flatten().count();
        let same = step.batch.phase == Phase::Decode
            && n_chosen == step.batch.n_tokens()
            && n_chosen == self.running.len();
        if may_admit || !same || !self.running.iter().all(Sequence::goes_on) {
            return None;
        }
        let shares = step.shares.iter();
        let sampling = shares.map(|share| self.running[share.sequence].sampling(true).map(Some));
        let sampling = sampling.collect::<Option<Vec<_>>>()?;
        for sequence in &mut self.running {
            if !self
                .pool
                .grow(&mut sequence.table, sequence.tokens.len() + 1)
            {
                return None;
            }
        }
        let mut batch = step.batch.clone();
        for (row, share) in step.shares.iter().enumerate() {
            let sequence = &self.running[share.sequence];
            let at = sequence.tokens.len();
            batch.positions[row] = at as u32;
            batch.slots[row] = sequence.table.slot(at);
            batch.tables[row].clone_from(&sequence.table.pages);
        }
        Some(Step {
            batch,
            shares: step.shares.clone(),
            sampling,
            follows: true,
        })
    }

    /// Records that a sequence's share of a step was computed.
    pub fn computed(&mut self, share: &Share) {
        self.running[share.sequence].n_computed += share.n_tokens;
        self.publish(share.sequence);
    }

    /// Lets later prompts share what is computed of a running sequence.
    pub fn publish(&mut self, index: usize) {
        let sequence = &mut self.running[index];
        let mut table = std::mem::take(&mut sequence.table);
        self.pool.publish(&mut table, sequence.shareable());
        sequence.table = table;
    }

    /// Makes room in a full context.
    pub fn shift(&mut self, index: usize) {
        let table = self.running[index].shift();
        self.pool.release(table);
    }

    /// Starts waiting sequences while there are places, and pages for all their tokens. The first
    /// one always starts: the pool holds one of any length.
    fn admit(&mut self) {
        while self.running.len() < self.budget.n_parallel {
            let Some(sequence) = self.waiting.front() else {
                return;
            };
            let table = self.pool.share(sequence.reusable());
            let n_pages = (sequence.tokens.len() + 1).div_ceil(PAGE_TOKENS);
            let n_missing = n_pages.saturating_sub(table.pages.len());
            if n_missing > self.pool.n_free() && !self.running.is_empty() {
                self.pool.release(table);
                return;
            }
            let mut sequence = self.waiting.pop_front().expect("just looked at");
            sequence.start(table);
            sequence.state = self.free_states.pop().expect("one for each that may run");
            self.running.push(sequence);
        }
    }

    /// A step of that phase, if any sequence has work for it.
    fn plan(&mut self, phase: Phase) -> Option<Step> {
        let mut shares: Vec<Share> = Vec::new();
        let (mut n_left, mut n_draft_left) = match phase {
            Phase::Prefill => (self.budget.n_batch, 0),
            Phase::Decode => (self.budget.n_parallel, self.budget.n_draft),
        };
        let mut index = 0;
        while index < self.running.len() && n_left > 0 {
            self.reuse(index);
            let n_tokens = self.n_tokens(index, phase).min(n_left);
            if n_tokens > 0 {
                if !self.make_room(index, n_tokens) {
                    break;
                }
                n_left -= n_tokens;
                let sequence = &mut self.running[index];
                let wants_token = sequence.n_computed + n_tokens == sequence.tokens.len();
                sequence.guess(if wants_token { n_draft_left } else { 0 });
                n_draft_left -= sequence.draft.len();
                shares.push(Share {
                    sequence: index,
                    n_tokens,
                    wants_token,
                    n_draft: sequence.draft.len(),
                });
            }
            index += 1;
        }
        (!shares.is_empty()).then(|| Step {
            batch: self.batch(phase, &shares),
            sampling: self.sampling(&shares),
            shares,
            follows: false,
        })
    }

    fn sampling(&self, shares: &[Share]) -> Vec<Option<Sampling>> {
        let rows = shares.iter().flat_map(|share| {
            let sequence = &self.running[share.sequence];
            let chosen = (share.n_draft == 0).then(|| sequence.sampling(false));
            std::iter::repeat_n(chosen.flatten(), share.n_outputs())
        });
        rows.collect()
    }

    /// Tokens that a sequence has for a step of that phase.
    fn n_tokens(&self, index: usize, phase: Phase) -> usize {
        let sequence = &self.running[index];
        match (sequence.is_prefilling(), phase) {
            _ if !sequence.is_ready() => 0,
            (true, Phase::Prefill) => sequence.n_prompt - sequence.n_computed,
            (false, Phase::Decode) => 1,
            _ => 0,
        }
    }

    /// Gets the pages for a sequence's next tokens, if need be from the youngest one. Sequences
    /// that already have a share are older, so they keep theirs. Whether it worked; if not, the
    /// sequence was itself the youngest and waits again.
    fn make_room(&mut self, index: usize, n_tokens: usize) -> bool {
        loop {
            let sequence = &mut self.running[index];
            let n_tokens = sequence.n_computed + n_tokens;
            if self.pool.grow(&mut sequence.table, n_tokens) {
                return true;
            }
            let youngest = self.running.len() - 1;
            self.preempt(youngest);
            if youngest == index {
                return false;
            }
        }
    }

    /// Looks for shared pages for a sequence of which nothing is computed: since it was admitted
    /// another one may have published some, or a shift made it begin again.
    fn reuse(&mut self, index: usize) {
        let sequence = &mut self.running[index];
        if sequence.n_computed == 0 && sequence.table.pages.is_empty() {
            let table = self.pool.share(sequence.reusable());
            sequence.start(table);
        }
    }

    fn preempt(&mut self, index: usize) {
        let sequence = self.take_out(index);
        self.waiting.push_front(sequence);
    }

    fn batch(&self, phase: Phase, shares: &[Share]) -> Batch {
        let mut batch = Batch {
            phase,
            tokens: Vec::new(),
            positions: Vec::new(),
            slots: Vec::new(),
            sequences: Vec::new(),
            tables: Vec::new(),
            states: Vec::new(),
            outputs: Vec::new(),
        };
        for (i, share) in shares.iter().enumerate() {
            let sequence = &self.running[share.sequence];
            let known = &sequence.tokens[sequence.n_computed..][..share.n_tokens];
            let tokens = known.iter().chain(&sequence.draft[..share.n_draft]);
            for (at, &token) in (sequence.n_computed..).zip(tokens) {
                batch.tokens.push(token);
                batch.positions.push(at as u32);
                batch.slots.push(sequence.table.slot(at));
                batch.sequences.push(i as u32);
            }
            batch.tables.push(sequence.table.pages.clone());
            batch.states.push(sequence.state);
            let end = batch.tokens.len() as u32;
            batch.outputs.extend(end - share.n_outputs() as u32..end);
        }
        batch
    }

    /// State slots that no sequence has.
    #[cfg(test)]
    pub fn n_free_states(&self) -> usize {
        self.free_states.len()
    }

    /// Pages that no sequence holds.
    #[cfg(test)]
    pub fn n_free_pages(&self) -> usize {
        self.pool.n_free()
    }
}
