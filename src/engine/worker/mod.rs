//! The model's thread: take requests, schedule, run, choose tokens, tell the clients.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::device::Device;
use super::inbox::Inbox;
use super::output::Vocabulary;
use super::scheduler::{Budget, Scheduler, Share, Step};
use super::sequence::{Choice, Limits, Sequence, Submission};
use super::{EngineOptions, Error, Logprob, TokenLogprob};
use crate::backend::{Candidates, Phase, Sampled};

/// Everything that one loaded model owns.
pub struct Worker {
    device: Device,
    vocabulary: Arc<dyn Vocabulary>,
    inbox: Arc<Inbox<Submission>>,
    scheduler: Scheduler,
    limits: Limits,
    ahead: Option<Ahead>,
}

/// A step that is under way before the tokens of the step before were looked at.
struct Ahead {
    step: Step,
    /// Sequences that those tokens ended: their share is void.
    ended: Vec<usize>,
}

/// A row whose token the host chooses: its best candidates, its place among the wanted ones.
struct Row<'a> {
    best: &'a Candidates,
    index: usize,
}

/// All logits of the row that was asked for last.
struct Logits<'a> {
    device: &'a mut Device,
    phase: Phase,
    read: Option<(usize, Vec<f32>)>,
}

impl Logits<'_> {
    fn row(&mut self, index: usize) -> Result<&[f32], Error> {
        let row = match self.read.take() {
            Some((read, row)) if read == index => row,
            _ => self.device.logits(self.phase, index)?,
        };
        Ok(&self.read.insert((index, row)).1)
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
                device_samples: device.samples,
            },
            device,
            vocabulary,
            inbox,
            ahead: None,
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
    ///
    /// Where the device can, the step after it begins before its tokens are read: the device never
    /// waits for the host. Sequences stay where they are until that step is over, since it is theirs
    /// too.
    fn turn(&mut self, wait: bool) -> Result<bool, Error> {
        for submission in self.inbox.take(wait)? {
            self.add(submission);
        }
        let Ahead { step, ended } = match self.ahead.take() {
            Some(ahead) => ahead,
            None => {
                self.scheduler.drop_cancelled();
                let Some(step) = self.scheduler.next_step() else {
                    return Ok(false);
                };
                self.start(&step)?;
                let ended = Vec::new();
                Ahead { step, ended }
            }
        };
        let next = match ended.is_empty() {
            true => self.scheduler.step_ahead(&step),
            false => None,
        };
        if let Some(next) = &next {
            self.start(next)?;
        }
        let ended = self.finish(&step, ended)?;
        match next {
            Some(step) => self.ahead = Some(Ahead { step, ended }),
            None => self.tidy(&step.shares, &ended),
        }
        Ok(true)
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

    /// Begins a step. Grammars compute which tokens may come next while a device works beside the
    /// host; where it does not, that takes microseconds and no core is idle.
    fn start(&mut self, step: &Step) -> Result<(), Error> {
        if !self.device.samples {
            self.prepare_grammars(step);
        }
        self.device
            .start(&step.batch, &step.sampling, step.follows)?;
        if self.device.samples {
            self.prepare_grammars(step);
        }
        Ok(())
    }

    fn prepare_grammars(&mut self, step: &Step) {
        for share in step.shares.iter().filter(|share| share.wants_token) {
            let sequence = &mut self.scheduler.running[share.sequence];
            if let Some(grammar) = sequence.grammar() {
                grammar.prepare();
            }
        }
    }

    /// Waits for a step and gives each sequence its token, except those that ended before. Returns
    /// all that have ended.
    fn finish(&mut self, step: &Step, mut ended: Vec<usize>) -> Result<Vec<usize>, Error> {
        let rows = self.device.finish(step.batch.outputs.len())?;
        let mut logits = Logits {
            device: &mut self.device,
            phase: step.batch.phase,
            read: None,
        };
        let mut first = 0;
        for share in &step.shares {
            let indices = first..first + share.n_outputs();
            first = indices.end;
            if ended.contains(&share.sequence) {
                continue;
            }
            self.scheduler.computed(share);
            let sequence = &mut self.scheduler.running[share.sequence];
            for (i, index) in indices.enumerate() {
                if advance(
                    sequence,
                    &rows[index],
                    index,
                    &mut logits,
                    &*self.vocabulary,
                )? {
                    ended.push(share.sequence);
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
        Ok(ended)
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

/// Gives a sequence its next token, of the wanted row at `index`. Whether it has ended.
fn advance(
    sequence: &mut Sequence,
    sampled: &Sampled,
    index: usize,
    logits: &mut Logits<'_>,
    vocabulary: &dyn Vocabulary,
) -> Result<bool, Error> {
    if sequence.finish_without_tokens() {
        return Ok(true);
    }
    let (chosen, row) = match sampled {
        Sampled::Token(token) => (Ok(*token), None),
        Sampled::InvalidLogits => (Err(Error::InvalidLogits), None),
        Sampled::Candidates(best) => {
            let row = Row { best, index };
            (choose(sequence, &row, logits), Some(row))
        }
    };
    let token = match chosen {
        // The fault of the model's numbers, which another prompt may not have, or of the grammar.
        Err(error @ (Error::InvalidLogits | Error::Grammar(_))) => {
            sequence.fail(error);
            return Ok(true);
        }
        chosen => chosen?,
    };
    let logprob = match row.zip(sequence.n_logprobs()) {
        Some((row, n)) => Some(logprob(token, n, &row, logits, vocabulary)?),
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
