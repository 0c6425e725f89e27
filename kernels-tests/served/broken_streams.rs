//! Answers that fail after their first piece: each API is told in its own way, and the stream ends.

use ollama_wgpu::gguf::Gguf;
use serde_json::{Value, json};

use crate::models;
use crate::server::{Server, frames};

/// A model one of whose experts is damaged where no loading looks: an answer fails once a token goes there.
fn server() -> Server {
    let path = models::path("tiny/tiny-llama-moe.gguf");
    let mut bytes = std::fs::read(&path).expect("the model");
    let gguf = Gguf::open(&path).expect("a valid file");
    let matrix = "blk.1.ffn_up_exps.weight";
    let start = gguf.tensor(matrix).expect("experts").offset as usize;
    // In the eleventh row of the last of four experts.
    let at = start + 2 * 256 * (128 * 3 + 10);
    bytes[at..at + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    let server = Server::start(&[]);
    let file = server.home.path().join("damaged.gguf");
    std::fs::write(&file, bytes).expect("a file");
    let text = format!("FROM {}\nTEMPLATE {{{{ .Prompt }}}}\n", file.display());
    let created = server.try_create_from("damaged", &text);
    assert!(created.0, "{}", created.1);
    server
}

/// The first answer that begins well, and all its frames. `member` is where the API has the prompt.
async fn broken(server: &Server, path: &str, member: &str) -> Vec<Value> {
    for letter in 'a'..='z' {
        let mut body =
            json!({"model": "damaged", "stream": true, "temperature": 0, "max_tokens": 60});
        body[member] = match member {
            "messages" => json!([{"role": "user", "content": letter}]),
            _ => json!(letter),
        };
        let reply = server.post(path, &body).await;
        if reply.status == 200 && reply.text.contains("invalid logits") {
            return frames(&reply.text);
        }
        // Before the first piece there is a status for it.
        assert!([200, 500].contains(&reply.status), "{path}: {}", reply.text);
    }
    panic!("{path}: no answer failed on its way");
}

#[tokio::test]
async fn a_failure_on_the_way_is_told_and_ends_the_stream() {
    let server = server();
    for (path, member) in [
        ("/v1/chat/completions", "messages"),
        ("/v1/completions", "prompt"),
    ] {
        let frames = broken(&server, path, member).await;
        let [pieces @ .., error, end] = frames.as_slice() else {
            panic!("{frames:?}");
        };
        assert!(!pieces.is_empty() && pieces.iter().all(|p| p.get("error").is_none()));
        assert_eq!(
            (&error["error"]["type"], end),
            (&json!("api_error"), &json!("[DONE]"))
        );
        assert!(error["error"]["code"].is_null());
    }
    let events = broken(&server, "/v1/responses", "input").await;
    assert!(
        events
            .iter()
            .enumerate()
            .all(|(i, e)| e["sequence_number"] == i)
    );
    let last = events.last().expect("events");
    assert_eq!(
        (
            &last["type"],
            &last["response"]["status"],
            &last["response"]["error"]["code"]
        ),
        (
            &json!("response.failed"),
            &json!("failed"),
            &json!("server_error")
        )
    );
    let events = broken(&server, "/v1/messages", "messages").await;
    assert_eq!(events[0]["type"], "message_start");
    let last = events.last().expect("events");
    assert_eq!(
        (&last["type"], &last["error"]["type"]),
        (&json!("error"), &json!("api_error"))
    );
    // Others are not concerned.
    assert_eq!(server.get("/api/tags").await.status, 200);
}
