//! From tokens to events: loaded models, each on a thread of its own.
//!
//! [`Models`] knows which models are loaded; an [`Engine`] is the handle of one. Its thread
//! (`worker.rs`) takes requests, schedules steps, samples, and sends [`Event`]s; that of a model
//! which embeds (`embedding.rs`) answers each request once.

mod context;
mod device;
mod draft;
mod embedding;
mod error;
#[cfg(test)]
mod fake;
mod grammar;
mod inbox;
mod memory;
mod models;
mod open;
mod output;
mod pages;
mod placement;
mod request;
mod sampler;
mod scheduler;
mod sequence;
mod worker;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

use crate::backend::{Backend, DeviceInfo, KvType, MAX_CANDIDATES};
use crate::gguf::Gguf;
use crate::model::{Embedder, Model};
use device::{Device, Loaded, ModelInfo};
use embedding::{EmbeddingWorker, Texts};
use inbox::Inbox;
use placement::Place;
use sequence::{EVENT_QUEUE, EVENTS_PER_STEP, Submission, Ticket};
use worker::Worker;

pub use crate::model::normalised;
pub use context::automatic_ctx;
pub use error::Error;
pub use grammar::{Constraint, Grammar, Reasoning, prepared_schema};
pub use memory::share_one_heap;
pub use models::{
    DeviceRequest, KeepAlive, Lease, LoadRequest, Models, ModelsSettings, OpenBackend, RunningModel,
};
pub use open::open;
pub use output::{Endless, Vocabulary};
pub use placement::{Placed, Placement};
pub use request::{Event, FinishReason, Logprob, Request, SamplingParams, TokenLogprob, Usage};

/// How a model is to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Places of context for each sequence.
    pub n_ctx: usize,
    /// Sequences that run at once.
    pub n_parallel: usize,
    /// Prompt tokens in one step.
    pub n_batch: usize,
    /// Requests that may wait besides; more are refused with [`Error::Busy`].
    pub n_waiting: usize,
    pub kv_type: KvType,
}

impl EngineOptions {
    /// Fewest places of context.
    const MIN_CTX: usize = 4;

    /// The options that make sense for a model of this trained context.
    fn fit(mut self, n_ctx_train: usize) -> EngineOptions {
        self.n_ctx = self.n_ctx.min(n_ctx_train).max(EngineOptions::MIN_CTX);
        self.n_parallel = self.n_parallel.max(1);
        self.n_batch = self.n_batch.clamp(1, self.n_ctx);
        self
    }
}

/// Handle of one loaded model; cheap to clone. The model is unloaded by [`Engine::close`], or when
/// the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: EngineOptions,
    info: ModelInfo,
    adds_bos: bool,
    inbox: ModelInbox,
    n_open: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The way into the model's thread.
#[derive(Debug)]
enum ModelInbox {
    Prompts(Arc<Inbox<Submission>>),
    Texts(Arc<Inbox<Texts>>),
}

impl ModelInbox {
    fn close(&self, reason: Error) {
        match self {
            ModelInbox::Prompts(inbox) => inbox.close(reason),
            ModelInbox::Texts(inbox) => inbox.close(reason),
        }
    }

    fn closed(&self) -> Option<Error> {
        match self {
            ModelInbox::Prompts(inbox) => inbox.closed(),
            ModelInbox::Texts(inbox) => inbox.closed(),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inbox.close(Error::Unloaded);
    }
}

impl Engine {
    /// Loads the weights, makes the cache and starts the model's thread. Blocks; not for the
    /// async runtime. A context longer than the model was trained for is shortened.
    ///
    /// # Errors
    /// What the file asks for and this program lacks, or what the device cannot hold.
    pub fn load(
        gguf: &Arc<Gguf>,
        vocabulary: Arc<dyn Vocabulary>,
        backend: Box<dyn Backend>,
        options: EngineOptions,
    ) -> Result<Engine, Error> {
        let mut backend = Some(backend);
        let mut place = |_: &Model, options: &EngineOptions, _: Option<usize>| {
            let backend = backend
                .take()
                .expect("it cannot shrink, so it is asked for once");
            Ok(Placed::whole(backend, options.n_ctx))
        };
        let model = Model::load(gguf)?;
        Engine::load_unless(&model, vocabulary, &mut place, options, &|| false)
    }

