//! What can go wrong in the store. Texts are Ollama's where clients match on them, and never hold a server path.

use super::Digest;
use std::io;

/// An error of the store; `server/error.rs` gives it a status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that does not follow the grammar of [`ModelName`](super::ModelName). Status 400.
    #[error("invalid model name")]
    InvalidName,
    /// A digest that is not `sha256:` or `sha256-` and 64 hex digits. Status 400.
    #[error("invalid digest format")]
    InvalidDigest,
    /// A name with both `:local` and `:cloud`. Status 400.
    #[error("use either :local or :cloud, not both: \"{0}\"")]
    TwoSources(String),
    /// No manifest of this (short) name. Status 404.
    #[error("model '{0}' not found")]
    NotFound(String),
    /// No such blob. Status 404 for a look-up, 500 where a model needs it.
    #[error("blob \"{0}\" not found")]
    BlobNotFound(Digest),
    /// An uploaded body hashes to something else. Status 400.
    #[error("digest mismatch, expected \"{expected}\", got \"{got}\"")]
    DigestMismatch { expected: Digest, got: Digest },
    /// An upload beyond the size limit. Status 413.
    #[error("blob is larger than the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    /// A create request that cannot be carried out as written. Status 400; the text is Ollama's.
    #[error("{0}")]
    BadRequest(String),
    /// A create request for something this server does not do. Status 500.
    #[error("{0}")]
    Unsupported(String),
    /// Who waited for the work has left. Status 499.
    #[error("request canceled")]
    Canceled,
    /// A model whose manifest or layers are unreadable or contradict each other. Status 500.
    #[error("model '{model}' is damaged: {why}; delete it and create or pull it again")]
    Damaged { model: String, why: String },
    /// A GGUF blob that does not parse. Status 500.
    #[error("blob \"{digest}\" cannot be used: {}", .source.problem())]
    Gguf {
        digest: Digest,
        source: crate::gguf::Error,
    },
    /// The disk said no. Status 500, 507 when [`Error::is_disk_full`].
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl Error {
    /// Whether the cause is a disk without room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ))
    }

    /// Whether this is of the machine at the moment, not of a file: no descriptor or memory is left.
    pub(super) fn is_passing(error: &io::Error) -> bool {
        #[cfg(unix)]
        if let Some(code) = error.raw_os_error() {
            return matches!(code, libc::EMFILE | libc::ENFILE | libc::ENOMEM);
        }
        error.kind() == io::ErrorKind::OutOfMemory
    }

    /// For `map_err`: an I/O error with what was attempted.
    pub(super) fn io<S: Into<String>>(what: S) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}
