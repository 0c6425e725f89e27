//! OpenAI's API over the native one: requests translated there, replies translated back.

mod content;
mod embeddings;
mod reply;
mod request;

use super::error::{ApiError, PLAIN_JSON, respond, to_json};
use super::generation::random;
use super::names::blocking;
use super::run::Outcome;
use super::stream::{self, Objects, sse_frame};
use super::{App, Incoming, Response, body, chat, models, time};
use crate::api::ChatReply;
use crate::store::ModelName;
use futures_util::{StreamExt, future, stream as streams};
use reply::Chunks;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Read;
use std::sync::Arc;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_ENCODING, HeaderMap};

pub use embeddings::embeddings;

/// Largest compressed body, inflated.
const MAX_INFLATED_BYTES: u64 = 20 << 20;

/// `POST /v1/chat/completions`.
pub async fn completions(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let bytes = body::read(incoming.body, body::LARGE_BODY_BYTES).await?;
    let headers = incoming.headers;
    let translated = blocking(move || Ok(request::translate(&inflated(&headers, bytes.into())?)));
    let translated = match translated.await? {
        Ok(translated) => translated,
        Err(e) => return Ok(e.into_openai_refusal()),
    };
    let id = format!("chatcmpl-{:016x}", random());
    let outcome = match chat::run(&app, translated.chat, received).await {
        Ok(outcome) => outcome,
        Err(e) if e.status == StatusCode::FORBIDDEN => return Err(e),
        Err(e) => return Ok(e.into_openai_response()),
    };
    let answered = match outcome {
        Outcome::Stream(objects) if translated.stream => {
            streamed(objects, Chunks::new(id, translated.include_usage)).await
        }
        Outcome::Stream(objects) => chat::joined(objects)
            .await
            .map(|whole| json_line(&reply::completion(&id, &whole))),
        Outcome::Whole(whole) => Ok(json_line(&reply::completion(&id, &whole))),
    };
    Ok(answered.unwrap_or_else(ApiError::into_openai_response))
}

/// Frames of all chunks. After a failure the client gets it as a frame, and the stream still ends as it expects.
async fn streamed(objects: Objects<ChatReply>, mut chunks: Chunks) -> Result<Response, ApiError> {
    let objects = stream::begun(objects).await?;
    let frames = objects.map(move |object| {
        let values = match object {
            Ok(object) => chunks.of(&object),
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

/// A body as sent, or as it was before `Content-Encoding: zstd`.
fn inflated(headers: &HeaderMap, bytes: Vec<u8>) -> Result<Vec<u8>, ApiError> {
    let encoding = headers
        .get(CONTENT_ENCODING)
        .map(|v| v.as_bytes().to_ascii_lowercase());
    match encoding.as_deref() {
        None | Some(b"" | b"identity") => return Ok(bytes),
        Some(b"zstd") => {}
        Some(_) => {
            let text = "request bodies may be compressed with zstd only";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
    }
    let broken =
        |e: &dyn std::fmt::Display| ApiError::bad_request(format!("invalid zstd body: {e}"));
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes.as_slice()).map_err(|_| {
        // Ollama's text, which its clients may look for.
        ApiError::bad_request("invalid input: magic number mismatch")
    })?;
    let mut whole = Vec::new();
    decoder
        .take(MAX_INFLATED_BYTES + 1)
        .read_to_end(&mut whole)
        .map_err(|e| broken(&e))?;
    if whole.len() as u64 > MAX_INFLATED_BYTES {
        let text = format!(
            "the inflated body is larger than {} MiB",
            MAX_INFLATED_BYTES >> 20
        );
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(whole)
}

/// `GET /v1/models`. Without models the list is null, as Ollama's is.
pub async fn list(app: Arc<App>, _: Incoming) -> Result<Response, ApiError> {
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
    use base64::Engine as _;
    use warp::http::HeaderValue;

    fn inflate(encoding: &'static str, bytes: &[u8]) -> Result<Vec<u8>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        inflated(&headers, bytes.to_vec())
    }

    #[test]
    fn compressed_bodies() {
        let zstd = "KLUv/SBoQQMAeyJ0ZW1wZXJhdHVyZSI6IDAsICJtYXhfdG9rZW5zIjogMSwgIm1vZGVsIjogInNtb2xsbTIiLCAibWVzc2FnZXMiOiBbeyJyb2xlIjogInVzZXIiLCAiY29udGVudCI6ICJIaSJ9XX0=";
        let zstd = base64::engine::general_purpose::STANDARD
            .decode(zstd)
            .unwrap();
        assert!(
            inflate("zstd", &zstd)
                .unwrap()
                .starts_with(b"{\"temperature\": 0")
        );
        assert_eq!(
            inflate("zstd", b"{}").unwrap_err().message,
            "invalid input: magic number mismatch"
        );
        assert_eq!(
            inflate("zstd", &zstd[..40]).unwrap_err().status,
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            inflate("gzip", b"x").unwrap_err().status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        assert_eq!(inflate("identity", b"x").unwrap(), b"x");
    }

    #[test]
    fn bombs_are_refused() {
        // A frame of blocks that each repeat one byte 128 KiB times.
        let mut bomb = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x58];
        let n_blocks = (MAX_INFLATED_BYTES >> 17) + 2;
        for i in 0..n_blocks {
            let header = (1_u32 << 17) << 3 | 1 << 1 | u32::from(i + 1 == n_blocks);
            bomb.extend_from_slice(&header.to_le_bytes()[..3]);
            bomb.push(b' ');
        }
        assert_eq!(
            inflate("zstd", &bomb).unwrap_err().status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }
}
