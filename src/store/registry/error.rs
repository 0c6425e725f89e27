//! What can go wrong between this machine and a registry; texts are Ollama's where clients match on them.

use crate::store;
use crate::store::Digest;
use std::sync::Arc;
use std::time::Duration;

/// Most that a registry's wish to wait is followed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A pull or push that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry has no such manifest.
    #[error("file does not exist")]
    NotFound,
    #[error("pull model manifest: {0}")]
    Manifest(Box<Error>),
    /// An answer that says no; the body is cut and has no control characters.
    #[error("{status}: {body}")]
    Status {
        status: u16,
        body: String,
        /// How long the registry asks to wait before another try.
        retry_after: Option<Duration>,
    },
    /// No answer.
    #[error("{method} \"{url}\": {cause}")]
    Transport {
        method: String,
        url: String,
        cause: String,
    },
    /// A registry of this network, where none of them is asked.
    #[error(
        "{0} is an address of this server's network, and whoever reaches the server could ask for it: \
         OLLAMA_WGPU_REGISTRIES names those that may be asked, OLLAMA_WGPU_API_KEYS_FILE those who may ask"
    )]
    Private(String),
    #[error("realm host \"{realm}\" does not match original host \"{host}\"")]
    Realm { realm: String, host: String },
    /// An answer that does not follow the protocol, or asks for what is not allowed.
    #[error("{0}")]
    Protocol(String),
    /// An answer that broke off, or is another part than was asked for: another try may bring it.
    #[error("{0}")]
    Broken(String),
    /// Nothing came for too long, or next to nothing.
    #[error("the registry sent too little, or took too little, within {0} s")]
    Stalled(u64),
    /// The registry sends whole files where a part was asked for.
    #[error("the registry ignores ranges")]
    NoRanges,
    #[error("max retries exceeded: {0}")]
    Retries(Box<Error>),
    #[error("digest mismatch, file must be downloaded again: want {want}, got {got}")]
    Mismatch { want: Digest, got: Digest },
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Of a transfer that several operations waited for.
    #[error("{0}")]
    Shared(Arc<Error>),
    /// Nobody waits for the result.
    #[error("canceled")]
    Canceled,
}

impl Error {
    /// Whether another try cannot help.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Error::Status { status, .. } => {
                (400..500).contains(status) && !matches!(status, 408 | 416 | 429)
            }
            Error::Transport { .. } | Error::Stalled(_) | Error::Broken(_) => false,
            _ => true,
        }
    }

    /// How long to wait before another try: as long as the registry asks, within bounds, but no less than `pause`.
    pub(super) fn wait(&self, pause: Duration) -> Duration {
        match self {
            Error::Status {
                retry_after: Some(asked),
                ..
            } => pause.max(MAX_RETRY_AFTER.min(*asked)),
            _ => pause,
        }
    }
}
