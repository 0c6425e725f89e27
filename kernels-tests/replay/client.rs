//! Sends a recorded request and reads the answer in the form of the recordings.

use crate::case::model_file;
use crate::server::Server;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Headers that the recordings keep.
const HEADERS: [&str; 10] = [
    "content-type",
    "allow",
    "location",
    "access-control-allow-origin",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-max-age",
    "vary",
    "cache-control",
    "transfer-encoding",
];

/// Lines of a stream that the recordings keep whole; of longer ones the first and last two.
const MAX_LINES: usize = 14;

pub struct Answer {
    pub status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    is_head: bool,
}

/// Sends one request, with the values of this server in place of `$PORT` and the like.
pub async fn send(server: &Server, request: &Value) -> Result<Answer, String> {
    let request = server.filled_in(request);
    let method: Method = request["method"]
        .as_str()
        .unwrap_or("GET")
        .parse()
        .expect("a method");
    ollama_wgpu::store::registry::use_ring();
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!(
        "http://127.0.0.1:{}{}",
        server.port,
        request["path"].as_str().unwrap_or("/")
    );
    let mut builder = client.request(method.clone(), url);
    let mut body = Vec::new();
    match &request["body"] {
        Value::Null => {}
        Value::String(text) => body = text.clone().into_bytes(),
        json => {
            builder = builder.header("content-type", "application/json");
            body = json.to_string().into_bytes();
        }
    }
    if let Some(text) = request["body_base64"].as_str() {
        body = STANDARD.decode(text).expect("base64");
    }
    if let Some(name) = request["body_file"].as_str() {
        body = model_file(name);
    }
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        builder = builder.header(name, value.as_str().unwrap_or_default());
    }
    let response = builder
        .body(body)
        .send()
        .await
        .map_err(|e| format!("{e:?}"))?;
    let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        is_head: method == Method::HEAD,
        body: response
            .bytes()
            .await
            .map_err(|e| format!("{e:?}"))?
            .to_vec(),
    })
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The answer as the recording writes it; `expected` says how a long stream was cut.
    pub fn as_recorded(&self, expected: &Value) -> Value {
        let mut response = Map::new();
        response.insert("status".into(), json!(self.status));
        let mut headers: Map<String, Value> = Map::new();
        for name in HEADERS
            .iter()
            .filter(|name| self.headers.contains_key(**name))
        {
            headers.insert((*name).into(), json!(self.headers[*name]));
        }
        if self.is_head
            && let Some(length) = self.headers.get("content-length")
        {
            headers.insert("content-length".into(), json!(length));
        }
        response.insert("headers".into(), Value::Object(headers));
        let text = self.text();
        match self.headers.get("content-type").map(String::as_str) {
            Some("application/x-ndjson") => {
                let lines = text
                    .lines()
                    .map(|l| serde_json::from_str(l).unwrap_or(json!(l)))
                    .collect();
                insert_stream(&mut response, "ndjson", lines, expected);
            }
            Some("text/event-stream") => {
                let frames = text
                    .split("\n\n")
                    .filter(|f| !f.is_empty())
                    .map(frame)
                    .collect();
                insert_stream(&mut response, "sse", frames, expected);
            }
            _ => {
                match serde_json::from_str(&text) {
                    Ok(value) => response.insert("body".into(), value),
                    Err(_) => response.insert("body".into(), json!(text)),
                };
                if expected.get("trailing_newline").is_some() {
                    response.insert("trailing_newline".into(), json!(text.ends_with('\n')));
                }
            }
        }
        Value::Object(response)
    }
}

fn frame(text: &str) -> Value {
    let mut frame = Map::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("event: ") {
            frame.insert("event".into(), json!(name));
        } else if let Some(data) = line.strip_prefix("data: ") {
            frame.insert(
                "data".into(),
                serde_json::from_str(data).unwrap_or(json!(data)),
            );
        } else {
            frame.insert("unexpected".into(), json!(line));
        }
    }
    Value::Object(frame)
}

fn insert_stream(
    response: &mut Map<String, Value>,
    format: &str,
    lines: Vec<Value>,
    expected: &Value,
) {
    response.insert("stream_format".into(), json!(format));
    response.insert("n_lines".into(), json!(lines.len()));
    let was_cut = expected["lines"]
        .as_array()
        .is_some_and(|l| l.iter().any(Value::is_string));
    let lines = match lines.as_slice() {
        [first, second, .., before, last] if was_cut || lines.len() > MAX_LINES => {
            let mark = json!(format!("... {} lines left out ...", lines.len() - 4));
            json!([first, second, mark, before, last])
        }
        _ => json!(lines),
    };
    response.insert("lines".into(), lines);
}
