//! `POST /v1/responses`: OpenAI's newer API over the native chat, without memory of earlier responses.

mod events;
mod input;
mod request;

use super::{choices, json_line, passed};
use crate::server::error::ApiError;
use crate::server::{App, Incoming, Response, chat, inflate, stream};
use events::Events;
use futures_util::StreamExt;
use request::Translated;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Answers the endpoint.
pub async fn responses(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let translate = request::translate;
    match inflate::translated(incoming.headers, incoming.body, translate).await? {
        Ok(translated) => passed(answer(&app, translated, received).await),
        Err(e) => Ok(e.into_openai_refusal()),
    }
}

/// Answers `POST /v1/responses/input_tokens`: the tokens of the prompt that the same response would have.
pub async fn input_tokens(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let translate = request::translate;
    let request = match inflate::translated(incoming.headers, incoming.body, translate).await? {
        Ok(translated) => translated.chat,
        Err(e) => return Ok(e.into_openai_refusal()),
    };
    let counted = chat::count_tokens(&app, request).await;
    passed(
        counted.map(|n| json_line(&json!({"object": "response.input_tokens", "input_tokens": n}))),
    )
}

async fn answer(
    app: &Arc<App>,
    translated: Translated,
    received: Instant,
) -> Result<Response, ApiError> {
    let objects = choices::objects(chat::run(app, translated.chat, received, &mut None).await?);
    let mut events = Events::new(translated.echo);
    if !translated.stream {
        let reply = chat::joined(objects).await?;
        return Ok(json_line(&events.whole(&reply)));
    }
    let objects = stream::begun(objects).await?;
    let frames = objects.map(move |object| {
        let values = match object {
            Ok(object) => events.of(&object),
            Err(e) => vec![events.failure(&e)],
        };
        values.iter().flat_map(stream::named_sse_frame).collect()
    });
    Ok(stream::uncached_sse(frames))
}
