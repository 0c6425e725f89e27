//! What can go wrong between this machine and a registry; texts are Ollama's where clients match on them.

use crate::store;
use crate::store::Digest;
use std::sync::Arc;

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
    Status { status: u16, body: String },
    /// No answer.
    #[error("{method} \"{url}\": {cause}")]
    Transport {
        method: String,
        url: String,
        cause: String,
    },
    #[error("realm host \"{realm}\" does not match original host \"{host}\"")]
    Realm { realm: String, host: String },
    /// An answer that does not follow the protocol, or asks for what is not allowed.
    #[error("{0}")]
    Protocol(String),
    /// Nothing came for too long.
    #[error("no data from the registry for {0} s")]
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
                (400..500).contains(status) && !matches!(status, 401 | 408 | 416 | 429)
            }
            Error::Transport { .. } | Error::Stalled(_) => false,
            Error::Protocol(_) => false,
            _ => true,
        }
    }
}
