//! What the APIs of OpenAI and Anthropic refuse: status, text and shape of each refusal.

use serde_json::{Value, json};

use crate::models;
use crate::server::Server;

const MESSAGES: &str = "/v1/messages";

/// Path, status, body without the model, a part of the message.
const ROWS: &str = r#"
/v1/chat/completions | 400 | {} | [] is too short - 'messages'
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": 1}]} | invalid message content type: float64
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": true}]} | invalid message content type: bool
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": {}}]} | invalid message content type: map[string]interface {}
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": ["x"]}]} | invalid message format
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": [{"type": "text"}]}]} | invalid message format
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": [{"type": "video"}]}]} | invalid message format
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]} | image URLs are not currently supported
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/gif;base64,aGk="}}]}]} | invalid image input
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]} | invalid input_audio format
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]} | missing data
/v1/chat/completions | 400 | {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "[1]"}}]}]} | invalid tool call arguments
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "model": ""} | model is required
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "model": "a/b/c/d/e"} | invalid model name
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "model": "minilm"} | "minilm" does not support chat
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]} | library/smollm2:latest does not support tools
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "reasoning_effort": "extreme"} | invalid reasoning value: "extreme"
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "reasoning_effort": "low"} | "smollm2" does not support thinking
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "top_logprobs": -1} | top_logprobs must be between 0 and 20
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "xml"}} | "xml"
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}} | needs a schema
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "tool_choice": "sometimes"} | tool_choice "sometimes"
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"} | needs tools
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "%"}}]}]} | invalid input_audio base64 data
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "functions": [{"name": "f"}]} | send them as tools
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "web_search_options": {}} | web_search_options is not supported
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "custom", "custom": {"name": "f"}}]} | tool type "custom" is not supported
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "modalities": ["audio"]} | modalities
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "n": 0} | n must be between 1 and 128
/v1/chat/completions | 400 | {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}} | invalid format: 
/v1/chat/completions | 404 | {"messages": [{"role": "user", "content": "x"}], "model": "nosuch"} | model 'nosuch' not found
/v1/completions | 404 | {"model": "", "prompt": "x"} | model '' not found
/v1/completions | 400 | {"model": "minilm", "prompt": "x"} | does not support generate
/v1/completions | 400 | {"prompt": "x", "suffix": "y"} | library/smollm2:latest does not support insert
/v1/completions | 400 | {"prompt": "x", "stop": [1]} | invalid type for 'stop' field: float64
/v1/completions | 400 | {"prompt": [1, 2]} | prompts of tokens are not supported
/v1/embeddings | 400 | {"input": null} | invalid input
/v1/embeddings | 400 | {"input": []} | invalid input
/v1/embeddings | 400 | {"input": [1]} | invalid input type
/v1/embeddings | 400 | {"input": {}} | invalid input type
/v1/embeddings | 400 | {"input": "x", "encoding_format": "hex"} | Invalid value for 'encoding_format' = hex.
/v1/embeddings | 404 | {"model": "nosuch", "input": "x"} | model "nosuch" not found, try pulling it first
/v1/responses | 400 | {"input": 5} | input must be a string or array
/v1/responses | 400 | {"input": [{}]} | input item missing required 'type' field
/v1/responses | 400 | {"input": [{"type": "odd"}]} | unknown input item type: "odd"
/v1/responses | 400 | {"input": [{"type": "message", "role": "user", "content": 5}]} | content must be a string or array
/v1/responses | 400 | {"input": [{"type": "message", "role": "user", "content": [{"type": "odd"}]}]} | unknown content type: odd
/v1/responses | 400 | {"input": [{"type": "message", "role": "user", "content": [{"type": "input_file"}]}]} | file inputs are not currently supported
/v1/responses | 400 | {"input": [{"type": "function_call", "name": "f", "arguments": "{", "call_id": "1"}]} | failed to parse function call arguments
/v1/responses | 400 | {"input": [{"type": "function_call_output", "call_id": "1", "output": 5}]} | output must be a string or array
/v1/responses | 400 | {"input": "x", "text": {"format": {"type": "xml"}}} | "xml"
/v1/responses | 400 | {"input": "x", "tools": [{"type": "web_search"}]} | "web_search" is not supported
/v1/responses | 400 | {"input": "x", "previous_response_id": "resp_1"} | previous_response_id
/v1/responses | 400 | {"input": [{"type": "item_reference", "id": "rs_1"}]} | nothing is kept between requests
/v1/responses | 400 | {} | input is required
/v1/responses | 400 | {"input": null} | input is required
/v1/responses | 400 | {"input": "x", "prompt": {"id": "p"}} | prompt is not supported
/v1/responses | 400 | {"input": "x", "conversation": "conv_1"} | conversation is not supported
/v1/responses | 400 | {"input": "x", "model": ""} | model is required
/v1/responses | 404 | {"input": "x", "model": "nosuch"} | model 'nosuch' not found
/v1/responses | 400 | {"input": "x", "model": "minilm"} | does not support chat
/v1/responses | 400 | {"input": "x", "reasoning": {"effort": "extreme"}} | invalid reasoning value: "extreme"
/v1/responses | 400 | {"input": "x", "reasoning": {"effort": "low"}} | does not support thinking
/v1/responses | 400 | {"input": "x", "top_logprobs": 21} | top_logprobs must be between 0 and 20
/v1/responses | 400 | {"input": "x", "tools": [{"type": "function", "name": "f"}]} | does not support tools
/v1/responses | 400 | {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y.png"}]}]} | image URLs are not currently supported
/v1/responses | 400 | {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/gif;base64,aGk="}]}]} | invalid image input
/v1/responses | 400 | {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk="}]}]} | does not support images
/v1/responses/input_tokens | 400 | {} | input is required
/v1/responses/input_tokens | 404 | {"input": "x", "model": "nosuch"} | model 'nosuch' not found
/v1/messages | 400 | {"model": ""} | model is required
/v1/messages | 400 | {} | max_tokens is required and must be positive
/v1/messages | 400 | {"max_tokens": 1} | messages is required
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": [{"type": "tool_use", "name": "f"}]}]} | missing required 'id' field
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": [{"type": "tool_use", "id": "1"}]}]} | missing required 'name' field
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": [{"type": "image"}]}]} | invalid image source
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}]} | Only base64 images are supported.
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "%"}}]}]} | invalid base64 image data
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image"}]}]}]} | invalid tool_result image source
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f", "input_schema": 5}]} | invalid input_schema for tool "f"
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "tools": [{"name": "s", "type": "web_search_20250305"}]} | is not supported
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "tool_choice": {"type": "odd"}} | tool_choice
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "model": "minilm"} | does not support chat
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f", "input_schema": {"type": "object"}}]} | library/smollm2:latest does not support tools
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "output_config": {"format": {"type": "xml"}}} | invalid output_config.format
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}} | invalid format: 
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "model": "a/b/c/d/e"} | invalid model name
/v1/messages | 400 | {"max_tokens": 2, "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "aGk="}}]}]} | does not support images
/v1/messages/count_tokens | 400 | {} | messages is required
/v1/messages/count_tokens | 404 | {"messages": [{"role": "user", "content": "x"}], "model": "nosuch"} | model 'nosuch' not found
/v1/messages/count_tokens | 400 | {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "aGk="}}]}]} | does not support images
/v1/messages | 404 | {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "model": "nosuch"} | model 'nosuch' not found
"#;

