//! Endpoints of Ollama that this version does not have: each says so by name, and what to do instead.

use super::error::ApiError;
use super::{App, Incoming, Response};
use std::sync::Arc;
use warp::http::StatusCode;

type Answer = Result<Response, ApiError>;

fn missing_v1(what: &str) -> Answer {
    Ok(
        ApiError::not_implemented(what, "use /v1/chat/completions or the native /api")
            .into_openai_refusal(),
    )
}

/// `POST /api/me`: there are no accounts.
pub async fn account(_: Arc<App>, _: Incoming) -> Answer {
    Err(ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "account unavailable",
    ))
}

/// `POST /v1/completions`.
pub async fn completions(_: Arc<App>, _: Incoming) -> Answer {
    missing_v1("/v1/completions")
}

/// `POST /v1/responses`.
pub async fn responses(_: Arc<App>, _: Incoming) -> Answer {
    missing_v1("/v1/responses")
}

/// `POST /v1/messages`.
pub async fn messages(_: Arc<App>, _: Incoming) -> Answer {
    missing_v1("/v1/messages")
}

/// `POST /v1/audio/transcriptions`.
pub async fn transcriptions(_: Arc<App>, _: Incoming) -> Answer {
    missing_v1("/v1/audio/transcriptions")
}
