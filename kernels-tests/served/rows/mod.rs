//! Behaviour of Ollama's API that no recording shows: what it asserts of names, stores, prompts, options and embeddings.

mod answers;
mod asserted;
mod commands;
mod environment;
mod errors;
mod lasting;
mod order;
mod refusals;
mod store;

use serde_json::Value;

use crate::models;
use crate::server::Server;

fn server_with(named: &[(&str, &str)], variables: &[(&str, &str)]) -> Server {
    let server = Server::start(variables);
    for (name, file) in named {
        server.create(name, &models::path(file));
    }
    server
}

const TINY: (&str, &str) = ("tiny", "tiny/tiny-llama.gguf");
const SMOLLM2: (&str, &str) = ("smollm2", "smollm2-135m-instruct-q4_1.gguf");
const MINILM: (&str, &str) = ("minilm", "all-minilm-l6-v2-f16.gguf");

/// The reply to a request that succeeds.
async fn asked(server: &Server, path: &str, body: Value) -> Value {
    let reply = server.post(path, &body).await;
    assert_eq!(reply.status, 200, "{path} {body}: {}", reply.text);
    if reply.text.is_empty() {
        return Value::Null;
    }
    reply.json()
}
