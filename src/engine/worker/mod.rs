//! The model's thread: take requests, schedule, run, choose tokens, tell the clients.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use super::device::Device;
use super::grammar::Grammar;
use super::inbox::Inbox;
use super::output::Vocabulary;
use super::scheduler::{Budget, Scheduler, Share, Step};
use super::sequence::{Choice, Limits, Sequence, Submission};
use super::{EngineOptions, Error, Logprob, TokenLogprob};
use crate::backend::{Candidates, Phase};

/// Everything that one loaded model owns.
pub struct Worker {
    device: Device,
    vocabulary: Arc<dyn Vocabulary>,
    inbox: Arc<Inbox<Submission>>,
    scheduler: Scheduler,
    limits: Limits,
}

/// What a step gave for one sequence: its best candidates and its row among the wanted ones.
struct Row<'a> {
    best: &'a Candidates,
    index: usize,
}

/// All logits of a step, read at most once.
struct Logits<'a> {
    device: &'a mut Device,
    phase: Phase,
    n_rows: usize,
    rows: Option<Vec<f32>>,
}

impl Logits<'_> {
    fn row(&mut self, index: usize) -> Result<&[f32], Error> {
        let vocab_size = self.device.info.vocab_size;
        let rows = match self.rows.take() {
            Some(rows) => rows,
            None => self.device.logits(self.phase, self.n_rows)?,
        };
        Ok(&self.rows.insert(rows)[index * vocab_size..][..vocab_size])
    }
}

impl Worker {
    /// A worker without requests.
    pub fn new(
        device: Device,
        vocabulary: Arc<dyn Vocabulary>,
        inbox: Arc<Inbox<Submission>>,
        options: EngineOptions,
    ) -> Worker {
        let budget = Budget {
            n_parallel: options.n_parallel,
            n_batch: options.n_batch,
            n_draft: device.n_draft,
        };
        Worker {
            scheduler: Scheduler::new(budget, device.n_pages),
            limits: Limits {
                n_ctx: options.n_ctx,
                decode_equals_prefill: device.decode_equals_prefill(),
                is_recurrent: device.is_recurrent,
            },
            device,
            vocabulary,
            inbox,
        }
    }

    /// Serves until the inbox is closed, the device fails, or something panics; then fails what
    /// is left. The device's memory is free when this returns.
    pub fn run(mut self) {
        let ending = guarded(|| self.serve());
        self.inbox.close(ending.clone());
        for submission in self.inbox.left_over() {
            self.add(submission);
        }
        self.scheduler.fail_all(&ending);
    }

    /// Returns why it ended.
    fn serve(&mut self) -> Error {
        let mut is_idle = true;
        loop {
            match self.turn(is_idle) {
                Ok(worked) => is_idle = !worked,
                Err(error) => return error,
            }
        }
    }

    /// Takes arrivals, waiting for news if `wait`, and runs one step. Whether there was one.
    fn turn(&mut self, wait: bool) -> Result<bool, Error> {
        for submission in self.inbox.take(wait)? {
            self.add(submission);
        }
        self.scheduler.drop_cancelled();
        match self.scheduler.next_step() {
            Some(step) => self.step(&step).map(|()| true),
            None => Ok(false),
        }
    }

    fn add(&mut self, submission: Submission) {
        if submission.request.n_draft > 0 && self.device.n_draft == 0 {
            let device = &self.device.info.device.name;
            tracing::warn!(device, "draft_num_predict has no effect on this device");
        }
        let random = RandomState::new().build_hasher().finish();
        self.scheduler
            .add(Sequence::new(submission, self.limits, random));
    }

