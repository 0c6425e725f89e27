//! What lasts from one request to the next: conversations, models in memory, blobs; and heads of answers.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{SMOLLM2, TINY, asked, server_with};
use crate::models;
use crate::server::Server;

/// Three turns by `context`, and the same by messages.
async fn conversation(server: &Server, first: &str) -> Vec<String> {
    let options = json!({ "temperature": 0, "num_predict": 12 });
    let (mut context, mut messages, mut said) = (json!([]), Vec::new(), Vec::new());
    for prompt in [first, "And another one?", "What did I ask first?"] {
        let body = json!({ "model": "smollm2", "prompt": prompt, "context": context, "stream": false, "options": options });
        let reply = asked(server, "/api/generate", body).await;
        context = reply["context"].clone();
        messages.push(json!({ "role": "user", "content": prompt }));
        let chat = json!({ "model": "smollm2", "messages": messages, "stream": false, "options": options });
        let answer = asked(server, "/api/chat", chat).await;
        messages.push(answer["message"].clone());
        let text = reply["response"].as_str().expect("a text").to_owned();
        // The first turn has nothing before it on either route.
        if said.is_empty() {
            assert_eq!(answer["message"]["content"], text);
        }
        said.push(text);
    }
    // A later turn knows what was said.
    let alone = json!({ "model": "smollm2", "prompt": "What did I ask first?", "stream": false, "options": options });
    let alone = asked(server, "/api/generate", alone).await;
    assert_ne!(alone["response"], said[2]);
    said
}

#[tokio::test]
async fn a_context_carries_a_conversation_beside_another() {
    let server = server_with(&[SMOLLM2], &[("OLLAMA_NUM_PARALLEL", "2")]);
    let firsts = ["Name a colour.", "Name an animal that lives in the sea."];
    let mut alone = Vec::new();
    for first in firsts {
        alone.push(conversation(&server, first).await);
    }
    let together = join_all(firsts.map(|first| conversation(&server, first))).await;
    assert_eq!(together, alone);
}

#[tokio::test]
async fn a_deleted_model_stays_loaded_until_its_time() {
    let server = server_with(&[TINY], &[]);
    let load = json!({ "model": "tiny", "keep_alive": 42.5 });
    assert_eq!(
        asked(&server, "/api/chat", load).await["done_reason"],
        "load"
    );
    let delete = reqwest::Client::new().delete(server.url("/api/delete"));
    let deleted = delete.body("{\"model\":\"tiny\"}").send().await;
    assert_eq!(deleted.expect("an answer").status(), 200);
    let running = server.get("/api/ps").await.json();
    let model = &running["models"][0];
    assert_eq!(
        (&model["name"], &model["size_vram"]),
        (&json!("tiny:latest"), &json!(0))
    );
    let until = chrono::DateTime::parse_from_rfc3339(model["expires_at"].as_str().expect("a time"));
    let left = (until.expect("a time").to_utc() - chrono::Utc::now()).num_milliseconds();
    assert!((30_000..=42_500).contains(&left), "{left} ms");
    let gone = server.generate("tiny", "a", &json!({})).await;
    assert_eq!(gone.status, 404, "{}", gone.text);
}

