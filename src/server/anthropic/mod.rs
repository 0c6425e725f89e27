//! Anthropic's Messages API over the native chat: `/v1/messages` and `/v1/messages/count_tokens`.

mod content;
mod events;
mod models;
mod reply;
mod request;

use super::error::{ApiError, JSON, PLAIN_JSON, respond, to_json};
use super::generation::random;
use super::run::Outcome;
use super::stream::{self, Objects};
use super::{App, Incoming, Response, chat, inflate};
use crate::api::ChatReply;
use events::Events;
use futures_util::{StreamExt, stream as streams};
use request::Translated;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;
use warp::http::StatusCode;

pub use models::{get, is_asked, list};

/// `POST /v1/messages`.
pub async fn messages(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let translate = request::message;
    match inflate::translated(incoming.headers, incoming.body, translate).await? {
        Ok(translated) => passed(answer(&app, translated, received).await),
        Err(e) => Ok(refusal(&e)),
    }
}

/// `POST /v1/messages/count_tokens`: the tokens of the prompt that the same message would make.
pub async fn count_tokens(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let translate = request::count;
    let request = match inflate::translated(incoming.headers, incoming.body, translate).await? {
        Ok(translated) => translated.chat,
        Err(e) => return Ok(refusal(&e)),
    };
    let counted = chat::count_tokens(&app, request).await;
    passed(counted.map(|n| whole(StatusCode::OK, &json!({"input_tokens": n}))))
}

async fn answer(
    app: &Arc<App>,
    translated: Translated,
    received: Instant,
) -> Result<Response, ApiError> {
    let id = format!("msg_{}", hex_24());
    let outcome = chat::run(app, translated.chat, received, &mut None).await?;
    let objects: Objects<ChatReply> = match outcome {
        Outcome::Stream(objects) => objects,
        Outcome::Whole(reply) => Box::pin(streams::iter([Ok(reply)])),
    };
    if !translated.stream {
        let reply = chat::joined(objects).await?;
        let message = reply::message(&id, &reply, &translated.stop_sequences);
        return Ok(whole(StatusCode::OK, &message));
    }
    let mut events = Events::new(id, translated.stop_sequences);
    let objects = stream::begun(objects).await?;
    let frames = objects.map(move |object| {
        let values = match object {
            Ok(object) => events.of(&object),
            Err(e) => vec![error(&e)],
        };
        values.iter().flat_map(stream::named_sse_frame).collect()
    });
    Ok(stream::uncached_sse(frames))
}

/// What a failure of the native handler answers; hosted models are refused in its own shape.
fn passed(answer: Result<Response, ApiError>) -> Result<Response, ApiError> {
    match answer {
        Err(e) if e.status == StatusCode::FORBIDDEN => Err(e),
        Err(e) => Ok(whole(e.status, &with_id(error(&e)))),
        answered => answered,
    }
}

/// What a failure of the translation answers.
pub fn refusal(e: &ApiError) -> Response {
    respond(e.status, JSON, to_json(&with_id(error(e))))
}

fn whole(status: StatusCode, value: &Value) -> Response {
    let mut body = to_json(value);
    body.push(b'\n');
    respond(status, PLAIN_JSON, body)
}

/// Anthropic's error object; its type follows the status.
fn error(e: &ApiError) -> Value {
    let kind = match e.status.as_u16() {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": e.message}})
}

fn with_id(mut error: Value) -> Value {
    error["request_id"] = json!(format!("req_{}", hex_24()));
    error
}

fn hex_24() -> String {
    format!("{:016x}{:08x}", random(), random() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_types_follow_the_status() {
        for (status, kind) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (429, "rate_limit_error"),
            (503, "overloaded_error"),
            (500, "api_error"),
            (413, "api_error"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let body = with_id(error(&ApiError::new(status, "x")));
            assert_eq!(
                (&body["type"], &body["error"]["type"]),
                (&json!("error"), &json!(kind))
            );
            let id = body["request_id"].as_str().unwrap();
            assert!(id.starts_with("req_") && id.len() == 28, "{id}");
        }
    }
}