    /// Runs a step and gives each sequence its token.
    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let candidates = self.run_device(step)?;
        self.scheduler.computed(&step.shares);
        let mut logits = Logits {
            device: &mut self.device,
            phase: step.batch.phase,
            n_rows: candidates.len(),
            rows: None,
        };
        let mut first = 0;
        let mut finished = Vec::new();
        for share in &step.shares {
            let rows = first..first + share.n_outputs();
            first = rows.end;
            let sequence = &mut self.scheduler.running[share.sequence];
            for (i, index) in rows.enumerate() {
                let best = &candidates[index];
                let row = Row { best, index };
                if advance(sequence, &row, &mut logits, &*self.vocabulary)? {
                    finished.push(share.sequence);
                    break;
                }
                if !sequence.accept_guess(i) {
                    break;
                }
            }
            if share.n_draft > 0 {
                self.scheduler.publish(share.sequence);
            }
        }
        self.tidy(&step.shares, &finished);
        Ok(())
    }

    /// Runs the batch; while a GPU works, grammars compute which tokens may come next. Where the
    /// device is the processor, that is done before: it takes microseconds, less than a thread's
    /// beginning, and no core is idle.
    fn run_device(&mut self, step: &Step) -> Result<Vec<Candidates>, Error> {
        let wants_token = |index: usize| {
            let mut shares = step.shares.iter();
            shares.any(|share| share.wants_token && share.sequence == index)
        };
        let sequences = self.scheduler.running.iter_mut().enumerate();
        let mut grammars: Vec<&mut Grammar> = sequences
            .filter(|(index, _)| wants_token(*index))
            .filter_map(|(_, sequence)| sequence.grammar())
            .collect();
        if grammars.is_empty() || !self.device.info.device.is_gpu {
            grammars.iter_mut().for_each(|grammar| grammar.prepare());
            return Ok(self.device.run(&step.batch)?);
        }
        let device = &mut self.device;
        thread::scope(|scope| {
            scope.spawn(move || grammars.iter_mut().for_each(|grammar| grammar.prepare()));
            Ok(device.run(&step.batch)?)
        })
    }

    /// Makes room in full contexts and takes out what has ended.
    fn tidy(&mut self, shares: &[Share], finished: &[usize]) {
        for share in shares.iter().rev() {
            if finished.contains(&share.sequence) {
                self.scheduler.remove(share.sequence);
            } else if self.scheduler.running[share.sequence].is_full() {
                self.scheduler.shift(share.sequence);
            }
        }
    }
}

/// Chooses the next token of a sequence. Whether it has ended.
fn advance(
    sequence: &mut Sequence,
    row: &Row<'_>,
    logits: &mut Logits<'_>,
    vocabulary: &dyn Vocabulary,
) -> Result<bool, Error> {
    if sequence.finish_without_tokens() {
        return Ok(true);
    }
    let token = match choose(sequence, row, logits) {
        // The fault of the model's numbers, which another prompt may not have, or of the grammar.
        Err(error @ (Error::InvalidLogits | Error::Grammar(_))) => {
            sequence.fail(error);
            return Ok(true);
        }
        chosen => chosen?,
    };
    let logprob = match sequence.n_logprobs() {
        Some(n) => Some(logprob(token, n, row, logits, vocabulary)?),
        None => None,
    };
    Ok(sequence.push(token, logprob, vocabulary))
}

fn choose(sequence: &Sequence, row: &Row<'_>, logits: &mut Logits<'_>) -> Result<u32, Error> {
    let Choice {
        sampler,
        history,
        index,
        allowed,
    } = sequence.choice()?;
    let vocab_size = logits.device.info.vocab_size;
    if let Some(token) = sampler.choose(row.best, vocab_size, history, index, allowed)? {
        return Ok(token);
    }
    let all = logits.row(row.index)?;
    sampler.choose_from_row(all, row.best.log_sum_exp, history, index, allowed)
}

/// Probabilities before any sampling step, as Ollama reports them.
fn logprob(
    token: u32,
    n_top: usize,
    row: &Row<'_>,
    logits: &mut Logits<'_>,
    vocabulary: &dyn Vocabulary,
) -> Result<TokenLogprob, Error> {
    let entry = |token: u32, logit: f32| Logprob {
        token,
        bytes: vocabulary.token_bytes(token).to_vec(),
        logprob: (logit - row.best.log_sum_exp).min(0.0),
    };
    let best = row
        .best
        .ids
        .iter()
        .copied()
        .zip(row.best.logits.iter().copied());
    let logit = match best.clone().find(|&(id, _)| id == token) {
        Some((_, logit)) => logit,
        None => logits.row(row.index)?[token as usize],
    };
    Ok(TokenLogprob {
        chosen: entry(token, logit),
        top: best
            .take(n_top)
            .map(|(id, logit)| entry(id, logit))
            .collect(),
    })
}

/// Why `serve` ended, by itself or by a panic; logged unless the model was unloaded.
pub fn guarded(serve: impl FnOnce() -> Error) -> Error {
    let ending = match catch_unwind(AssertUnwindSafe(serve)) {
        Ok(error) => error,
        Err(panic) => Error::Stopped(message(&*panic)),
    };
    if !matches!(ending, Error::Unloaded) {
        tracing::error!(error = %ending, "a model stops");
    }
    ending
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".into())
}

#[cfg(test)]
mod tests;
