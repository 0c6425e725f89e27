//! Tool calls that must be made, or must not, on each API, and the other members of those APIs.

use serde_json::{Value, json};

use crate::models;
use crate::server::{Server, frames};

const SMOLLM2: &str = "smollm2-135m-instruct-q4_1.gguf";

/// SmolLM2 under a template with tools; its answers are guided, so that it need not know how to call.
async fn server() -> Server {
    let server = Server::start(&[]);
    server.create("smollm2", &models::path(SMOLLM2));
    let template = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}{{ if .ToolCalls }}{{ range .ToolCalls }}<tool_call>\n{\"name\": \"{{ .Function.Name }}\", \"arguments\": {{ .Function.Arguments }}}\n</tool_call>{{ end }}{{ end }}<|im_end|>\n{{ end }}{{ range .Tools }}{{ .Function }}\n{{ end }}<|im_start|>assistant\n";
    let body = json!({"model": "caller", "from": "smollm2", "template": template, "stream": false});
    let created = server.post("/api/create", &body).await;
    assert_eq!(created.status, 200, "{}", created.text);
    server
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 3}},
        "required": ["city", "days"],
    })
}

fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": parameters()}});
    json!([tool("weather"), tool("hotel")])
}

fn fits(arguments: &Value) {
    assert!(
        ["Rome", "Oslo"].contains(&arguments["city"].as_str().expect("a city")),
        "{arguments}"
    );
    assert!(
        (1..=3).contains(&arguments["days"].as_i64().expect("days")),
        "{arguments}"
    );
    assert_eq!(arguments.as_object().expect("members").len(), 2);
}

/// A request with more members, which win.
pub fn extended(mut body: Value, more: &Value) -> Value {
    let more = more.as_object().expect("members").clone();
    body.as_object_mut().expect("an object").extend(more);
    body
}

fn question() -> Value {
    json!([{"role": "user", "content": "What is the weather in Rome?"}])
}

#[tokio::test]
async fn a_choice_of_tools_is_enforced() {
    let server = server().await;
    let body = json!({"model": "caller", "messages": question(), "tools": tools(), "max_tokens": 200, "seed": 1});
    let ask = async |more: Value| {
        server
            .post("/v1/chat/completions", &extended(body.clone(), &more))
            .await
    };
    let calls = |reply: &Value| {
        reply["choices"][0]["message"]["tool_calls"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    for (choice, name) in [
        (json!("required"), None),
        (
            json!({"type": "function", "function": {"name": "hotel"}}),
            Some("hotel"),
        ),
        (
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required",
                "tools": [{"type": "function", "function": {"name": "hotel"}}]}}),
            Some("hotel"),
        ),
    ] {
        for temperature in [0.0, 1.2] {
            let reply = ask(json!({"tool_choice": choice, "temperature": temperature, "parallel_tool_calls": false})).await.json();
            let found = calls(&reply);
            assert_eq!(
                (found.len(), &reply["choices"][0]["finish_reason"]),
                (1, &json!("tool_calls")),
                "{reply}"
            );
            assert!(
                name.is_none_or(|name| found[0]["function"]["name"] == name),
                "{reply}"
            );
            fits(
                &serde_json::from_str(found[0]["function"]["arguments"].as_str().expect("text"))
                    .expect("JSON"),
            );
        }
    }
    let none = ask(json!({"tool_choice": "none", "max_tokens": 8}))
        .await
        .json();
    assert!(
        calls(&none).is_empty() && none["choices"][0]["message"]["content"] != "",
        "{none}"
    );
    let unknown =
        ask(json!({"tool_choice": {"type": "function", "function": {"name": "nosuch"}}})).await;
    assert_eq!(unknown.status, 400);
    let odd = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]);
    let refused = ask(json!({"tools": odd, "tool_choice": "required"})).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("not"), "{}", refused.text);
    let native = json!({"model": "caller", "messages": question(), "tools": tools(), "tool_choice": "required", "parallel_tool_calls": false, "stream": false});
    let native = server.post("/api/chat", &native).await.json();
    fits(&native["message"]["tool_calls"][0]["function"]["arguments"]);
}

