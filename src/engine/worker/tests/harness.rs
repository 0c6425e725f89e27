//! A worker on a fake backend, driven by hand, and what its clients ask and get.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::mpsc;

use crate::engine::fake::{self, FakeOptions, FakeVocabulary};
use crate::engine::inbox::Inbox;
use crate::engine::sampler::Sampler;
use crate::engine::sequence::{EVENT_QUEUE, Submission, Ticket};
use crate::engine::worker::Worker;
use crate::engine::{
    EngineOptions, Error, Event, FinishReason, Request, SamplingParams, TokenLogprob, Usage,
};

/// Numbers that look random and are the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A worker driven by hand, and its clients.
pub struct Harness {
    pub worker: Worker,
    pub n_open: Arc<AtomicUsize>,
    pub n_ctx: usize,
    pub n_pages: usize,
}

/// What a client has got so far.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub tokens: Vec<u32>,
    pub text: String,
    pub logprobs: Vec<TokenLogprob>,
    pub end: Option<Result<(FinishReason, Usage), Error>>,
}

pub struct Client {
    pub receiver: mpsc::Receiver<Event>,
    pub answer: Answer,
}

impl Client {
    /// Reads at most `n` events.
    pub fn read(&mut self, n: usize) {
        for _ in 0..n {
            match self.receiver.try_recv() {
                Ok(Event::Piece {
                    text,
                    tokens,
                    logprobs,
                    ..
                }) => {
                    assert!(self.answer.end.is_none(), "nothing comes after the end");
                    self.answer.tokens.extend(tokens);
                    self.answer.text.push_str(&text);
                    self.answer.logprobs.extend(logprobs);
                }
                Ok(Event::Done { reason, usage }) => self.answer.end = Some(Ok((reason, usage))),
                Ok(Event::Failed(error)) => self.answer.end = Some(Err(error)),
                Err(_) => return,
            }
        }
    }

    pub fn is_done(&self) -> bool {
        self.answer.end.is_some()
    }
}

impl Harness {
    pub fn new(options: FakeOptions, n_ctx: usize) -> Harness {
        let (device, _) = fake::device(options);
        let engine_options = EngineOptions {
            n_ctx,
            n_parallel: options.n_parallel,
            n_batch: options.n_batch,
            n_waiting: 100,
            kv_type: Default::default(),
        };
        let inbox = Arc::new(Inbox::new());
        Harness {
            worker: Worker::new(device, Arc::new(FakeVocabulary), inbox, engine_options),
            n_open: Arc::default(),
            n_ctx,
            n_pages: options.n_pages,
        }
    }

    pub fn submit(&mut self, request: Request) -> Client {
        assert!(request.tokens.len() < self.n_ctx);
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let ticket = Ticket::take(&self.n_open, 1000).expect("a place");
        let submission = Submission {
            request,
            events,
            ticket,
        };
        self.worker.inbox.push(submission).expect("an open inbox");
        Client {
            receiver,
            answer: Answer::default(),
        }
    }

    /// Runs one request to its end.
    pub fn answer(&mut self, request: Request) -> Answer {
        let mut client = self.submit(request);
        for _ in 0..10_000 {
            self.worker.turn(false).expect("a healthy device");
            client.read(100);
            if client.is_done() {
                return client.answer;
            }
        }
        panic!("no end");
    }

    pub fn n_free_pages(&self) -> usize {
        self.worker.scheduler.n_free_pages()
    }
}

pub fn ended(answer: &Answer) -> (FinishReason, Usage) {
    answer.end.clone().expect("an end").expect("no failure")
}

pub fn greedy(tokens: Vec<u32>) -> Request {
    Request {
        params: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        },
        n_predict: Some(20),
        max_repeats: None,
        ..Request::new(tokens)
    }
}

pub fn prompt(numbers: &mut Numbers, n: usize) -> Vec<u32> {
    (0..n).map(|_| 5 + numbers.below(90) as u32).collect()
}

/// A request of random kind; some share beginnings.
pub fn random_request(numbers: &mut Numbers, case: usize) -> Request {
    let mut shared = prompt(&mut Numbers(case as u64 % 3), 100);
    shared.truncate(numbers.below(100));
    let n_own = 1 + numbers.below(60);
    shared.extend(prompt(numbers, n_own));
    let mut request = greedy(shared);
    request.n_predict = Some(numbers.below(60));
    request.shift = numbers.below(2) == 0;
    request.logprobs = [None, Some(0), Some(3)][numbers.below(3)];
    request.n_draft = [0, 3, 100][numbers.below(3)];
    if numbers.below(2) == 0 {
        request.params = SamplingParams {
            temperature: 0.8,
            top_k: [0, 5, 40][numbers.below(3)],
            repeat_penalty: 1.1,
            seed: Some(case as u64),
            ..SamplingParams::default()
        };
    }
    if numbers.below(4) == 0 {
        request.stop = vec!["x".into(), "ab".into()];
    }
    request
}

/// The tokens of a request that neither stops early nor shifts, straight from the logits.
pub fn reference(request: &Request, equal: bool) -> Vec<u32> {
    let sampler = Sampler::new(&request.params, request.params.seed.unwrap_or(0));
    let mut generated: Vec<u32> = Vec::new();
    while generated.len() < request.n_predict.expect("a budget") {
        let row = fake::reference_logits(&request.tokens, &generated, equal);
        let history = [&request.tokens[..], &generated[..]].concat();
        let token = sampler
            .choose_from_row(
                &row,
                fake::log_sum_exp(&row),
                &history,
                generated.len(),
                None,
            )
            .expect("finite logits");
        if token == fake::END {
            break;
        }
        generated.push(token);
    }
    generated
}

/// What is compared between runs: all but times and cache hits.
pub fn essence(answer: &Answer) -> (Vec<u32>, String, usize, FinishReason, usize, usize) {
    let (reason, usage) = ended(answer);
    (
        answer.tokens.clone(),
        answer.text.clone(),
        answer.logprobs.len(),
        reason,
        usage.prompt_tokens,
        usage.eval_tokens,
    )
}

/// A greedy request that generates all of its tokens.
pub fn long(n_prompt: usize, n_predict: usize, seed: u64) -> Request {
    let requests = (0..1000).map(|i| Request {
        n_predict: Some(n_predict),
        ..greedy(prompt(&mut Numbers(seed * 1000 + i), n_prompt))
    });
    let mut whole = requests.filter(|r| {
        [false, true]
            .iter()
            .all(|&equal| reference(r, equal).len() == n_predict)
    });
    whole.next().expect("one of a thousand")
}
