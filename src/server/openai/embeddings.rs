//! `POST /v1/embeddings`: the native `/api/embed` in OpenAI's shape.

use super::content::refused;
use super::{json_line, passed};
use crate::api::{EmbedReply, EmbedRequest};
use crate::server::error::ApiError;
use crate::server::{App, Incoming, Response, body, embed, inflate};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// The members that have an effect; all others are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Embeddings {
    model: String,
    input: Value,
    dimensions: i64,
    encoding_format: String,
}

#[derive(Debug, Serialize)]
struct Reply<'a> {
    object: &'static str,
    data: Vec<Embedding<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Embedding<'a> {
    object: &'static str,
    embedding: Vector<'a>,
    index: usize,
}

/// Numbers, or their little-endian bytes in base64.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Vector<'a> {
    Floats(&'a [f32]),
    Base64(String),
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Answers the endpoint.
pub async fn embeddings(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let (request, as_base64) =
        match inflate::translated(incoming.headers, incoming.body, translate).await? {
            Ok(translated) => translated,
            Err(e) => return Ok(e.into_openai_refusal()),
        };
    let reply = embed::run(&app, request, received).await;
    passed(reply.map(|reply| json_line(&reply_of(&reply, as_base64))))
}

/// The native request, and whether vectors are wanted in base64.
///
/// # Errors
/// 400 with Ollama's texts.
fn translate(bytes: &[u8]) -> Result<(EmbedRequest, bool), ApiError> {
    let request: Embeddings = body::typed(body::parse_object(bytes, "EOF")?)?;
    let as_base64 = match request.encoding_format.to_ascii_lowercase().as_str() {
        "" | "float" => false,
        "base64" => true,
        _ => {
            return Err(refused(&format!(
                "Invalid value for 'encoding_format' = {}. Supported values: ['float', 'base64'].",
                request.encoding_format
            )));
        }
    };
    let input = match request.input {
        Value::String(text) if text.is_empty() => json!([""]),
        Value::Null => return Err(refused("invalid input")),
        Value::Array(items) if items.is_empty() => return Err(refused("invalid input")),
        other => other,
    };
    let native = EmbedRequest {
        model: request.model,
        input: Some(input),
        dimensions: request.dimensions,
        ..EmbedRequest::default()
    };
    Ok((native, as_base64))
}

fn reply_of(reply: &EmbedReply, as_base64: bool) -> Reply<'_> {
    let vectors = reply.embeddings.iter().enumerate();
    let data = vectors.map(|(index, vector)| Embedding {
        object: "embedding",
        embedding: match as_base64 {
            false => Vector::Floats(vector),
            true => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        },
        index,
    });
    Reply {
        object: "list",
        data: data.collect(),
        model: &reply.model,
        usage: Usage {
            prompt_tokens: reply.prompt_eval_count,
            total_tokens: reply.prompt_eval_count,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::StatusCode;

    fn refusal(body: Value) -> String {
        let error = translate(body.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        error.message
    }

    #[test]
    fn requests_are_translated() {
        let sent = json!({"model": "m", "input": "", "dimensions": 4, "user": "u", "encoding_format": "BASE64"});
        let (request, as_base64) = translate(sent.to_string().as_bytes()).unwrap();
        assert!(as_base64);
        assert_eq!((request.input, request.dimensions), (Some(json!([""])), 4));
        let several = json!({"input": ["a", "b"], "encoding_format": "Float"});
        let (request, as_base64) = translate(several.to_string().as_bytes()).unwrap();
        assert_eq!((request.input, as_base64), (Some(json!(["a", "b"])), false));
        for input in [json!(null), json!([])] {
            assert_eq!(
                refusal(json!({"model": "m", "input": input})),
                "invalid input"
            );
        }
        for format in ["json", "hex"] {
            let text = refusal(json!({"input": "x", "encoding_format": format}));
            let expected = format!("'encoding_format' = {format}.");
            assert!(text.contains(&expected), "{text}");
        }
    }

    #[test]
    fn vectors_in_base64() {
        let reply = EmbedReply {
            embeddings: vec![vec![0.1, -0.2, 0.3], vec![0.1, 0.2], vec![]],
            ..EmbedReply::default()
        };
        let value = serde_json::to_value(reply_of(&reply, true)).unwrap();
        let encoded = |i: usize| value["data"][i]["embedding"].as_str().unwrap().to_owned();
        assert_eq!(
            [0, 1, 2].map(encoded),
            ["zczMPc3MTL6amZk+", "zczMPc3MTD4=", ""]
        );
        assert_eq!(value["data"][2]["index"], 2);
    }

    #[test]
    fn numbers_are_the_shortest_that_round_to_them() {
        let reply = EmbedReply {
            embeddings: vec![vec![0.1]],
            ..EmbedReply::default()
        };
        let text = serde_json::to_string(&reply_of(&reply, false)).unwrap();
        assert!(text.contains("\"embedding\":[0.1]"), "{text}");
    }
}
