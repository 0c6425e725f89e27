//! Many clients, slow ones, and those that leave; prompts without an end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Answer, TINY, Target};

/// A request for a long answer, as bytes.
fn long_answer(target: &Target, stream: bool) -> Vec<u8> {
    let options = json!({ "num_predict": -1, "temperature": 0, "num_ctx": 256 });
    let body = json!({ "model": TINY, "prompt": "Count: ", "raw": true, "stream": stream, "options": options });
    let body = body.to_string();
    let head = format!(
        "POST /api/generate HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
        target.server.address,
        body.len()
    );
    (head + &body).into_bytes()
}

/// How often clients come and leave: `OLLAMA_WGPU_TEST_CYCLES`, or what is quick.
fn n_cycles(few: usize) -> usize {
    let set = std::env::var("OLLAMA_WGPU_TEST_CYCLES").ok();
    set.map_or(few, |text| text.parse().expect("a number"))
}

fn n_threads(target: &Target) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", target.server.id()))
        .expect("the process")
        .count()
}

fn n_files(target: &Target) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", target.server.id()))
        .expect("the process")
        .count()
}

#[test]
fn clients_that_never_ask_make_room_for_others() {
    let target = Target::new(&[]);
    // More than all places for connections, each with half a request's head.
    let slow: Vec<TcpStream> = (0..1100)
        .map_while(|_| {
            let mut stream = TcpStream::connect(&target.server.address).ok()?;
            stream.write_all(b"GET / HT").ok()?;
            Some(stream)
        })
        .collect();
    assert!(slow.len() > 900, "{} connections", slow.len());
    let start = Instant::now();
    assert_eq!(target.request("GET /api/version", &[], b"").status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    drop(slow);
    target.is_well();
}

#[test]
fn clients_that_leave_leave_nothing_behind() {
    let target = Target::new(&[("OLLAMA_NUM_PARALLEL", "2")]);
    let n_before = n_files(&target);
    let requests = [long_answer(&target, true), long_answer(&target, false)];
    thread::scope(|scope| {
        for worker in 0..8_u64 {
            let (target, requests) = (&target, &requests);
            scope.spawn(move || {
                for i in 0..n_cycles(480) / 8 {
                    let mut stream =
                        TcpStream::connect(&target.server.address).expect("a connection");
                    stream.write_all(&requests[i % 2]).expect("sent");
                    // In the queue, in the prompt, at the first token or in the middle of the stream.
                    let patience = Duration::from_millis((worker * i as u64 * 7) % 40 + 1);
                    stream
                        .set_read_timeout(Some(patience))
                        .expect("a time limit");
                    stream.read_exact(&mut [0; 256]).ok();
                }
            });
        }
    });
    let start = Instant::now();
    assert_eq!(target.generate(json!({})).status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    target.is_well();
    let start = Instant::now();
    while n_files(&target) > n_before || n_threads(&target) > 40 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{} files, {} threads",
            n_files(&target),
            n_threads(&target)
        );
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_flood_is_answered_or_told_to_come_back() {
    let target = Target::new(&[("OLLAMA_MAX_QUEUE", "64")]);
    let body =
        json!({ "model": TINY, "prompt": "Hi", "stream": false, "options": { "num_predict": 2 } })
            .to_string();
    let ask = || target.post("/api/generate", body.as_bytes());
    let answers: Vec<Answer> = thread::scope(|scope| {
        let clients: Vec<_> = (0..2000).map(|_| scope.spawn(ask)).collect();
        let answers = clients.into_iter().map(|client| client.join());
        answers.map(|answer| answer.expect("a client")).collect()
    });
    let n_answered = answers.iter().filter(|a| a.status == 200).count();
    let refused: Vec<&Answer> = answers.iter().filter(|a| a.status != 200).collect();
    assert!(n_answered >= 64, "{n_answered} of {}", answers.len());
    for answer in refused {
        assert_eq!(answer.status, 503, "{}", answer.text);
        assert_eq!(
            answer.error(),
            "server busy, please try again.  maximum pending requests exceeded"
        );
    }
    target.is_well();
}

#[test]
fn fifty_models_take_turns() {
    let target = Target::new(&[
        ("OLLAMA_MAX_LOADED_MODELS", "2"),
        ("OLLAMA_KEEP_ALIVE", "0"),
    ]);
    let mut weights = std::fs::read(crate::models::path("tiny/tiny-llama.gguf")).expect("a model");
    let names: Vec<String> = (0..50).map(|i| format!("m{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        // Other weights, or they would be one model of many names.
        let last = weights.len() - 2;
        weights[last] = i as u8;
        let file = target.server.home.path().join(name);
        std::fs::write(&file, &weights).expect("written");
        target.server.create(name, &file);
    }
    thread::scope(|scope| {
        for names in names.chunks(10) {
            let target = &target;
            scope.spawn(move || {
                for name in names {
                    let answer = target.generate(json!({ "model": name }));
                    assert_eq!(answer.status, 200, "{name}: {}", answer.text);
                }
            });
        }
    });
    target.is_well();
}

#[test]
fn prompts_far_beyond_the_context() {
    let target = Target::new(&[]);
    let chat = |messages: Value, members: Value| {
        let options = json!({ "num_predict": 1, "num_ctx": 256 });
        let mut body =
            json!({ "model": TINY, "messages": messages, "stream": false, "options": options });
        super::extend(&mut body, members);
        target.post("/api/chat", body.to_string().as_bytes())
    };
    let words = "word ".repeat(1_000_000);
    let options = json!({ "num_ctx": 256 });
    for (members, status) in [
        (json!({}), 200),
        (json!({ "shift": false }), 400),
        (json!({ "truncate": false }), 400),
        (json!({ "truncate": false, "shift": false }), 400),
    ] {
        let mut members = members;
        super::extend(&mut members, json!({ "prompt": words, "options": options }));
        let answer = target.generate(members);
        assert_eq!(answer.status, status, "{}", answer.text);
        assert!(
            status == 200 || answer.error().contains("context"),
            "{}",
            answer.text
        );
    }
    // The oldest turns go, the system message and the last turn stay.
    let roles = ["user", "assistant"];
    let turn = |i: usize| json!({ "role": roles[i % 2], "content": format!("turn {i}") });
    let mut messages: Vec<Value> = vec![json!({ "role": "system", "content": "Be brief." })];
    messages.extend((0..10_001).map(turn));
    let answer = chat(json!(messages), json!({ "_debug_render_only": true }));
    let reply: Value = serde_json::from_str(&answer.text).expect("JSON");
    let prompt = reply["_debug_info"]["rendered_template"]
        .as_str()
        .expect("a prompt");
    assert!(
        prompt.contains("Be brief.") && prompt.contains("turn 10000"),
        "{prompt}"
    );
    assert!(
        !prompt.contains("turn 100\n") && prompt.len() < 10_000,
        "{prompt}"
    );
    let only_system = json!([{ "role": "system", "content": words }]);
    assert_eq!(chat(only_system, json!({})).status, 200);
    // Texts that would take minutes are not begun.
    let long = "a".repeat((64 << 20) + 1);
    assert!(
        target
            .generate(json!({ "prompt": long }))
            .error()
            .contains("longer than 64 MiB")
    );
    assert!(
        chat(json!([{ "role": "user", "content": long }]), json!({}))
            .error()
            .contains("longer than 64 MiB")
    );
    let many = vec![json!({ "role": "user", "content": "x" }); 100_001];
    assert!(
        chat(json!(many), json!({}))
            .error()
            .contains("more than 100000 messages")
    );
    target.is_well();
}

#[test]
fn a_client_that_stops_reading_harms_nobody() {
    let target = Target::new(&[("OLLAMA_NUM_PARALLEL", "2")]);
    let mut idle = TcpStream::connect(&target.server.address).expect("a connection");
    idle.write_all(&long_answer(&target, true)).expect("sent");
    idle.read_exact(&mut [0; 15]).expect("an answer begins");
    // It reads no more, and keeps the connection; others are served beside it.
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(target.generate(json!({})).status, 200);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }
    drop(idle);
    target.is_well();
}
