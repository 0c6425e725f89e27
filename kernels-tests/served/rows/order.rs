//! Which of several faults of a request is told: what is checked first.

use serde_json::{Value, json};

use super::errors::check;
use super::{MINILM, TINY, server_with};

// Rows of a table: a member that is mended; status and error then, of which the next row mends the cause; and members with
// which the row is answered in spite of all faults that are left.

const GENERATE: &str = r#"
"keep_alive": "10" | 400 | time: missing unit in duration "10"
"keep_alive": "5m" | 400 | top_logprobs must be between 0 and 20
"top_logprobs": 0 | 404 | model '' not found
"model": "a//b" | 400 | invalid model name
"model": "nope" | 404 | model 'nope' not found
"model": "minilm" | 400 | raw mode does not support template, system, or context | "prompt": "", "keep_alive": 0
"raw": false | 400 | "minilm" does not support thinking
"think": false | 400 | "minilm" does not support generate
"model": "tiny" | 400 | registry.ollama.ai/library/tiny:latest does not support insert
"suffix": "" | 500 | option "seed" must be of type integer
"options": { "num_predict": 1 } | 500 | ... | "prompt": ""
"template": "" | 500 | invalid format: ... | "_debug_render_only": true
"format": "json" | 200 |
"#;

const CHAT: &str = r#"
"keep_alive": "10" | 400 | time: missing unit in duration "10"
"keep_alive": "5m" | 400 | top_logprobs must be between 0 and 20
"top_logprobs": 0 | 400 | model is required
"model": "a//b" | 400 | invalid model name
"model": "nope" | 404 | model 'nope' not found
"model": "minilm" | 400 | "minilm" does not support thinking | "messages": [], "keep_alive": 0
"think": false | 400 | "minilm" does not support chat
"model": "tiny" | 400 | registry.ollama.ai/library/tiny:latest does not support tools
"tools": [] | 500 | option "seed" must be of type integer
"options": { "num_predict": 1 } | 500 | invalid format: ... | "messages": []
"stream": true | 500 | invalid format: ... | "_debug_render_only": true
"format": "json" | 200 |
"#;

const EMBED: &str = r#"
"keep_alive": "10" | 400 | time: missing unit in duration "10"
"keep_alive": "5m" | 400 | invalid input type
"input": "x" | 404 | model '' not found
"model": "minilm" | 500 | option "seed" must be of type integer
"options": {} | 200 |
"#;

const EMBEDDINGS: &str = r#"
"keep_alive": "10" | 400 | time: missing unit in duration "10"
"keep_alive": "5m" | 400 | model is required
"model": "minilm" | 500 | option "seed" must be of type integer
"options": {} | 200 |
"#;

fn change(body: &mut Value, members: &str) {
    let members: Value = serde_json::from_str(&format!("{{{members}}}")).expect("members");
    for (name, value) in members.as_object().expect("an object") {
        body[name] = value.clone();
    }
}

#[tokio::test]
async fn the_fault_that_is_checked_first_is_told() {
    let server = server_with(&[TINY, MINILM], &[]);
    let faults = json!({
        "model": "", "keep_alive": "10", "top_logprobs": 21, "think": true, "stream": false,
        "options": { "seed": "1" }, "format": "xml", "input": 3,
        "prompt": "x", "suffix": "s", "raw": true, "system": "s", "template": "{{ if }}",
        "messages": [{ "role": "user", "content": "x" }],
        "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
    });
    let mut rows = Vec::new();
    for (path, table) in [
        ("/api/generate", GENERATE),
        ("/api/chat", CHAT),
        ("/api/embed", EMBED),
        ("/api/embeddings", EMBEDDINGS),
    ] {
        let mut body = faults.clone();
        for row in table.trim().lines() {
            let mut fields = row.split(" |").map(str::trim);
            let mut field = || fields.next().unwrap_or_default();
            change(&mut body, field());
            let status: u16 = field().parse().expect("a status");
            rows.push((path, body.clone(), status, field()));
            let answered = field();
            if !answered.is_empty() {
                let mut body = body.clone();
                change(&mut body, answered);
                rows.push((path, body, 200, ""));
            }
        }
    }
    check(&server, &rows).await;
}
