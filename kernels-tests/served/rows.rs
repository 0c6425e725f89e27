//! Behaviour of Ollama's API that no recording shows: what it asserts of names, stores, prompts, options and embeddings.

use serde_json::{Value, json};

use crate::models;
use crate::server::Server;

fn server_with(models: &[(&str, &str)], variables: &[(&str, &str)]) -> Server {
    let server = Server::start(variables);
    for (name, file) in models {
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

async fn names(server: &Server) -> Vec<String> {
    let tags = server.get("/api/tags").await.json();
    let models = tags["models"].as_array().expect("models").iter();
    models
        .map(|m| m["name"].as_str().expect("a name").to_owned())
        .collect()
}

async fn delete(server: &Server, body: Value) -> u16 {
    let request = reqwest::Client::new().delete(server.url("/api/delete"));
    request
        .body(body.to_string())
        .send()
        .await
        .expect("an answer")
        .status()
        .as_u16()
}

/// Files of the store below a folder of it.
fn stored(server: &Server, folder: &str) -> Vec<String> {
    let mut open = vec![server.home.path().join("models").join(folder)];
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).expect("a folder").flatten() {
            match entry.path().is_dir() {
                true => open.push(entry.path()),
                false => files.push(entry.path().display().to_string()),
            }
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn names_in_any_letter_case_are_one_model() {
    let server = server_with(&[TINY], &[]);
    asked(
        &server,
        "/api/create",
        json!({ "model": "TiNy", "from": "TINY", "system": "a", "stream": false }),
    )
    .await;
    asked(
        &server,
        "/api/copy",
        json!({ "source": "tINY", "destination": "TINY" }),
    )
    .await;
    assert_eq!(names(&server).await, ["tiny:latest"]);
    assert_eq!(stored(&server, "manifests").len(), 1);
    let shown = asked(&server, "/api/show", json!({ "name": "Tiny:Latest" })).await;
    assert_eq!(shown["system"], "a");
    for (source, name, listed) in [
        ("tiny", "ns/other", "ns/other:latest"),
        ("tiny", "example.com/ns/m:tag", "example.com/ns/m:tag"),
        ("tiny", "localhost:5000/ns/m", "localhost:5000/ns/m:latest"),
    ] {
        asked(
            &server,
            "/api/copy",
            json!({ "source": source, "destination": name }),
        )
        .await;
        let found = names(&server).await;
        assert!(found.iter().any(|n| n == listed), "{listed} in {found:?}");
        assert_eq!(
            delete(
                &server,
                json!({ "name": name.to_uppercase().to_lowercase() })
            )
            .await,
            200
        );
    }
    assert_eq!(names(&server).await, ["tiny:latest"]);
    assert_eq!(delete(&server, json!({ "name": "nosuch" })).await, 404);
}

#[tokio::test]
async fn shared_blobs_live_until_their_last_model() {
    let server = server_with(&[TINY], &[]);
    let before = stored(&server, "blobs");
    asked(
        &server,
        "/api/create",
        json!({ "model": "two", "from": "tiny", "system": "x", "stream": false }),
    )
    .await;
    asked(
        &server,
        "/api/copy",
        json!({ "source": "two", "destination": "three" }),
    )
    .await;
    for name in ["tiny", "two"] {
        assert_eq!(delete(&server, json!({ "model": name })).await, 200);
        let reply = server
            .generate("three", "Hi", &json!({ "num_predict": 1 }))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(delete(&server, json!({ "model": "three" })).await, 200);
    assert!(stored(&server, "blobs").is_empty(), "of {before:?}");
    assert_eq!(server.get("/api/tags").await.text, "{\"models\":[]}");
}

#[tokio::test]
async fn parameters_merge_and_lists_and_messages_are_replaced() {
    let server = server_with(&[TINY], &[]);
    let first = json!({
        "model": "made", "from": "tiny", "stream": false, "parameters": { "temperature": 0.5, "stop": ["a", "b"] },
        "messages": [{ "role": "user", "content": "one" }], "template": "{{ .Prompt }}!", "license": ["L1", "L2"],
    });
    assert_eq!(
        asked(&server, "/api/create", first).await,
        json!({ "status": "success" })
    );
    let second = json!({
        "model": "made", "from": "made", "stream": false, "parameters": { "seed": 7, "stop": ["c"] },
        "messages": [{ "role": "user", "content": "two" }],
    });
    asked(&server, "/api/create", second).await;
    let shown = asked(&server, "/api/show", json!({ "model": "made" })).await;
    let parameters = shown["parameters"].as_str().expect("parameters");
    let mut lines: Vec<Vec<&str>> = parameters
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [["seed", "7"], ["stop", "\"c\""], ["temperature", "0.5"]]
    );
    assert_eq!(
        shown["messages"],
        json!([{ "role": "user", "content": "two" }])
    );
    assert_eq!(
        (&shown["template"], &shown["license"]),
        (&json!("{{ .Prompt }}!"), &json!("L1\nL2"))
    );
    assert!(shown["model_info"]["general.parameter_count"].is_u64());
    for (wrong, status, text) in [
        (
            json!({ "files": { "a.gguf": "" } }),
            400,
            "invalid digest format",
        ),
        (
            json!({ "adapters": { "a.gguf": "" }, "from": "tiny" }),
            400,
            "invalid digest format",
        ),
        (
            json!({ "files": { "../a.gguf": "sha256:0" } }),
            400,
            "file path must be relative",
        ),
        (
            json!({ "from": "tiny", "template": "{{ if }}" }),
            400,
            "template error",
        ),
        (
            json!({ "from": "tiny", "info": { "context_length": "x" } }),
            400,
            "must be a number",
        ),
        (json!({ "from": "bad name" }), 400, "invalid model name"),
        (json!({}), 400, "neither 'from' or 'files' was specified"),
    ] {
        let mut body = json!({ "model": "wrong", "stream": false });
        for (name, value) in wrong.as_object().expect("members") {
            body[name] = value.clone();
        }
        let reply = server.post("/api/create", &body).await;
        let error = reply.json()["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            reply.status == status && error.contains(text),
            "{wrong}: {} {error}",
            reply.status
        );
    }
}

#[tokio::test]
async fn the_newest_comes_first_and_changes_on_disk_appear() {
    let server = server_with(&[TINY], &[]);
    let manifests = server
        .home
        .path()
        .join("models/manifests/registry.ollama.ai/library");
    std::fs::create_dir_all(manifests.join("beside")).expect("a folder");
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::copy(
        manifests.join("tiny/latest"),
        manifests.join("beside/latest"),
    )
    .expect("a manifest");
    assert_eq!(names(&server).await, ["beside:latest", "tiny:latest"]);
    let tags = server.get("/api/tags").await.json();
    for model in tags["models"].as_array().expect("models") {
        assert_eq!(model["capabilities"], json!(["completion"]));
        assert_eq!(model["details"]["context_length"], 4096);
        assert_eq!(model["details"]["embedding_length"], 256);
        assert!(model["expires_at"].is_null());
    }
    std::fs::write(manifests.join("beside/latest"), "").expect("a manifest");
    assert_eq!(
        names(&server).await,
        ["tiny:latest"],
        "a damaged manifest hides its model alone"
    );
    std::fs::remove_dir_all(manifests.join("beside")).expect("removed");
}

#[tokio::test]
async fn prompts_are_rendered_alike() {
    let server = server_with(&[SMOLLM2], &[]);
    let rendered = async |path: &str, mut body: Value| {
        body["model"] = json!("smollm2");
        body["_debug_render_only"] = json!(true);
        let whole = asked(&server, path, body.clone()).await;
        assert_eq!(whole["done"], false);
        body["stream"] = json!(false);
        let again = asked(&server, path, body).await;
        assert_eq!(whole["_debug_info"], again["_debug_info"]);
        whole["_debug_info"]["rendered_template"]
            .as_str()
            .expect("a prompt")
            .to_owned()
    };
    let user = |text: &str| json!({ "role": "user", "content": text });
    let system = |text: &str| json!({ "role": "system", "content": text });
    let plain = rendered("/api/generate", json!({ "prompt": "Hi there" })).await;
    let chat = rendered("/api/chat", json!({ "messages": [user("Hi there")] })).await;
    assert_eq!(plain, chat);
    let raw = rendered(
        "/api/generate",
        json!({ "prompt": "Hi there", "raw": true }),
    )
    .await;
    assert_eq!(raw, "Hi there");
    let with_system = rendered(
        "/api/generate",
        json!({ "prompt": "Hi", "system": "Be brief." }),
    )
    .await;
    assert!(with_system.contains("Be brief."), "{with_system}");
    let template =
        json!({ "prompt": "Hi", "system": "S", "template": "<{{ .System }}|{{ .Prompt }}>" });
    assert_eq!(rendered("/api/generate", template).await, "<S|Hi>");
    // What was said before comes first, and the new prompt last.
    let options = json!({ "num_predict": 2, "temperature": 0 });
    let said =
        json!({ "model": "smollm2", "prompt": "Hi there", "stream": false, "options": options });
    let context = asked(&server, "/api/generate", said).await["context"].clone();
    let both = rendered(
        "/api/generate",
        json!({ "prompt": "Hi there", "context": context }),
    )
    .await;
    assert!(
        both.ends_with(&plain) && both.len() > 2 * plain.len(),
        "{both}"
    );
    // Of a conversation that does not fit, the system messages and the last one stay.
    let turns = json!([
        system("Stay."),
        user("first turn"),
        user("second turn"),
        system("Too."),
        user("last turn")
    ]);
    let cut = json!({ "messages": turns, "options": { "num_ctx": 6 } });
    let cut = rendered("/api/chat", cut).await;
    assert!(
        cut.contains("Stay.") && cut.contains("Too.") && cut.contains("last turn"),
        "{cut}"
    );
    assert!(
        !cut.contains("first turn") && !cut.contains("second turn"),
        "{cut}"
    );
    let whole = json!({ "messages": turns, "truncate": false, "options": { "num_ctx": 6 } });
    assert!(rendered("/api/chat", whole).await.contains("first turn"));
}

#[tokio::test]
async fn the_context_is_the_requests_the_models_or_the_environments() {
    let server = server_with(&[TINY], &[("OLLAMA_CONTEXT_LENGTH", "300")]);
    let own = json!({ "model": "own", "from": "tiny", "parameters": { "num_ctx": 200 }, "stream": false });
    asked(&server, "/api/create", own).await;
    for (model, options, expected) in [
        ("tiny", json!({}), 300),
        ("own", json!({}), 200),
        ("own", json!({ "num_ctx": 100 }), 100),
        ("tiny", json!({ "num_ctx": 1_000_000 }), 4096),
        ("tiny", json!({ "num_ctx": 1 }), 4),
    ] {
        let load = json!({ "model": model, "options": options });
        assert_eq!(
            asked(&server, "/api/generate", load).await["done_reason"],
            "load"
        );
        let running = server.get("/api/ps").await.json();
        assert_eq!(
            running["models"][0]["context_length"], expected,
            "{model} {options}"
        );
    }
    // An unload loads nothing, and ends with nothing loaded.
    for _ in 0..2 {
        let unload = json!({ "model": "tiny", "keep_alive": 0 });
        assert_eq!(
            asked(&server, "/api/generate", unload).await["done_reason"],
            "unload"
        );
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(server.get("/api/ps").await.text, "{\"models\":[]}");
    }
}

#[tokio::test]
async fn log_probabilities_count_and_are_sorted() {
    let server = server_with(&[SMOLLM2], &[]);
    let ask = async |more: Value| {
        let options = json!({ "num_predict": 10, "temperature": 0 });
        let mut body = json!({ "model": "smollm2", "prompt": "Once upon a time", "raw": true, "stream": false, "options": options });
        for (name, value) in more.as_object().expect("members") {
            body[name] = value.clone();
        }
        asked(&server, "/api/generate", body).await["logprobs"].clone()
    };
    assert!(ask(json!({})).await.is_null());
    assert!(ask(json!({ "top_logprobs": 3 })).await.is_null());
    let plain = ask(json!({ "logprobs": true })).await;
    assert!(
        plain
            .as_array()
            .is_some_and(|list| list.len() == 10 && list[0]["top_logprobs"].is_null())
    );
    for entry in ask(json!({ "logprobs": true, "top_logprobs": 3 }))
        .await
        .as_array()
        .expect("a list")
    {
        let token = entry["token"].as_str().expect("a token");
        assert!(!token.is_empty() && entry["logprob"].as_f64().is_some_and(|p| p <= 0.0));
        assert_eq!(entry["bytes"], json!(token.as_bytes()));
        let top = entry["top_logprobs"].as_array().expect("alternatives");
        let sorted = top
            .windows(2)
            .all(|pair| pair[0]["logprob"].as_f64() >= pair[1]["logprob"].as_f64());
        assert!(
            top.len() == 3 && sorted && top[0]["token"] == entry["token"],
            "{entry}"
        );
    }
}

#[tokio::test]
async fn embeddings_of_batches_and_of_long_texts() {
    let server = server_with(&[MINILM], &[]);
    let embed = async |input: Value, more: Value| {
        let mut body = json!({ "model": "minilm", "input": input });
        for (name, value) in more.as_object().expect("members") {
            body[name] = value.clone();
        }
        asked(&server, "/api/embed", body).await
    };
    let vector = |reply: &Value, i: usize| -> Vec<f64> {
        let numbers = reply["embeddings"][i].as_array().expect("a vector");
        numbers.iter().filter_map(Value::as_f64).collect()
    };
    let cosine = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let one = embed(json!("why is the sky blue?"), json!({})).await;
    let many = embed(json!(vec!["why is the sky blue?"; 5]), json!({})).await;
    assert_eq!(
        (
            vector(&one, 0).len(),
            many["embeddings"].as_array().map(Vec::len)
        ),
        (384, Some(5))
    );
    assert_eq!(
        many["prompt_eval_count"].as_u64(),
        one["prompt_eval_count"].as_u64().map(|n| 5 * n)
    );
    for i in 0..5 {
        assert!(cosine(&vector(&one, 0), &vector(&many, i)) > 0.99999);
    }
    let texts = json!(["a dog barks", "a puppy yaps", "the stock market fell"]);
    let three = embed(texts, json!({})).await;
    let [dog, puppy, market] = [0, 1, 2].map(|i| vector(&three, i));
    let near = cosine(&dog, &puppy);
    assert!(
        near > cosine(&dog, &market) && near > cosine(&puppy, &market),
        "{near}"
    );
    // A text that is cut is its beginning: two tokens are at its edges.
    let cut = embed(
        json!("one two three four five six"),
        json!({ "options": { "num_ctx": 5 } }),
    )
    .await;
    let beginning = embed(json!("one two three"), json!({})).await;
    assert_eq!(
        (&cut["prompt_eval_count"], &beginning["prompt_eval_count"]),
        (&json!(5), &json!(5))
    );
    assert!(cosine(&vector(&cut, 0), &vector(&beginning, 0)) > 0.99999);
    let words = embed(json!("word ".repeat(800)), json!({})).await;
    assert!((cosine(&vector(&words, 0), &vector(&words, 0)) - 1.0).abs() < 1e-5);
    for input in [
        json!("word ".repeat(800)),
        json!(["short", "word ".repeat(800)]),
    ] {
        let body = json!({ "model": "minilm", "input": input, "truncate": false });
        let reply = server.post("/api/embed", &body).await;
        assert_eq!(
            (reply.status, reply.json()["error"].as_str()),
            (400, Some("the input length exceeds the context length"))
        );
    }
}