#[tokio::test]
async fn messages_of_anthropics_api() {
    let server = server().await;
    let tool = json!([{"name": "weather", "description": "w", "input_schema": parameters()}]);
    let body =
        json!({"model": "caller", "messages": question(), "max_tokens": 200, "temperature": 0});
    let ask = async |more: Value| {
        server
            .post("/v1/messages", &extended(body.clone(), &more))
            .await
    };
    let plain = ask(json!({"max_tokens": 5})).await.json();
    assert_eq!(
        (&plain["stop_reason"], &plain["usage"]["output_tokens"]),
        (&json!("max_tokens"), &json!(5))
    );
    let text = plain["content"][0]["text"]
        .as_str()
        .expect("text")
        .to_owned();
    let streamed = frames(&ask(json!({"max_tokens": 5, "stream": true})).await.text);
    let deltas: String = streamed
        .iter()
        .filter_map(|e| e["delta"]["text"].as_str())
        .collect();
    assert_eq!(deltas, text);
    assert_eq!(
        streamed[0]["message"]["usage"]["input_tokens"],
        plain["usage"]["input_tokens"]
    );
    assert_eq!(streamed.last().expect("events")["type"], "message_stop");
    // A prompt that is in the cache is counted as such from the first event on.
    let long = json!({"messages": [{"role": "user", "content": "word ".repeat(100)}], "max_tokens": 1, "stream": true});
    let cold = frames(&ask(long.clone()).await.text)[0]["message"]["usage"].clone();
    let warm = frames(&ask(long).await.text);
    let (first, last) = (&warm[0]["message"]["usage"], &warm[warm.len() - 2]["usage"]);
    assert!(
        first["cache_read_input_tokens"].as_u64() >= Some(96),
        "{first}"
    );
    let total = |usage: &Value| {
        let count = |name: &str| usage[name].as_u64().expect("a count");
        count("input_tokens") + count("cache_read_input_tokens")
    };
    assert_eq!((total(first), total(last)), (total(&cold), total(&cold)));
    assert_eq!(first["input_tokens"], last["input_tokens"]);
    let count = json!({"model": "caller", "messages": question()});
    let counted = server
        .post("/v1/messages/count_tokens", &count)
        .await
        .json();
    assert_eq!(counted["input_tokens"], plain["usage"]["input_tokens"]);
    let forced =
        json!({"tools": tool, "tool_choice": {"type": "any", "disable_parallel_tool_use": true}});
    let called = ask(forced.clone()).await.json();
    assert_eq!(
        (&called["stop_reason"], &called["content"][0]["name"]),
        (&json!("tool_use"), &json!("weather")),
        "{called}"
    );
    fits(&called["content"][0]["input"]);
    let events = frames(&ask(extended(forced, &json!({"stream": true}))).await.text);
    let json: String = events
        .iter()
        .filter_map(|e| e["delta"]["partial_json"].as_str())
        .collect();
    fits(&serde_json::from_str(&json).expect("JSON"));
    // The call and its result go back.
    let use_id = called["content"][0]["id"].clone();
    let turns = json!([question()[0], {"role": "assistant", "content": called["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use_id, "content": "sunny"}]}]);
    let answer = ask(json!({"messages": turns, "tools": tool, "max_tokens": 4})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let unknown = ask(json!({"model": "nosuch"})).await;
    assert_eq!(
        (unknown.status, &unknown.json()["error"]["type"]),
        (404, &json!("not_found_error"))
    );
    // A model that cannot think answers without thinking.
    assert_eq!(
        ask(json!({"thinking": {"type": "enabled"}, "max_tokens": 2}))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn responses_of_openais_newer_api() {
    let server = server().await;
    let body = json!({"model": "caller", "input": "Name a colour.", "max_output_tokens": 60, "temperature": 0});
    let ask = async |more: Value| {
        server
            .post("/v1/responses", &extended(body.clone(), &more))
            .await
    };
    let plain = ask(json!({"max_output_tokens": 5})).await.json();
    assert_eq!(
        (&plain["status"], &plain["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let text = plain["output"][0]["content"][0]["text"]
        .as_str()
        .expect("text")
        .to_owned();
    let events = frames(
        &ask(json!({"max_output_tokens": 5, "stream": true}))
            .await
            .text,
    );
    let deltas: String = events.iter().filter_map(|e| e["delta"].as_str()).collect();
    assert_eq!(
        (deltas.as_str(), &events.last().expect("events")["type"]),
        (text.as_str(), &json!("response.incomplete"))
    );
    assert!(
        events
            .iter()
            .enumerate()
            .all(|(i, e)| e["sequence_number"] == i)
    );
    let schema = json!({"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]});
    let format =
        json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": schema}}});
    let structured = ask(format).await.json();
    let colour: Value = serde_json::from_str(
        structured["output"][0]["content"][0]["text"]
            .as_str()
            .expect("text"),
    )
    .expect("JSON");
    assert!(["red", "blue"].contains(&colour["colour"].as_str().expect("a colour")));
    let tool = json!([{"type": "function", "name": "weather", "parameters": parameters()}]);
    let forced = json!({"tools": tool, "tool_choice": {"type": "function", "name": "weather"}, "max_output_tokens": 200});
    let called = ask(forced).await.json();
    let item = &called["output"][0];
    assert_eq!(
        (&item["type"], &item["name"], &called["tool_choice"]["name"]),
        (
            &json!("function_call"),
            &json!("weather"),
            &json!("weather")
        )
    );
    fits(&serde_json::from_str(item["arguments"].as_str().expect("text")).expect("JSON"));
    let turns = json!([{"role": "user", "content": "Weather?"}, item,
        {"type": "function_call_output", "call_id": item["call_id"], "output": "sunny"}]);
    assert_eq!(
        ask(json!({"input": turns, "tools": tool, "max_output_tokens": 4}))
            .await
            .status,
        200
    );
    let remembered = ask(json!({"previous_response_id": plain["id"]})).await;
    assert_eq!(remembered.status, 400);
    assert!(
        remembered.text.contains("previous_response_id"),
        "{}",
        remembered.text
    );
}

/// Roles and contents as each API's clients send them after a call.
#[tokio::test]
async fn the_result_of_a_call_goes_back_on_every_route() {
    let server = server().await;
    let arguments = json!({"city": "Rome", "days": 1});
    let text = arguments.to_string();
    let call =
        json!({"id": "c1", "type": "function", "function": {"name": "weather", "arguments": text}});
    let flat = json!([{"type": "function", "name": "weather", "parameters": parameters()}]);
    let anthropic = json!([{"name": "weather", "input_schema": parameters()}]);
    for (path, turns) in [
        (
            "/api/chat",
            json!({"messages": [{"role": "user", "content": "Weather?"},
                {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": arguments}}]},
                {"role": "tool", "tool_name": "weather", "content": "sunny"}], "tools": tools(), "stream": false,
                "options": {"num_predict": 4}}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": null, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]}],
                "tools": tools(), "max_tokens": 4}),
        ),
        (
            "/v1/responses",
            json!({"input": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Weather?"},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": text},
                {"type": "function_call_output", "call_id": "c1", "output": "sunny"}], "tools": flat, "max_output_tokens": 4}),
        ),
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": "Weather?"}, {"role": "system", "content": "Be brief."},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": arguments}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}]}],
                "tools": anthropic, "max_tokens": 4}),
        ),
    ] {
        let reply = server
            .post(path, &extended(turns, &json!({"model": "caller"})))
            .await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        let body = reply.json();
        let usage = &body["usage"];
        let count = |name: &str| usage[name].as_u64().unwrap_or_default();
        let n = body["prompt_eval_count"].as_u64().unwrap_or_default()
            + count("prompt_tokens")
            + count("input_tokens")
            + count("cache_read_input_tokens");
        assert!(
            n > 90,
            "{path}: the tools, the call and its result are in the prompt: {body}"
        );
    }
}