fn rows() -> impl Iterator<Item = (&'static str, u16, Value, &'static str)> {
    ROWS.trim().lines().map(|row| {
        let columns: Vec<&str> = row.split(" | ").collect();
        let [path, status, body, text] = columns[..] else {
            panic!("{row}");
        };
        let status = status.parse().expect("a status");
        (
            path,
            status,
            serde_json::from_str(body).expect("JSON"),
            text,
        )
    })
}

#[tokio::test]
async fn refusals_have_the_text_and_the_shape_of_their_api() {
    let server = Server::start(&[]);
    server.create("smollm2", &models::path("smollm2-135m-instruct-q4_1.gguf"));
    server.create("minilm", &models::path("all-minilm-l6-v2-f16.gguf"));
    for (path, status, mut body, text) in rows() {
        let members = body.as_object_mut().expect("an object");
        let model = match path {
            "/v1/embeddings" => "minilm",
            _ => "smollm2",
        };
        members.entry("model").or_insert_with(|| json!(model));
        let reply = server.post(path, &body).await;
        let refused = reply.json();
        let error = &refused["error"];
        let message = error["message"].as_str().unwrap_or_default();
        let is_told = reply.status == status && message.contains(text);
        assert!(is_told, "{path} {body}: {} {}", reply.status, reply.text);
        let kind = match status {
            404 => "not_found_error",
            _ => "invalid_request_error",
        };
        let is_anthropic = path.starts_with(MESSAGES);
        let expected = match is_anthropic {
            true => json!({"type": kind, "message": message}),
            false => json!({"message": message, "type": kind, "param": null, "code": null}),
        };
        assert_eq!(error, &expected, "{path} {body}");
        let id = refused["request_id"].as_str().unwrap_or_default();
        assert_eq!(id.starts_with("req_"), is_anthropic, "{refused}");
        assert_eq!(refused["type"] == "error", is_anthropic, "{refused}");
    }
}

/// What is no request at all.
#[tokio::test]
async fn bodies_of_every_form_are_refused_in_the_shape_of_their_api() {
    let server = Server::start(&[]);
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/responses/input_tokens",
        MESSAGES,
        "/v1/messages/count_tokens",
    ] {
        for (body, text) in [
            ("", "EOF"),
            ("{\"model\": \"m\"", "unexpected EOF"),
            ("{,}", "invalid JSON"),
            ("[]", "array into a request object"),
            ("{\"model\": 5}", "number into field model"),
        ] {
            let request = reqwest::Client::new().post(server.url(path)).body(body);
            let reply = request.send().await.expect("an answer");
            assert_eq!(reply.status(), 400, "{path} {body}");
            let refused: Value = reply.json().await.expect("JSON");
            let message = refused["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains(text), "{path} {body}: {refused}");
            assert_eq!(refused["error"]["type"], "invalid_request_error");
            assert_eq!(refused["type"] == "error", path.starts_with(MESSAGES));
        }
    }
}

/// An answer that one of the request's stop sequences ended names it; one of the model's own does not.
#[tokio::test]
async fn messages_name_the_stop_sequence() {
    let server = Server::start(&[]);
    server.create("smollm2", &models::path("smollm2-135m-instruct-q4_1.gguf"));
    let ask = json!({"model": "smollm2", "max_tokens": 40, "temperature": 0,
        "messages": [{"role": "user", "content": "The capital of France is"}], "stop_sequences": ["nosuch", " is"]});
    let reply = server.post(MESSAGES, &ask).await.json();
    assert_eq!(
        (&reply["stop_reason"], &reply["stop_sequence"]),
        (&json!("stop_sequence"), &json!(" is")),
        "{reply}"
    );
    let mut plain = ask.clone();
    plain["stop_sequences"] = json!([]);
    let reply = server.post(MESSAGES, &plain).await.json();
    assert!(
        reply["stop_reason"] != "stop_sequence" && reply.get("stop_sequence").is_none(),
        "{reply}"
    );
}
