//! What Ollama's own tests assert of answers, options and the queue.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use super::{SMOLLM2, TINY, asked, server_with};
use crate::server::{Reply, Server};

const METRICS: [&str; 6] = [
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
];

/// The objects of a stream.
fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let lines = reply.text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[tokio::test]
async fn a_finished_reply_has_its_reason_and_all_metrics() {
    let server = server_with(&[SMOLLM2], &[]);
    let options = json!({ "num_predict": 5, "temperature": 0 });
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    let mut counts = Vec::new();
    for (path, member, said) in [
        ("/api/generate", "prompt", json!("Hi")),
        ("/api/chat", "messages", messages),
    ] {
        // The first request of a prompt, and one that finds it in the cache.
        for stream in [true, false, true] {
            let body =
                json!({ "model": "smollm2", member: said, "options": options, "stream": stream });
            let objects = lines(&server.post(path, &body).await);
            let (last, before) = objects.split_last().expect("an object");
            for object in before {
                assert_eq!(object["done"], false);
                let more = METRICS.iter().chain(&["done_reason", "context"]);
                assert!(more.into_iter().all(|name| object[*name].is_null()));
            }
            assert_eq!(
                (&last["done"], &last["done_reason"], &last["model"]),
                (&json!(true), &json!("length"), &json!("smollm2"))
            );
            for name in METRICS {
                assert!(last[name].as_u64() > Some(0), "{path}: {name} in {last}");
            }
            let has_context = last["context"].as_array().is_some_and(|c| c.len() > 5);
            assert_eq!(has_context, path == "/api/generate", "{last}");
            counts.push(last["prompt_eval_count"].clone());
        }
    }
    assert!(counts.iter().all(|n| *n == counts[0]), "{counts:?}");
}

#[tokio::test]
async fn each_option_has_its_effect() {
    let server = server_with(&[SMOLLM2], &[]);
    let prompt = "Once upon a time there was a cat. The cat was a cat. The cat was";
    let text = async |options: Value| {
        let mut body = json!({ "model": "smollm2", "prompt": prompt, "raw": true, "stream": false, "options": options });
        let numbers = body["options"].as_object_mut().expect("options");
        numbers.entry("num_predict").or_insert(json!(24));
        let reply = asked(&server, "/api/generate", body).await;
        reply["response"].as_str().expect("a text").to_owned()
    };
    let greedy = text(json!({ "temperature": 0 })).await;
    let hot = text(json!({ "temperature": 1.5, "seed": 1 })).await;
    assert_ne!(hot, greedy);
    for same in [
        json!({ "temperature": 1.5, "seed": 1, "num_thread": 1, "use_mmap": true, "main_gpu": null, "num_gpu": 0 }),
        json!({ "temperature": 1.5, "seed": 1.9, "num_batch": 16, "nonsense": 3, "mirostat": 2 }),
        json!({ "temperature": 1.5, "seed": 1, "draft_num_predict": 4, "num_ctx": 512 }),
    ] {
        assert_eq!(text(same.clone()).await, hot, "{same}");
    }
    for best in [
        json!({ "temperature": 1.5, "seed": 1, "top_k": 1 }),
        json!({ "temperature": 1.5, "seed": 1, "top_p": 1e-6 }),
        json!({ "temperature": 1.5, "seed": 1, "min_p": 1.0 }),
        json!({ "temperature": 0, "repeat_penalty": 1.8, "repeat_last_n": 0 }),
        json!({ "temperature": 0, "presence_penalty": 2.0, "repeat_last_n": 0 }),
    ] {
        assert_eq!(text(best.clone()).await, greedy, "{best}");
    }
    for other in [
        json!({ "temperature": 1.5, "seed": 2 }),
        json!({ "temperature": 1.5, "seed": 1, "typical_p": 0.1 }),
        json!({ "temperature": 1.5, "seed": 1, "top_k": 2 }),
        json!({ "temperature": 0, "repeat_penalty": 1.8 }),
        json!({ "temperature": 0, "repeat_penalty": 1.8, "repeat_last_n": -1 }),
        json!({ "temperature": 0, "presence_penalty": 2.0 }),
        json!({ "temperature": 0, "frequency_penalty": 2.0 }),
    ] {
        let found = text(other.clone()).await;
        assert!(found != greedy && found != hot, "{other}: {found}");
    }
    // The text before the first of the strings, which is not told.
    let word = greedy.split_whitespace().nth(3).expect("four words");
    let (before, _) = greedy.split_once(word).expect("the word");
    let stopped = text(json!({ "temperature": 0, "stop": ["nosuch", word] })).await;
    assert_eq!(stopped, before);
    let unknown = server.log();
    for name in ["nonsense", "mirostat"] {
        assert!(unknown.contains(name), "{name} is not in {unknown}");
    }
}

