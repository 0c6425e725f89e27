//! A model's file that loses its end while an answer is computed from it.

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::models;
use crate::server::Server;

/// The file of a model's weights.
async fn weights(server: &Server, model: &str) -> std::path::PathBuf {
    let shown = server.post("/api/show", &json!({ "model": model })).await;
    let modelfile = shown.json()["modelfile"].clone();
    let mut lines = modelfile.as_str().expect("a Modelfile").lines();
    let from = lines.find_map(|line| line.strip_prefix("FROM "));
    from.expect("a FROM line").into()
}

#[tokio::test]
async fn only_the_model_fails_whose_file_is_cut() {
    let server = Server::start(&[]);
    let (cut, other) = (models::REAL[0], "tiny/tiny-qwen3.gguf");
    server.create("cut", &models::path(cut));
    server.create("other", &models::path(other));
    let path = weights(&server, "cut").await;
    let short = json!({ "num_predict": 8, "temperature": 0 });
    let before = server.generate("other", "a b c", &short).await;

    // The grammar lets the answer end after some seconds only.
    let options = json!({ "seed": 1, "num_ctx": 512, "grammar": "/[a-z ]{4000}/" });
    let body = json!({ "model": "cut", "prompt": "a b c", "raw": true, "options": options });
    let request = reqwest::Client::new().post(server.url("/api/generate"));
    let response = request.body(body.to_string()).send().await;
    let mut pieces = response.expect("an answer").bytes_stream();
    let mut text = Vec::new();
    while let Some(piece) = pieces.next().await {
        text.extend_from_slice(&piece.expect("the server lives"));
        if text.len() > 2000 {
            let file = std::fs::File::options().write(true).open(&path);
            let file = file.expect("the weights");
            file.set_len(8192).expect("a cut");
            break;
        }
    }
    while let Some(piece) = pieces.next().await {
        text.extend_from_slice(&piece.expect("the server lives"));
    }
    let text = String::from_utf8(text).expect("text");
    let last = text.lines().last().expect("a line");
    let last: Value = serde_json::from_str(last).expect("JSON");
    let error = last["error"]
        .as_str()
        .unwrap_or_else(|| panic!("the answer does not fail: {last}"));
    let file = path.file_name().expect("a name").to_string_lossy();
    let wanted =
        format!("{file} was cut while the model was in use; pull or create the model again");
    assert_eq!(error, wanted);

    let after = server.generate("other", "a b c", &short).await;
    assert_eq!(after.status, 200, "{}", after.text);
    assert_eq!(after.json()["response"], before.json()["response"]);
    let again = server.generate("cut", "a b c", &short).await;
    assert_eq!(again.status, 500, "{}", again.text);
    let error = again.json()["error"].clone();
    let error = error.as_str().expect("an error");
    assert!(error.contains("model 'cut:latest' is damaged"), "{error}");
    // Making it again puts the blob in its place.
    server.create("cut", &models::path(cut));
    let repaired = server.generate("cut", "a b c", &short).await;
    assert_eq!(repaired.status, 200, "{}", repaired.text);
}
