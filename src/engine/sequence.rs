//! One request at work: its tokens, how far they are computed, and its way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::draft::draft;
use super::grammar::{Allowed, Grammar};
use super::output::{Output, Piece, Vocabulary};
use super::pages::PageTable;
use super::sampler::Sampler;
use super::{Error, Event, FinishReason, Request, TokenLogprob, Usage};
use crate::backend::{PAGE_TOKENS, Sampling};

/// Events that a client may leave unread before its sequence waits for it.
pub const EVENT_QUEUE: usize = 64;

/// Events that one step sends at most, and one for a failure after it.
pub const EVENTS_PER_STEP: usize = 3;

/// Times are never zero: Ollama's clients take that for missing.
const SHORTEST: Duration = Duration::from_micros(1);

/// A place among a model's requests, given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    n_open: Arc<AtomicUsize>,
}

impl Ticket {
    /// A place, if fewer than `limit` are taken.
    pub fn take(n_open: &Arc<AtomicUsize>, limit: usize) -> Option<Ticket> {
        let next = |n| (n < limit).then_some(n + 1);
        let taken = n_open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.ok().map(|_| Ticket {
            n_open: Arc::clone(n_open),
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.n_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request on its way to the model's thread.
#[derive(Debug)]
pub struct Submission {
    pub request: Request,
    pub events: mpsc::Sender<Event>,
    pub ticket: Ticket,
}

/// The limits that a model sets to its sequences.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub n_ctx: usize,
    /// Whether generated tokens may be recomputed as a prompt.
    pub decode_equals_prefill: bool,
    /// Whether the model has recurrent states. They are kept for the last token alone, so that
    /// such a model shares no pages: what comes after a shared prefix needs its state.
    pub is_recurrent: bool,
    /// Whether the device chooses tokens where it can.
    pub device_samples: bool,
}

/// What the next token of a sequence is chosen with.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    pub sampler: &'a Sampler,
    /// All tokens before it.
    pub history: &'a [u32],
    /// Its place among the generated tokens.
    pub index: usize,
    /// The tokens to choose from, where there is a grammar.
    pub allowed: Option<&'a Allowed>,
}

/// A prompt and its continuation.
#[derive(Debug)]
pub struct Sequence {
    /// Prompt and generated tokens that are in the context.
    pub tokens: Vec<u32>,
    /// Leading tokens that are computed in prefill; later ones are computed in decode.
    pub n_prompt: usize,
    /// Leading tokens whose keys and values are in the cache.
    pub n_computed: usize,
    /// Guesses at the tokens after the last, for the next step to check.
    pub draft: Vec<u32>,
    pub table: PageTable,
    /// Slot of its recurrent states while it runs.
    pub state: u32,
    limits: Limits,
    request: Request,
    sampler: Sampler,
    output: Output,
    usage: Usage,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_piece: String,
    n_repeats: usize,
    events: mpsc::Sender<Event>,
    _ticket: Ticket,
}

impl Sequence {
    /// A sequence whose prompt is not computed. `random` seeds requests without a seed.
    pub fn new(submission: Submission, limits: Limits, random: u64) -> Sequence {
        let Submission {
            mut request,
            events,
            ticket,
        } = submission;
        let tokens = std::mem::take(&mut request.tokens);
        Sequence {
            n_prompt: tokens.len(),
            n_computed: 0,
            draft: Vec::new(),
            table: PageTable::default(),
            state: 0,
            sampler: Sampler::new(&request.params, request.params.seed.unwrap_or(random)),
            output: Output::new(&request.stop),
            usage: Usage {
                prompt_tokens: tokens.len(),
                ..Usage::default()
            },
            started: None,
            first_token: None,
            last_piece: String::new(),
            n_repeats: 0,
            tokens,
            limits,
            request,
            events,
            _ticket: ticket,
        }
    }

    /// Whether the client went away.
    pub fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the client has read enough for another step.
    pub fn is_ready(&self) -> bool {
        self.events.capacity() >= EVENTS_PER_STEP
    }

    /// Whether its next tokens are computed in prefill.
    pub fn is_prefilling(&self) -> bool {
        self.n_computed < self.n_prompt
    }

    /// Tokens that later prompts may share: those that prefill would have computed alike.
    pub fn shareable(&self) -> &[u32] {
        match self.limits {
            Limits {
                is_recurrent: true, ..
            } => &[],
            Limits {
                decode_equals_prefill: true,
                ..
            } => &self.tokens[..self.n_computed],
            _ => &self.tokens[..self.n_computed.min(self.n_prompt)],
        }
    }

    /// Tokens that may be taken from shared pages. The last token is always computed: its logits
    /// choose the next one.
    pub fn reusable(&self) -> &[u32] {
        match self.limits.is_recurrent {
            true => &[],
            false => &self.tokens[..self.n_prompt.min(self.tokens.len() - 1)],
        }
    }

    /// Begins, or begins again, with a table of shared pages.
    pub fn start(&mut self, table: PageTable) {
        self.started.get_or_insert_with(Instant::now);
        self.n_computed = table.pages.len() * PAGE_TOKENS;
        if self.usage.eval_tokens == 0 {
            self.usage.cached_tokens = self.n_computed;
        }
        self.table = table;
    }

    /// Forgets what was computed and hands over its pages. Generated tokens will be computed in
    /// the phase that computed them first, unless that makes no difference.
    pub fn stop(&mut self) -> PageTable {
        self.n_computed = 0;
        if self.limits.decode_equals_prefill {
            self.n_prompt = self.tokens.len();
        }
        std::mem::take(&mut self.table)
    }

    /// Best alternatives whose probability is wanted.
    pub fn n_logprobs(&self) -> Option<usize> {
        self.request.logprobs
    }

    /// Guesses at most `most` of the tokens after the last. A guess takes no page, no place of the
    /// context and no event that would otherwise be free; with a grammar there is none, since only
    /// the next token's mask is known.
    pub fn guess(&mut self, most: usize) {
        self.draft.clear();
        if most.min(self.request.n_draft) == 0 || self.request.grammar.is_some() {
            return;
        }
        let n_tokens = self.tokens.len();
        let n_slots = self.table.pages.len() * PAGE_TOKENS;
        let most = most
            .min(self.request.n_draft)
            .min(n_slots.saturating_sub(n_tokens))
            .min(self.limits.n_ctx.saturating_sub(n_tokens + 1))
            .min(self.events.capacity().saturating_sub(EVENTS_PER_STEP));
        self.draft.extend_from_slice(draft(&self.tokens, most));
        self.usage.drafted_tokens += self.draft.len();
    }

    /// Whether the last token is guess number `i`. If so, what the step computed of it stays.
    pub fn accept_guess(&mut self, i: usize) -> bool {
        let is_right = self.draft.get(i) == self.tokens.last();
        if is_right {
            self.n_computed += 1;
            self.usage.accepted_tokens += 1;
        }
        is_right
    }

    /// What the next token is chosen with.
    ///
    /// # Errors
    /// [`Error::Grammar`] where the grammar cannot go on.
    pub fn choice(&self) -> Result<Choice<'_>, Error> {
        let grammar = self.request.grammar.as_ref();
        Ok(Choice {
            sampler: &self.sampler,
            history: &self.tokens,
            index: self.usage.eval_tokens,
            allowed: grammar.map(Grammar::allowed).transpose()?,
        })
    }

    /// How the device chooses the next token, or with `ahead` the one after that, which it can do
    /// before the host knows the next; none where the host must choose.
    pub fn sampling(&self, ahead: bool) -> Option<Sampling> {
        let Request {
            logprobs, grammar, ..
        } = &self.request;
        if !self.limits.device_samples || logprobs.is_some() || grammar.is_some() {
            return None;
        }
        let n_before = self.tokens.len() - usize::from(!ahead);
        let index = self.usage.eval_tokens + usize::from(ahead);
        self.sampler.on_device(&self.tokens[..n_before], index)
    }

    /// Whether nothing but the next token itself can keep the sequence from wanting the one after
    /// that: it ends neither by its budget nor by a full context, and its client listens.
    pub fn goes_on(&self) -> bool {
        self.usage.eval_tokens + 1 < self.budget()
            && self.tokens.len() + 1 < self.limits.n_ctx
            && self.events.capacity() >= 2 * EVENTS_PER_STEP
            && !self.is_cancelled()
    }

    /// The automaton that restricts its tokens.
    pub fn grammar(&mut self) -> Option<&mut Grammar> {
        self.request.grammar.as_mut()
    }

    /// Most tokens that it may generate.
    fn budget(&self) -> usize {
        let most = self.limits.n_ctx.saturating_mul(10);
        self.request.n_predict.map_or(most, |n| n.min(most))
    }

    /// Ends a sequence that may not generate anything. Whether it was one.
    pub fn finish_without_tokens(&mut self) -> bool {
        if self.budget() > 0 {
            return false;
        }
        self.mark_time();
        self.finish(FinishReason::Length);
        true
    }

    /// Takes the token that was chosen after all others. Whether the sequence has ended.
    pub fn push(
        &mut self,
        token: u32,
        logprob: Option<TokenLogprob>,
        vocabulary: &dyn Vocabulary,
    ) -> bool {
        self.mark_time();
        self.usage.eval_tokens += 1;
        if vocabulary.is_end_of_generation(token) {
            self.finish(FinishReason::Stop);
            return true;
        }
        if let Some(grammar) = &mut self.request.grammar
            && let Err(error) = grammar.accept(token)
        {
            self.fail(error);
            return true;
        }
        self.tokens.push(token);
        let is_shown =
            !vocabulary.is_control(token) || self.request.visible_tokens.contains(&token);
        let bytes = match is_shown {
            true => vocabulary.token_bytes(token),
            false => &[],
        };
        let (piece, stopped) = self.output.push(token, bytes, logprob);
        let repeats = self.repeats(&piece);
        self.send(piece);
        if stopped {
            self.usage.matched_stop = self.output.matched_stop();
            self.end(FinishReason::Stop);
        } else if repeats {
            // An answer that a grammar has not brought to its end is cut, and no finished one.
            self.finish(match self.request.grammar {
                Some(_) => FinishReason::Length,
                None => FinishReason::Stop,
            });
        } else if self.usage.eval_tokens >= self.budget() || self.is_full() && !self.can_shift() {
            self.finish(FinishReason::Length);
        } else {
            return false;
        }
        true
    }

    fn mark_time(&mut self) {
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        let first = *self.first_token.get_or_insert(now);
        self.usage.prompt_duration = (first - started).max(SHORTEST);
        self.usage.eval_duration = (now - first).max(SHORTEST);
    }

    /// Whether more pieces in a row were equal than the request allows. Texts that say nothing
    /// are pieces too, but held-back ones are not.
    fn repeats(&mut self, piece: &Piece) -> bool {
        if piece.is_empty() {
            return false;
        }
        let text = piece.text.trim();
        if text == self.last_piece {
            self.n_repeats += 1;
        } else {
            self.last_piece = text.to_string();
            self.n_repeats = 0;
        }
        self.request
            .max_repeats
            .is_some_and(|most| self.n_repeats > most)
    }

    /// Whether the context has no place for the next token after the last.
    pub fn is_full(&self) -> bool {
        self.tokens.len() >= self.limits.n_ctx
    }

    /// Tokens that a shift keeps and tokens that it then drops.
    fn shift_range(&self) -> std::ops::Range<usize> {
        let prompt = self.usage.prompt_tokens;
        let keep = usize::try_from(self.request.n_keep).unwrap_or(prompt);
        let keep = keep.min(self.limits.n_ctx.saturating_sub(4));
        keep..keep + self.tokens.len().saturating_sub(keep + 1) / 2
    }

    fn can_shift(&self) -> bool {
        self.request.shift && !self.shift_range().is_empty()
    }

    /// Drops half of what need not be kept; the rest becomes a prompt. Hands over the pages.
    pub fn shift(&mut self) -> PageTable {
        let dropped = self.shift_range();
        self.tokens.drain(dropped);
        self.n_prompt = self.tokens.len();
        self.n_computed = 0;
        std::mem::take(&mut self.table)
    }

    /// Sends what was held back and the end.
    fn finish(&mut self, reason: FinishReason) {
        let rest = self.output.finish();
        self.send(rest);
        self.end(reason);
    }

    fn end(&mut self, reason: FinishReason) {
        self.emit(Event::Done {
            reason,
            usage: self.usage,
        });
    }

    fn send(&mut self, piece: Piece) {
        if !piece.is_empty() {
            let Piece {
                text,
                tokens,
                logprobs,
            } = piece;
            self.emit(Event::Piece {
                text,
                tokens,
                logprobs,
                cached_tokens: self.usage.cached_tokens,
            });
        }
    }

    /// Tells the client that it will get nothing more.
    pub fn fail(&mut self, error: Error) {
        self.emit(Event::Failed(error));
    }

    /// There is room, since `is_ready` was asked before the step; a client that went away does
    /// not matter.
    fn emit(&mut self, event: Event) {
        let _ = self.events.try_send(event);
    }
}
