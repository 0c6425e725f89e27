//! The way back of a step's results: tokens that the device chose, candidates of other rows.

use std::collections::VecDeque;

use super::device::Device;
use super::dispatch::TopKResult;
use crate::backend::{BackendError, Batch, Candidates, Plan, Rows, Sampled, Sampling};

/// The id of an empty place in a list of candidates, and of a row whose token could not be chosen,
/// as in `shaders/parts/candidates.wgsl`.
const NO_ID: u32 = u32::MAX;

/// Steps that may be under way: while the host reads one, the device runs the other.
const MAX_STARTED: usize = 2;

/// What comes back of the steps of a plan.
pub(super) struct Results {
    shape: TopKResult,
    lists: wgpu::Buffer,
    sums: wgpu::Buffer,
    chosen: wgpu::Buffer,
    /// Taken in turns.
    readbacks: [wgpu::Buffer; MAX_STARTED],
    n_started: usize,
    started: VecDeque<(Started, wgpu::SubmissionIndex)>,
    /// Rows of the last step, if the device chose all their tokens; else none.
    n_chosen: usize,
}

/// What a step leaves for the host.
pub(super) struct Started {
    /// Whether the device chooses the token, by wanted row.
    chooses: Vec<bool>,
    readback: wgpu::Buffer,
}

impl Started {
    fn any_chosen(&self) -> bool {
        self.chooses.contains(&true)
    }

    fn all_chosen(&self) -> bool {
        !self.chooses.contains(&false)
    }
}

impl Results {
    /// For a plan with candidates in these scratch buffers.
    pub fn new(
        device: &Device,
        plan: &Plan,
        shape: TopKResult,
        scratch: &[wgpu::Buffer],
    ) -> Result<Results, BackendError> {
        let n = plan.shape.n_rows(shape.rows);
        let readback = || device.readback((4 * n * (1 + 2 * (shape.k + shape.slices))) as u64);
        Ok(Results {
            shape,
            lists: scratch[shape.lists].clone(),
            sums: scratch[shape.sums].clone(),
            chosen: scratch[shape.chosen].clone(),
            readbacks: [readback()?, readback()?],
            n_started: 0,
            started: VecDeque::new(),
            n_chosen: 0,
        })
    }

    /// Bytes of the buffers that are its own.
    pub fn bytes(&self) -> u64 {
        self.readbacks.iter().map(wgpu::Buffer::size).sum()
    }

    /// Wanted rows of a batch.
    pub fn n_rows(&self, batch: &Batch) -> usize {
        match self.shape.rows {
            Rows::Tokens => batch.n_tokens(),
            Rows::Outputs => batch.outputs.len(),
        }
    }

    /// Checks that a step may begin, where `follows` says so with the tokens that the last one chose.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] says why it may not.
    pub fn check(
        &self,
        batch: &Batch,
        sampling: &[Option<Sampling>],
        follows: bool,
    ) -> Result<(), BackendError> {
        let invalid = |what: String| Err(BackendError::Invalid(what));
        let n_results = self.n_rows(batch);
        if self.started.len() == MAX_STARTED {
            return invalid(format!("{MAX_STARTED} steps are under way"));
        }
        if !sampling.is_empty() && sampling.len() != n_results {
            return invalid(format!("{} choices for {n_results} rows", sampling.len()));
        }
        if follows && batch.n_tokens() != self.n_chosen {
            return invalid(format!("the last step chose {} tokens", self.n_chosen));
        }
        for row in sampling.iter().flatten() {
            row.check().or_else(invalid)?;
        }
        Ok(())
    }

    /// Copies the tokens that the last step chose to where a batch has its own.
    pub fn copy_chosen(&self, encoder: &mut wgpu::CommandEncoder, batch: &wgpu::Buffer, at: usize) {
        let bytes = 4 * self.n_chosen as u64;
        encoder.copy_buffer_to_buffer(&self.chosen, 0, batch, 4 * at as u64, bytes);
    }

