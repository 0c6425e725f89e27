//! Prompts, contexts, log-probabilities and embeddings.

use serde_json::{Value, json};

use super::{MINILM, SMOLLM2, TINY, asked, server_with};

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
    let images = json!({ "prompt": "[img] beside [img]", "images": ["AA==", "AQ=="], "template": "{{ .Prompt }}" });
    assert_eq!(
        rendered("/api/generate", images).await,
        "[img-0] beside [img-1]"
    );
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
async fn copilot_finds_the_name_that_it_sent() {
    let server = server_with(&[TINY], &[]);
    for (agent, changed) in [("GitHubCopilotChat/0.1", true), ("curl/8", false)] {
        let request = reqwest::Client::new().post(server.url("/api/show"));
        let request = request
            .header("User-Agent", agent)
            .body("{\"model\":\"TINY\"}");
        let text = request.send().await.expect("a reply").text().await;
        let shown: Value = serde_json::from_str(&text.expect("a body")).expect("JSON");
        let name = &shown["model_info"]["general.basename"];
        assert_eq!(name == "TINY", changed, "{agent}: {name}");
    }
}

#[tokio::test]
async fn no_answer_is_longer_than_ten_contexts() {
    let server = server_with(&[TINY], &[]);
    for (num_predict, length) in [(-1, 80), (1000, 80), (79, 79), (1, 1), (0, 0)] {
        let options =
            json!({ "num_ctx": 8, "temperature": 2, "seed": 3, "num_predict": num_predict });
        let reply = server.generate("tiny", "a b", &options).await.json();
        let found = (
            reply["eval_count"].as_u64().unwrap_or(0),
            &reply["done_reason"],
        );
        assert_eq!(found, (length, &json!("length")), "{num_predict}");
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
