//! Endpoints of Ollama that this version does not have: each says so by name, and what to do instead.

use super::error::ApiError;
use super::{App, Incoming, Response};
use std::sync::Arc;

type Answer = Result<Response, ApiError>;

/// `POST /v1/audio/transcriptions`.
pub async fn transcriptions(_: Arc<App>, _: Incoming) -> Answer {
    let refusal = ApiError::not_implemented("/v1/audio/transcriptions", "no model hears yet");
    Ok(refusal.into_openai_refusal())
}