    /// Copies what the host wants of a step, after its last launch.
    pub fn copy(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        batch: &Batch,
        sampling: &[Option<Sampling>],
    ) -> Started {
        let mut chooses: Vec<bool> = sampling.iter().map(Option::is_some).collect();
        chooses.resize(self.n_rows(batch), false);
        let step = Started {
            chooses,
            readback: self.readbacks[self.n_started % MAX_STARTED].clone(),
        };
        let mut to = 0;
        for (from, n_words) in self.parts(&step) {
            let bytes = 4 * n_words as u64;
            encoder.copy_buffer_to_buffer(from, 0, &step.readback, to, bytes);
            to += bytes;
        }
        step
    }

    /// A step whose results were copied is on its way.
    pub fn submitted(&mut self, step: Started, submission: wgpu::SubmissionIndex) {
        self.n_chosen = if step.all_chosen() {
            step.chooses.len()
        } else {
            0
        };
        self.n_started += 1;
        self.started.push_back((step, submission));
    }

    /// What is read back of a step, and words of it.
    fn parts(&self, step: &Started) -> impl Iterator<Item = (&wgpu::Buffer, usize)> {
        let n = step.chooses.len();
        let TopKResult { k, slices, .. } = self.shape;
        let tokens = step.any_chosen().then_some((&self.chosen, n));
        let lists = [(&self.lists, 2 * n * k), (&self.sums, 2 * n * slices)];
        let lists = (!step.all_chosen()).then_some(lists);
        tokens.into_iter().chain(lists.into_iter().flatten())
    }

    /// Waits for the oldest step and reads its results.
    pub fn read(&mut self, device: &Device) -> Result<Vec<Sampled>, BackendError> {
        let Some((step, submission)) = self.started.pop_front() else {
            return Err(BackendError::Invalid("no step is under way".into()));
        };
        if step.chooses.is_empty() {
            return device.wait_for(submission).map(|()| Vec::new());
        }
        let n_words = self.parts(&step).map(|(_, n)| n).sum();
        let words = device.read_words(&step.readback, n_words, submission)?;
        let n = step.chooses.len();
        let TopKResult { k, slices, .. } = self.shape;
        let (tokens, words) = words.split_at(if step.any_chosen() { n } else { 0 });
        let (lists, sums) = words.split_at(if step.all_chosen() { 0 } else { 2 * n * k });
        let row = |(i, chooses): (usize, &bool)| match chooses {
            true if tokens[i] == NO_ID => Sampled::InvalidLogits,
            true => Sampled::Token(tokens[i]),
            false => Sampled::Candidates(candidates(
                &lists[2 * k * i..][..2 * k],
                &sums[2 * slices * i..][..2 * slices],
            )),
        };
        Ok(step.chooses.iter().enumerate().map(row).collect())
    }
}

/// A row's candidates from its list of (logit, id) and its parts of the sum of exponentials.
fn candidates(list: &[u32], sums: &[u32]) -> Candidates {
    let float = |word: &u32| f64::from(f32::from_bits(*word));
    let largest = sums.iter().step_by(2).map(float).fold(f64::MIN, f64::max);
    let parts = sums.chunks_exact(2);
    let sum: f64 = parts
        .map(|part| float(&part[1]) * (float(&part[0]) - largest).exp())
        .sum();
    // Logits that are not numbers take no place, and leave some at the end empty.
    let filled = || list.chunks_exact(2).take_while(|pair| pair[1] != NO_ID);
    Candidates {
        ids: filled().map(|pair| pair[1]).collect(),
        logits: filled().map(|pair| f32::from_bits(pair[0])).collect(),
        log_sum_exp: (largest + sum.ln()) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_places_are_no_candidates() {
        let one = 1f32.to_bits();
        let list = [one, 7, one, NO_ID];
        let sums = [one, one, 0, 0];
        let found = candidates(&list, &sums);
        assert_eq!((found.ids, found.logits), (vec![7], vec![1.0]));
        assert_eq!(found.log_sum_exp, 1.0);
    }
}