#[tokio::test]
async fn a_full_context_is_not_shifted_for_deepseek2_unless_asked_for() {
    let deepseek2 = ("deepseek2", "tiny/tiny-deepseek2.gguf");
    let server = server_with(&[TINY, deepseek2], &[]);
    for (model, shift, is_shifted) in [
        ("tiny", json!(null), true),
        ("tiny", json!(false), false),
        ("deepseek2", json!(null), false),
        ("deepseek2", json!(true), true),
    ] {
        let options = json!({ "num_ctx": 16, "num_predict": 40, "temperature": 2, "seed": 5 });
        let mut body = json!({ "model": model, "prompt": "a b", "raw": true, "stream": false, "options": options });
        body["shift"] = shift;
        let reply = asked(&server, "/api/generate", body.clone()).await;
        assert_eq!(reply["done_reason"], "length", "{body}");
        let n = reply["eval_count"].as_u64().expect("a count");
        assert_eq!(n == 40, is_shifted, "{body}: {n} tokens");
        body["prompt"] = json!("a b c d e f g h i j k l m n o p q r s t");
        let long = server.post("/api/generate", &body).await;
        assert_eq!(long.status == 200, is_shifted, "{}", long.text);
    }
}

/// A model that repeats what its prompt shows: a thought, then an answer.
async fn thinker() -> Server {
    let server = server_with(&[SMOLLM2], &[]);
    let shown = "<think>easy</think>Yes.\n";
    let template = format!(
        "Q: One?\n{shown}Q: Two?\n{shown}Q: Three?\n{shown}{{{{ range .Messages }}}}Q: {{{{ .Content }}}}\n\
         {{{{ if .Thinking }}}}<think>{{{{ .Thinking }}}}</think>{{{{ end }}}}{{{{ end }}}}\
         {{{{ if .Think }}}}<think>{{{{ end }}}}"
    );
    let parameters = json!({ "temperature": 0, "stop": ["Q:"], "num_predict": 40 });
    let model = json!({ "model": "thinker", "from": "smollm2", "template": template, "parameters": parameters, "stream": false });
    asked(&server, "/api/create", model).await;
    server
}

#[tokio::test]
async fn reasoning_is_apart_and_a_format_holds_for_the_answer() {
    let server = thinker().await;
    let schema =
        json!({ "type": "object", "properties": { "a": { "enum": [1] } }, "required": ["a"] });
    let messages = json!([{ "role": "user", "content": "Four?" }]);
    for (path, member, said) in [
        ("/api/generate", "prompt", json!("Four?")),
        ("/api/chat", "messages", messages),
    ] {
        for (think, format, thinking, text) in [
            (json!(null), json!(null), "easy", "Yes."),
            (json!(true), json!(null), "easy", "Yes."),
            (json!("high"), json!(null), "easy", "Yes."),
            (json!(null), schema.clone(), "easy", r#"{"a":1}"#),
            (json!(false), schema.clone(), "", r#"{"a":1}"#),
        ] {
            // On generate a format holds from the first token.
            let is_apart = path == "/api/chat" || format.is_null() || thinking.is_empty();
            let mut body = json!({ "model": "thinker", member: said });
            (body["think"], body["format"]) = (think, format);
            let mut found = Vec::new();
            for stream in [false, true] {
                body["stream"] = json!(stream);
                let objects = lines(&server.post(path, &body).await);
                let mut joined = (String::new(), String::new());
                for object in &objects {
                    let (text, thinking) = match path {
                        "/api/chat" => ("/message/content", "/message/thinking"),
                        _ => ("/response", "/thinking"),
                    };
                    let part = |at| object.pointer(at).and_then(Value::as_str);
                    joined.0 += part(thinking).unwrap_or_default();
                    joined.1 += part(text).unwrap_or_default();
                    // Thoughts come first.
                    assert!(
                        joined.1.is_empty() || part(thinking).is_none_or(str::is_empty) || !stream
                    );
                }
                found.push(joined);
            }
            assert_eq!(found[0], found[1], "{body}");
            let (thought, answer) = &found[0];
            if is_apart {
                assert_eq!(
                    (
                        thought.trim(),
                        answer.split_whitespace().collect::<String>()
                    ),
                    (thinking, text.to_owned()),
                    "{body}"
                );
            }
            assert!(
                !answer.contains("think>") && !thought.contains("think>"),
                "{body}: {found:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_full_queue_is_a_503_in_both_modes() {
    let server = server_with(&[SMOLLM2], &[("OLLAMA_MAX_QUEUE", "1")]);
    let body = |num_ctx: u64, stream: bool, n: i64| json!({ "model": "smollm2", "prompt": "Count.", "stream": stream, "options": { "num_ctx": num_ctx, "num_predict": n } });
    let send = |body: Value| {
        let request = reqwest::Client::new().post(server.url("/api/generate"));
        request.body(body.to_string()).send()
    };
    // One that does not end; of six that want another context one waits for it, one is in the queue.
    let holder = send(body(8192, true, 100_000)).await.expect("an answer");
    let busy = "server busy, please try again.  maximum pending requests exceeded";
    let asking = (0..6).map(|i| tokio::spawn(send(body(64, i % 2 == 0, 1))));
    let mut waiting: FuturesUnordered<_> = asking.collect();
    for _ in 0..4 {
        let refused = waiting.next().await.expect("six");
        let refused = refused.expect("no panic").expect("an answer");
        assert_eq!(refused.status(), 503);
        assert_eq!(
            refused.headers()["content-type"],
            "application/json; charset=utf-8"
        );
        let text = refused.text().await.expect("a body");
        assert_eq!(text, json!({ "error": busy }).to_string());
    }
    drop(holder);
    while let Some(reply) = waiting.next().await {
        assert_eq!(reply.expect("no panic").expect("an answer").status(), 200);
    }
}