    /// As [`Engine::load`], on the device or devices where `placement` puts the model.
    ///
    /// # Errors
    /// As [`Engine::load`], and those of opening the devices.
    pub fn load_placed(
        model: &Model,
        vocabulary: Arc<dyn Vocabulary>,
        placement: &Placement<'_>,
        options: EngineOptions,
    ) -> Result<Engine, Error> {
        let mut place =
            |model: &Model, options: &EngineOptions, most| placement.place(model, options, most);
        Engine::load_unless(model, vocabulary, &mut place, options, &|| false)
    }

    /// As [`Engine::load`] on what `place` opens, but gives up between two weights once
    /// `cancelled` says so, which is asked before each.
    fn load_unless(
        model: &Model,
        vocabulary: Arc<dyn Vocabulary>,
        place: &mut Place<'_>,
        options: EngineOptions,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Engine, Error> {
        match device::load(model, place, options, cancelled)? {
            (Loaded::Generator(device), options) => Engine::start(device, vocabulary, options),
            (Loaded::Embedder(embedder, info), options) => {
                Engine::start_embedder(embedder, info, options)
            }
        }
    }

    /// Starts the thread of a model that embeds.
    fn start_embedder(
        embedder: Embedder,
        info: ModelInfo,
        options: EngineOptions,
    ) -> Result<Engine, Error> {
        let inbox = Arc::new(Inbox::new());
        let worker = EmbeddingWorker::new(embedder, Arc::clone(&inbox));
        let thread = model_thread(move || worker.run())?;
        Ok(Engine::new(
            options,
            info,
            false,
            ModelInbox::Texts(inbox),
            thread,
        ))
    }

    fn new(
        options: EngineOptions,
        info: ModelInfo,
        adds_bos: bool,
        inbox: ModelInbox,
        thread: JoinHandle<()>,
    ) -> Engine {
        Engine {
            shared: Arc::new(Shared {
                options,
                info,
                adds_bos,
                inbox,
                n_open: Arc::default(),
                thread: Mutex::new(Some(thread)),
            }),
        }
    }

    /// Starts the thread of a model that a device has loaded.
    fn start(
        device: Device,
        vocabulary: Arc<dyn Vocabulary>,
        options: EngineOptions,
    ) -> Result<Engine, Error> {
        let inbox = Arc::new(Inbox::new());
        let adds_bos = vocabulary.adds_bos();
        let info = device.info.clone();
        let worker = Worker::new(device, vocabulary, Arc::clone(&inbox), options);
        let thread = model_thread(move || worker.run())?;
        let inbox = ModelInbox::Prompts(inbox);
        Ok(Engine::new(options, info, adds_bos, inbox, thread))
    }

    /// Hands a request to the model's thread. Dropping the events cancels it.
    ///
    /// # Errors
    /// [`Error::Busy`] where too many wait; an error for a prompt that cannot be run; that of
    /// the model's thread if it has ended.
    pub fn submit(&self, mut request: Request) -> Result<Events, Error> {
        let ModelInbox::Prompts(inbox) = &self.shared.inbox else {
            return Err(Error::NotAGenerator);
        };
        self.check(&request.tokens)?;
        if request.tokens.len() >= self.n_ctx() {
            let (n_tokens, n_ctx) = (request.tokens.len(), self.n_ctx());
            return Err(Error::PromptTooLong { n_tokens, n_ctx });
        }
        if self.shared.adds_bos && request.n_keep >= 0 {
            request.n_keep = request.n_keep.saturating_add(1);
        }
        request.logprobs = request.logprobs.map(|n| n.min(MAX_CANDIDATES));
        let ticket = self.ticket()?;
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        inbox.push(Submission {
            request,
            events,
            ticket,
        })?;
        Ok(Events {
            receiver,
            inbox: Arc::clone(inbox),
            is_over: false,
        })
    }

    /// Whether the model embeds texts; it writes them otherwise.
    pub fn embeds(&self) -> bool {
        matches!(self.shared.inbox, ModelInbox::Texts(_))
    }

    /// The vectors of texts, each of at least one token and at most the context, in their order.
    /// They have length 1. Dropping the future cancels the request.
    ///
    /// # Errors
    /// As [`Engine::submit`]; [`Error::InvalidEmbedding`] if one of the vectors is none.
    pub async fn embed(&self, texts: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, Error> {
        let raw = self.embed_raw(texts).await?;
        Ok(raw.iter().map(|vector| normalised(vector)).collect())
    }

    /// As [`Engine::embed`], of the length that pooling gives.
    ///
    /// # Errors
    /// As [`Engine::embed`].
    pub async fn embed_raw(&self, texts: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, Error> {
        let ModelInbox::Texts(inbox) = &self.shared.inbox else {
            return Err(Error::NotAnEmbedder);
        };
        for text in &texts {
            self.check(text)?;
            if text.len() > self.n_ctx() {
                let (n_tokens, n_ctx) = (text.len(), self.n_ctx());
                return Err(Error::PromptTooLong { n_tokens, n_ctx });
            }
        }
        let (texts, reply) = Texts::new(texts, self.ticket()?);
        inbox.push(texts)?;
        let stopped = || Error::Stopped("the request was dropped".into());
        reply
            .await
            .unwrap_or_else(|_| Err(inbox.closed().unwrap_or_else(stopped)))
    }

    /// A place among the requests.
    fn ticket(&self) -> Result<Ticket, Error> {
        let options = &self.shared.options;
        let limit = options.n_parallel.saturating_add(options.n_waiting);
        Ticket::take(&self.shared.n_open, limit).ok_or(Error::Busy)
    }

    fn check(&self, tokens: &[u32]) -> Result<(), Error> {
        let vocab_size = self.shared.info.vocab_size;
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        match tokens.iter().find(|&&t| t as usize >= vocab_size) {
            Some(&token) => Err(Error::UnknownToken { token, vocab_size }),
            None => Ok(()),
        }
    }

    /// Fails what is running, unloads the model and waits until its memory is free. Blocks.
    pub fn close(&self) {
        self.shared.inbox.close(Error::Unloaded);
        let thread = self.shared.thread.lock();
        let thread = thread.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread catches its own panics.
            let _ = thread.join();
        }
    }

    /// Whether it takes requests.
    pub fn is_alive(&self) -> bool {
        self.shared.inbox.closed().is_none()
    }

    /// Places of context for each sequence.
    pub fn n_ctx(&self) -> usize {
        self.shared.options.n_ctx
    }

    /// Logits of each row.
    pub fn vocab_size(&self) -> usize {
        self.shared.info.vocab_size
    }

    /// Places of context the model was trained for.
    pub fn n_ctx_train(&self) -> usize {
        self.shared.info.n_ctx_train
    }

    /// How it was loaded.
    pub fn options(&self) -> &EngineOptions {
        &self.shared.options
    }

    /// The device that runs it.
    pub fn device(&self) -> &DeviceInfo {
        &self.shared.info.device
    }

    /// Those of [`Engine::memory_bytes`] that lie on a GPU.
    pub fn gpu_bytes(&self) -> u64 {
        self.shared.info.gpu_bytes
    }

    /// Bytes of weights, cache and buffers.
    pub fn memory_bytes(&self) -> u64 {
        self.shared.info.memory_bytes
    }
}

fn model_thread(run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let builder = thread::Builder::new().name("model".into());
    let failed = |e| Error::Stopped(format!("no thread for the model: {e}"));
    builder.spawn(run).map_err(failed)
}

/// The events of one request, in order. Dropping it cancels the request.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    inbox: Arc<Inbox<Submission>>,
    is_over: bool,
}

impl Events {
    /// The next event; none after `Done` or `Failed`.
    pub async fn recv(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        let event = self.receiver.recv().await;
        // Asked afterwards: what fills the queue while this waits stops the sequence, and nobody else would wake the worker.
        if self.receiver.len() + EVENTS_PER_STEP >= EVENT_QUEUE {
            self.inbox.ring();
        }
        let event = event.unwrap_or_else(|| Event::Failed(self.reason()));
        self.is_over = !matches!(event, Event::Piece { .. });
        Some(event)
    }

    /// Why the model's thread went away without a word.
    fn reason(&self) -> Error {
        let closed = self.inbox.closed();
        closed.unwrap_or_else(|| Error::Stopped("the request was dropped".into()))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.receiver.close();
        self.inbox.ring();
    }
}

/// Cuts a prompt that does not fit: the first `n_keep` tokens (negative: as many as possible; a
/// leading BOS besides) and the last ones stay, so that half of what is not kept is free.
/// Prompts of fewer than `n_ctx` tokens are returned as they are.
pub fn truncate_prompt(tokens: &[u32], n_ctx: usize, n_keep: i64, adds_bos: bool) -> Vec<u32> {
    let n_ctx = n_ctx.max(2);
    let limit = n_ctx - 1;
    if tokens.len() <= limit {
        return tokens.to_vec();
    }
    let keep = usize::try_from(n_keep).map_or(limit, |n| n.saturating_add(adds_bos.into()));
    let keep = keep.min(limit);
    let len = n_ctx - ((n_ctx - keep) / 2).max(1);
    let tail = tokens.len() - (len - keep);
    [&tokens[..keep], &tokens[tail..]].concat()
}

#[cfg(test)]
mod tests;
