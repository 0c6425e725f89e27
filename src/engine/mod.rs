//! From tokens to events: loaded models, each on a thread of its own.
//!
//! [`Models`] knows which models are loaded; an [`Engine`] is the handle of one. Its thread
//! (`worker.rs`) takes requests, schedules steps, samples, and sends [`Event`]s.

mod models;
mod output;
mod request;

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::mpsc;

use crate::backend::{Backend, BackendError, DeviceInfo, KvType};
use crate::gguf::Gguf;
use crate::model;

pub use models::{
    DeviceRequest, KeepAlive, Lease, LoadRequest, Models, ModelsSettings, OpenBackend, RunningModel,
};
pub use output::Vocabulary;
pub use request::{Event, FinishReason, Logprob, Request, SamplingParams, TokenLogprob, Usage};

/// Why a model was not loaded or a request not served.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// Too many requests wait; a 503 with Ollama's text.
    #[error("server busy, please try again.  maximum pending requests exceeded")]
    Busy,
    /// The caller went away while its model was loading.
    #[error("request canceled")]
    Canceled,
    /// The server ends.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The file cannot be read, or its tokenizer not be used.
    #[error("{0}")]
    File(String),
    /// The model asks for what is not implemented.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The cache does not fit beside the weights.
    #[error(
        "model requires more memory than is available on {device}: \
         a context of num_ctx {n_ctx} needs {bytes} bytes of cache; lower num_ctx or num_batch, \
         or set num_gpu to 0 to run on the CPU"
    )]
    ContextMemory {
        device: String,
        n_ctx: usize,
        bytes: u64,
    },
    /// The device failed, or cannot hold the weights.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A request without tokens.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A token id that the model does not have.
    #[error("token {token} is outside the vocabulary of {vocab_size}")]
    UnknownToken { token: u32, vocab_size: usize },
    /// The prompt leaves no place in the context.
    #[error(
        "the prompt ({n_tokens} tokens) is longer than the available context size \
         ({n_ctx} tokens); shorten it or increase num_ctx"
    )]
    PromptTooLong { n_tokens: usize, n_ctx: usize },
    /// The model computed no usable numbers.
    #[error("invalid logits: the model gave NaN or infinite values; its weights may be damaged")]
    InvalidLogits,
    /// The model's thread ended.
    #[error(
        "model runner has unexpectedly stopped, this may be due to resource limitations or an \
         internal error, check ollama server logs for details: {0}"
    )]
    Stopped(String),
}

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

/// Handle of one loaded model; cheap to clone. The model is unloaded by [`Engine::close`] or when
/// the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Engine {
    options: EngineOptions,
    device: DeviceInfo,
    memory_bytes: u64,
}

impl Engine {
    /// Loads the weights, makes the cache and starts the model's thread. Blocks; not for the
    /// async runtime.
    ///
    /// # Errors
    /// What the file asks for and this program lacks, or what the device cannot hold.
    pub fn load(
        gguf: &Arc<Gguf>,
        vocabulary: Arc<dyn Vocabulary>,
        backend: Box<dyn Backend>,
        options: EngineOptions,
    ) -> Result<Engine, Error> {
        let _ = (gguf, vocabulary, backend, options);
        todo!()
    }

    /// Hands a request to the model's thread. Dropping the events cancels it.
    ///
    /// # Errors
    /// [`Error::Busy`] where too many wait; an error for a prompt that cannot be run; that of
    /// the model's thread if it has ended.
    pub fn submit(&self, request: Request) -> Result<Events, Error> {
        let _ = request;
        todo!()
    }

    /// Places of context for each sequence.
    pub fn n_ctx(&self) -> usize {
        self.options.n_ctx
    }

    /// How it was loaded.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The device that runs it.
    pub fn device(&self) -> &DeviceInfo {
        &self.device
    }

    /// Bytes of weights, cache and buffers.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

/// The events of one request, in order. Dropping it cancels the request.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
}

impl Events {
    /// The next event; none after `Done` or `Failed`.
    pub async fn recv(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }
}

/// Cuts a prompt that does not fit: the first `n_keep` tokens (negative: as many as possible; a
/// leading BOS besides) and the last ones stay, so that half of what is not kept is free.
/// Prompts of fewer than `n_ctx` tokens are returned as they are.
pub fn truncate_prompt(tokens: &[u32], n_ctx: usize, n_keep: i64, adds_bos: bool) -> Vec<u32> {
    let limit = n_ctx.saturating_sub(1);
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
mod tests {
    use super::*;

    #[test]
    fn truncated_prompts_have_ollamas_lengths() {
        let tokens: Vec<u32> = (0..10).collect();
        assert_eq!(truncate_prompt(&tokens, 8, 3, false), [0, 1, 2, 7, 8, 9]);
        assert_eq!(truncate_prompt(&tokens, 8, 2, true), [0, 1, 2, 7, 8, 9]);
        assert_eq!(truncate_prompt(&tokens, 11, 3, false), tokens);
        let long: Vec<u32> = (0..5000).collect();
        assert_eq!(truncate_prompt(&long, 4096, 4, false).len(), 2050);
        assert_eq!(truncate_prompt(&long, 4096, 4, true).len(), 2051);
        assert_eq!(truncate_prompt(&long, 8, -1, false).len(), 7);
        assert_eq!(truncate_prompt(&long, 8, 100, false).len(), 7);
        assert_eq!(truncate_prompt(&long, 4, 0, false).len(), 2);
    }
}
