//! OpenAI's API over the native one: requests translated there, replies translated back.

mod choices;
mod completions;
mod content;
mod embeddings;
mod messages;
mod reply;
mod request;
mod responses;

use super::error::{ApiError, PLAIN_JSON, respond, to_json};
use super::generation::random;
use super::stream::{self, Objects, sse_frame};
use super::{App, Incoming, Response, anthropic, chat, inflate, models, time};
use crate::api::ChatRequest;
use crate::store::ModelName;
use futures_util::{StreamExt, future, stream as streams};
use reply::Chunks;
use request::Translated;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;
use warp::http::StatusCode;

pub use completions::completions;
pub use embeddings::embeddings;
pub use responses::{input_tokens, responses};

/// Answers `POST /v1/chat/completions`.
pub async fn chat_completions(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let translate = |bytes: &[u8]| request::translate(bytes);
    let translated = match inflate::translated(incoming.headers, incoming.body, translate).await? {
        Ok(translated) => translated,
        Err(e) => return Ok(e.into_openai_refusal()),
    };
    passed(chat_answer(&app, translated, received).await)
}

async fn chat_answer(
    app: &Arc<App>,
    translated: Translated,
    received: Instant,
) -> Result<Response, ApiError> {
    let id = format!("chatcmpl-{:016x}", random());
    let (mut choices, mut held) = (Vec::new(), None);
    for index in 0..translated.n {
        let request = ChatRequest {
            options: choices::options_of(&translated.chat.options, index),
            ..translated.chat.clone()
        };
        choices.push(choices::objects(
            chat::run(app, request, received, &mut held).await?,
        ));
    }
    drop(held);
    if translated.stream && !translated.chat.debug_render_only {
        let mut chunks = Chunks::new(id, translated.n, translated.include_usage);
        return streamed(choices, move |index, reply| chunks.of(index, &reply)).await;
    }
    let whole = future::try_join_all(choices.into_iter().map(chat::joined)).await?;
    Ok(json_line(&reply::completion(&id, &whole)))
}

/// What every handler here answers when the native one has failed; hosted models are refused in its own shape.
fn passed(answer: Result<Response, ApiError>) -> Result<Response, ApiError> {
    match answer {
        Err(e) if e.status == StatusCode::FORBIDDEN => Err(e),
        Err(e) => Ok(e.into_openai_response()),
        answered => answered,
    }
}

/// Frames of all chunks. After a failure the client gets it as a frame, and the stream still ends as it expects.
async fn streamed<T: Send + Sync + 'static>(
    choices: Vec<Objects<T>>,
    mut chunks: impl FnMut(usize, T) -> Vec<Value> + Send + Sync + 'static,
) -> Result<Response, ApiError> {
    let objects = stream::begun(choices::merged(choices)).await?;
    let frames = objects.map(move |object| {
        let values = match object {
            Ok((index, object)) => chunks(index, object),
            Err(e) => vec![e.openai_body()],
        };
        values
            .iter()
            .flat_map(|value| sse_frame(&to_json(value)))
            .collect()
    });
    let end = streams::once(future::ready(sse_frame(b"[DONE]")));
    Ok(stream::sse(frames.chain(end)))
}

/// `GET /v1/models`. Without models the list is null, as Ollama's is.
pub async fn list(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    if anthropic::is_asked(&incoming.headers) {
        return anthropic::list(app).await;
    }
    let models = match models::list(app).await {
        Ok(models) => models,
        Err(e) => return Ok(e.into_openai_response()),
    };
    let data: Vec<Value> = models
        .iter()
        .map(|m| {
            model(
                &m.name.to_string(),
                &m.name,
                time::unix_seconds(m.modified_at),
            )
        })
        .collect();
    let data = if data.is_empty() {
        Value::Null
    } else {
        data.into()
    };
    Ok(json_line(&json!({"object": "list", "data": data})))
}

/// `GET /v1/models/:model`. The id is the segment as it was sent.
pub async fn get(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    if anthropic::is_asked(&incoming.headers) {
        return anthropic::get(app, incoming.segment).await;
    }
    match models::find(app, incoming.segment.clone()).await {
        Ok(found) => {
            let created = time::unix_seconds(found.modified_at);
            Ok(json_line(&model(&incoming.segment, &found.name, created)))
        }
        Err(e) => Ok(e.into_openai_response()),
    }
}

fn model(id: &str, name: &ModelName, created: i64) -> Value {
    json!({"id": id, "object": "model", "created": created, "owned_by": name.namespace()})
}

fn json_line(value: &impl Serialize) -> Response {
    let mut body = to_json(value);
    body.push(b'\n');
    respond(StatusCode::OK, PLAIN_JSON, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_types_follow_the_status() {
        for (status, kind) in [
            (400, "invalid_request_error"),
            (404, "not_found_error"),
            (401, "api_error"),
            (429, "api_error"),
            (500, "api_error"),
            (503, "api_error"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                ApiError::new(status, "x").openai_body(),
                json!({"error": {"message": "x", "type": kind, "param": null, "code": null}})
            );
        }
    }

    #[test]
    fn models_belong_to_their_namespace() {
        let owner = |name: &str| {
            let name = ModelName::parse(name).unwrap();
            model("id", &name, 5)
        };
        assert_eq!(
            owner("llama3"),
            json!({"id": "id", "object": "model", "created": 5, "owned_by": "library"})
        );
        assert_eq!(owner("ann/llama3")["owned_by"], "ann");
    }
}
