//! What Ollama passes on to its own site: accounts, searches of the web, recommendations. A local server has none, and
//! says so in the words that clients know.

use super::error::{ApiError, ok_json};
use super::{App, Incoming, Response, body};
use serde_json::json;
use std::sync::Arc;
use warp::http::StatusCode;

type Answer = Result<Response, ApiError>;

/// `POST /api/me`: nobody can be asked who is signed in.
pub async fn account(_: Arc<App>, _: Incoming) -> Answer {
    Err(ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "account unavailable",
    ))
}

/// `POST /api/signout` and `DELETE /api/user/keys/KEY`.
pub async fn sign_out(_: Arc<App>, _: Incoming) -> Answer {
    Err(ApiError::new(
        StatusCode::UNAUTHORIZED,
        "you are not currently signed in",
    ))
}

/// `POST /api/experimental/web_search`.
pub async fn web_search(_: Arc<App>, incoming: Incoming) -> Answer {
    refused(incoming, "web search").await
}

/// `POST /api/experimental/web_fetch`.
pub async fn web_fetch(_: Arc<App>, incoming: Incoming) -> Answer {
    refused(incoming, "web fetch").await
}

async fn refused(incoming: Incoming, what: &str) -> Answer {
    let whole = body::read(incoming.body, body::SMALL_BODY_BYTES).await?;
    if whole.bytes.trim_ascii().is_empty() {
        return Err(ApiError::bad_request("missing request body"));
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        format!("ollama cloud is disabled: {what} is unavailable"),
    ))
}

/// `GET /api/experimental/model-recommendations`: none.
pub async fn recommendations(_: Arc<App>, _: Incoming) -> Answer {
    Ok(ok_json(&json!({ "recommendations": [] })))
}
