//! What can go wrong between a request and its events.

use std::time::Duration;

use thiserror::Error;

use crate::backend::BackendError;
use crate::model;

/// Why a model was not loaded or a request not served.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// Too many requests wait; a 503 with Ollama's text.
    #[error("server busy, please try again.  maximum pending requests exceeded")]
    Busy,
    /// The caller went away while its model was loading.
    #[error("request canceled")]
    Canceled,
    /// A load stood still.
    #[error(
        "loading the model made no progress for {patience:?}: its disk or the device does not answer; \
         OLLAMA_LOAD_TIMEOUT sets the limit"
    )]
    Stalled { patience: Duration },
    /// The server ends.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The model was taken out of memory while the request ran.
    #[error("the model was unloaded")]
    Unloaded,
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
    /// The weights do not fit.
    #[error(
        "model requires more memory than is available on {device}: \
         its weights need {bytes} bytes; use a smaller quantization, or set num_gpu to fewer layers \
         or to 0 to run on the CPU"
    )]
    WeightMemory { device: String, bytes: u64 },
    /// The device failed, or cannot hold what the model needs.
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
    /// A schema or grammar that cannot be compiled, or that leads nowhere.
    #[error("invalid format: {0}")]
    Grammar(String),
    /// The model computed no usable numbers.
    #[error("invalid logits: the model gave NaN or infinite values; its weights may be damaged")]
    InvalidLogits,
    /// Texts for a model that writes.
    #[error("this model does not support embeddings")]
    NotAnEmbedder,
    /// A prompt for a model that embeds.
    #[error("this model embeds texts and writes none")]
    NotAGenerator,
    /// The model computed no usable vector.
    #[error("embedding contains NaN or Inf values")]
    InvalidEmbedding,
    /// The model's thread ended.
    #[error(
        "model runner has unexpectedly stopped, this may be due to resource limitations or an \
         internal error, check ollama server logs for details: {0}"
    )]
    Stopped(String),
}

impl Error {
    /// Whether the device's memory was too small.
    pub fn is_memory(&self) -> bool {
        matches!(
            self,
            Error::ContextMemory { .. }
                | Error::WeightMemory { .. }
                | Error::Backend(BackendError::OutOfMemory { .. })
        )
    }
}
