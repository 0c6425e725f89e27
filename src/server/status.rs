//! Is it there, what is it, may it call hosted models.

use super::error::{ApiError, ok_json, respond};
use super::{App, Incoming, Response};
use crate::api::{Cloud, CloudStatus, VersionReply};
use std::sync::Arc;
use warp::http::StatusCode;

/// What clients look for before they send anything else.
const ALIVE: &str = "Ollama is running";

/// `GET /`.
pub async fn alive(_: Arc<App>, _: Incoming) -> Result<Response, ApiError> {
    Ok(respond(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        ALIVE.into(),
    ))
}

/// `GET /api/version`.
pub async fn version(_: Arc<App>, _: Incoming) -> Result<Response, ApiError> {
    Ok(ok_json(&VersionReply {
        version: env!("CARGO_PKG_VERSION").into(),
    }))
}

/// `GET /api/status`: hosted models are never available here; the reason is the user's setting or the program itself.
pub async fn cloud(app: Arc<App>, _: Incoming) -> Result<Response, ApiError> {
    let source = if app.settings.no_cloud {
        "env"
    } else {
        "config"
    };
    Ok(ok_json(&CloudStatus {
        cloud: Cloud {
            disabled: true,
            source: source.into(),
        },
    }))
}