/// Blobs of the store.
fn blobs(server: &Server) -> Vec<std::path::PathBuf> {
    let folder = server.home.path().join("models/blobs");
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn blobs_that_no_model_uses_go_unless_that_is_not_wanted() {
    for (variables, n_kept) in [(&[][..], 0), (&[("OLLAMA_NOPRUNE", "1")], 1)] {
        let server = server_with(&[TINY], variables);
        let with_system = async |text: &str| {
            let body = json!({ "model": "own", "from": "tiny", "system": text, "stream": false });
            asked(&server, "/api/create", body).await;
            blobs(&server).len()
        };
        // A system text and a config of its own each.
        let n_blobs = with_system("one").await;
        let again = with_system("two").await;
        assert_eq!(again > n_blobs, n_kept > 0, "{n_blobs}, then {again}");
        // At the start, those that are an hour old.
        let folder = server.home.path().join("models/blobs");
        let (old, young) = ("a".repeat(64), "b".repeat(64));
        for (hex, age) in [(&old, 2 * 3600), (&young, 60)] {
            let file = std::fs::File::create(folder.join(format!("sha256-{hex}")));
            let then = SystemTime::now() - Duration::from_secs(age);
            file.expect("a file").set_modified(then).expect("its time");
        }
        let models = server.home.path().join("models");
        let models = ("OLLAMA_MODELS", models.to_str().expect("text"));
        let second = Server::start(&[&[models], variables].concat());
        let is_there = |hex: &str| folder.join(format!("sha256-{hex}")).exists();
        for _ in 0..100 {
            if !is_there(&old) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((is_there(&old), is_there(&young)), (n_kept > 0, true));
        drop(second);
    }
}

#[tokio::test]
async fn heads_are_those_of_the_answers() {
    let server = server_with(&[TINY], &[]);
    let send = async |method: Method, path: &str| {
        let request = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let request = request
            .build()
            .expect("a client")
            .request(method, server.url(path));
        let response = request.send().await.expect("an answer");
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map_or(String::new(), |v| v.to_str().expect("text").to_owned())
        };
        let found = (
            response.status().as_u16(),
            header("content-type"),
            header("allow"),
            header("location"),
        );
        (found, response.text().await.expect("a body"))
    };
    for path in ["/", "/api/version", "/api/tags"] {
        let (head, body) = send(Method::HEAD, path).await;
        let (get, text) = send(Method::GET, path).await;
        assert_eq!((head, body.as_str()), (get, ""), "{path}: {text}");
    }
    let plain = "text/plain";
    for (method, path, status, allow, text) in [
        (
            Method::GET,
            "/api/generate",
            405,
            "POST",
            "405 method not allowed",
        ),
        (
            Method::POST,
            "/api/tags",
            405,
            "GET",
            "405 method not allowed",
        ),
        (
            Method::PUT,
            "/api/delete",
            405,
            "DELETE",
            "405 method not allowed",
        ),
        (Method::HEAD, "/api/ps", 405, "GET", ""),
        (Method::GET, "/api/nosuch", 404, "", "404 page not found"),
    ] {
        let ((found, kind, allowed, _), body) = send(method, path).await;
        assert_eq!((found, body.as_str()), (status, text), "{path}");
        assert!(
            kind.starts_with(plain) && allowed.contains(allow),
            "{path}: {kind} {allowed}"
        );
    }
    for (method, path, status, to) in [
        (Method::GET, "/api/tags/", 301, "/api/tags"),
        (Method::POST, "/api/show/", 307, "/api/show"),
        (Method::DELETE, "/api/delete/", 307, "/api/delete"),
    ] {
        let ((found, _, _, location), _) = send(method, path).await;
        assert_eq!((found, location.as_str()), (status, to), "{path}");
    }
}

#[tokio::test]
async fn vectors_are_raw_on_the_older_route_for_nomic_alone() {
    let server = Server::start(&[]);
    let length = |vector: &Value| -> f64 {
        let numbers = vector.as_array().expect("a vector").iter();
        let squares = numbers.filter_map(Value::as_f64).map(|x| x * x);
        squares.sum::<f64>().sqrt()
    };
    let is_unit = |vector: &Value| (length(vector) - 1.0).abs() < 1e-5;
    let text = "a few words";
    for (model, is_raw) in [("bert", false), ("nomic-bert", true)] {
        server.create(model, &models::path(&format!("tiny/tiny-{model}.gguf")));
        let old = json!({ "model": model.to_uppercase(), "prompt": text });
        let old = asked(&server, "/api/embeddings", old).await;
        assert_eq!(is_unit(&old["embedding"]), !is_raw, "{model}");
        for dimensions in [json!(null), json!(16)] {
            let body = json!({ "model": model, "input": [text, "b"], "dimensions": dimensions });
            let new = asked(&server, "/api/embed", body).await;
            let vectors = new["embeddings"].as_array().expect("vectors");
            assert!(vectors.len() == 2 && vectors.iter().all(is_unit), "{model}");
            if dimensions.is_null() {
                let (first, raw) = (&vectors[0][0], &old["embedding"][0]);
                let scaled = raw.as_f64().expect("a number") / length(&old["embedding"]);
                assert!((first.as_f64().expect("a number") - scaled).abs() < 1e-6);
            }
            assert!(new["total_duration"].as_u64() > new["load_duration"].as_u64());
        }
        let load = asked(&server, "/api/embed", json!({ "model": model })).await;
        assert_eq!(load, json!({ "model": model, "embeddings": [] }));
        let empty = json!({ "model": model, "prompt": "" });
        let empty = asked(&server, "/api/embeddings", empty).await;
        assert_eq!(empty, json!({ "embedding": [] }));
    }
}
