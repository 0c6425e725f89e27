//! Commands and flags, by what the server is asked and what is printed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use super::environment::kept_bodies;
use super::{MINILM, TINY, asked, server_with};
use crate::models;
use crate::server::{Server, binary, free_port};

fn run(server: &Server, words: &[&str], stdin: &str) -> Output {
    at(&server.address, words, stdin)
}

fn at(address: &str, words: &[&str], stdin: &str) -> Output {
    let mut command = binary();
    command.args(words).env("OLLAMA_HOST", address);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // Commands that read nothing may have ended already.
    pipe.write_all(stdin.as_bytes()).ok();
    drop(pipe);
    child.wait_with_output().expect("it ends")
}

/// Exit code and stderr.
fn refusal(output: &Output) -> (Option<i32>, String) {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

#[tokio::test]
async fn the_flags_of_run_reach_the_server() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = temporary.path().to_str().expect("text");
    let variables = [("TMPDIR", folder), ("OLLAMA_DEBUG_LOG_REQUESTS", "1")];
    let server = server_with(&[TINY, MINILM], &variables);
    let small = json!({ "model": "small", "from": "tiny", "parameters": { "num_predict": 1 }, "stream": false });
    asked(&server, "/api/create", small).await;
    let mut n_before = 0;
    let schema = r#"{"type":"object"}"#;
    for (words, stdin, path, expected) in [
        (
            &["small", "b", "c"][..],
            "a\n",
            "generate",
            json!({ "prompt": "a\n b c" }),
        ),
        (&["small", "b"], "", "generate", json!({ "prompt": "b" })),
        (
            &["small"],
            "a\n",
            "generate",
            json!({ "prompt": "a\n", "stream": null }),
        ),
        (&["small", ""], "", "generate", json!({ "prompt": null })),
        (
            &["small", "x", "--format", "json"],
            "",
            "generate",
            json!({ "format": "json" }),
        ),
        (
            &["small", "x", "--format", schema],
            "",
            "generate",
            json!({ "format": { "type": "object" } }),
        ),
        (
            &["small", "x", "--keepalive", "2m"],
            "",
            "generate",
            json!({ "keep_alive": "2m" }),
        ),
        (
            &["small", "x", "--keepalive=-1s"],
            "",
            "generate",
            json!({ "keep_alive": "-1s" }),
        ),
        (
            &["small", "x", "--think=false"],
            "",
            "generate",
            json!({ "think": false }),
        ),
        (
            &["small", "x", "--hidethinking", "--nowordwrap"],
            "",
            "generate",
            json!({ "prompt": "x", "think": null }),
        ),
        (
            &["minilm", "x", "--dimensions", "3", "--truncate=false"],
            "",
            "embed",
            json!({ "input": "x", "dimensions": 3, "truncate": false }),
        ),
        (
            &["minilm", "x", "y"],
            "a",
            "embed",
            json!({ "input": "a x y", "truncate": null }),
        ),
    ] {
        let output = run(&server, &[&["run"], words].concat(), stdin);
        assert!(output.status.success(), "{words:?}: {output:?}");
        let bodies = kept_bodies(temporary.path());
        let (kept, body) = bodies.last().expect("a request");
        assert_eq!(bodies.len(), n_before + 1, "{words:?}");
        n_before = bodies.len();
        assert!(kept.contains(&format!("_api_{path}_")), "{words:?}: {kept}");
        for (name, value) in expected.as_object().expect("members") {
            let empty = value.is_null() && (body[name] == "" || body[name] == Value::Null);
            assert!(empty || body[name] == *value, "{words:?}: {name} in {body}");
        }
    }
    for (think, sent) in [("--think", json!(true)), ("--think=high", json!("high"))] {
        let output = run(&server, &["run", "small", "x", think], "");
        let text = "Error: 400 Bad Request: \"small\" does not support thinking\n";
        assert_eq!(refusal(&output), (Some(1), text.to_owned()));
        let bodies = kept_bodies(temporary.path());
        assert_eq!(bodies.last().expect("a request").1["think"], sent);
    }
}

#[test]
fn addresses_of_every_form() {
    let server = server_with(&[TINY], &[]);
    let (_, port) = server.address.rsplit_once(':').expect("a port");
    for host in [
        format!("127.0.0.1:{port}"),
        format!(":{port}"),
        format!("0.0.0.0:{port}"),
        format!("localhost:{port}"),
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}/"),
        format!(" \"127.0.0.1:{port}\" "),
    ] {
        let output = at(&host, &["list"], "");
        let listed = String::from_utf8_lossy(&output.stdout).contains("tiny:latest");
        assert!(listed, "{host}: {output:?}");
    }
    let (exit, error) = refusal(&at(
        &format!("http://127.0.0.1:{port}/ollama"),
        &["show", "tiny"],
        "",
    ));
    assert!(exit == Some(1) && error.contains("404"), "{error}");
    for (host, bound) in [
        (":0", "0.0.0.0:"),
        ("127.0.0.1:0", "127.0.0.1:"),
        ("http://localhost:0", ""),
    ] {
        let mut command = binary();
        command
            .arg("serve")
            .env("OLLAMA_HOST", host)
            .env("OLLAMA_WGPU_DEVICE", "cpu");
        command
            .env("HOME", server.home.path())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let line = lines
            .map_while(Result::ok)
            .find(|line| line.contains("INFO listening on"));
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        let line = line.expect("it listens");
        assert!(
            line.contains(&format!("listening on {bound}")),
            "{host}: {line}"
        );
    }
}

#[tokio::test]
async fn rm_unloads_before_it_deletes() {
    let server = server_with(&[TINY], &[]);
    asked(
        &server,
        "/api/generate",
        json!({ "model": "tiny", "keep_alive": -1 }),
    )
    .await;
    let output = run(&server, &["rm", "tiny", "nope"], "");
    assert_eq!(output.stdout, b"deleted 'tiny'\n");
    assert_eq!(
        refusal(&output),
        (Some(1), "Error: model 'nope' not found\n".to_owned())
    );
    let mut running = Value::Null;
    for _ in 0..100 {
        running = server.get("/api/ps").await.json();
        if running["models"] == json!([]) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("still loaded: {running}");
}

#[test]
fn what_create_does_not_make_is_named() {
    let server = server_with(&[TINY], &[]);
    let weights = models::path(TINY.1);
    let modelfile = server.home.path().join("Modelfile");
    let with_draft = format!("FROM tiny\nDRAFT {}\n", weights.display());
    for (text, flags, error) in [
        (
            "FROM tiny\n",
            &["--experimental"][..],
            "--experimental, which keeps a model as safetensors, is not supported; without it they are converted",
        ),
        (
            "FROM tiny\n",
            &["--draft-quantize", "q8_0"],
            "--draft-quantize requires a DRAFT model",
        ),
        (
            &with_draft,
            &["--draft-quantize", "q8_0"],
            "500 Internal Server Error: draft models are not supported: leave DRAFT out",
        ),
    ] {
        std::fs::write(&modelfile, text).expect("write");
        let file = modelfile.to_str().expect("text");
        let output = run(
            &server,
            &[&["create", "made", "-f", file], flags].concat(),
            "",
        );
        let (exit, stderr) = refusal(&output);
        assert_eq!(exit, Some(1), "{flags:?}");
        assert!(stderr.ends_with(&format!("Error: {error}\n")), "{stderr}");
    }
}

#[test]
fn wrong_words_and_no_server() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let none = format!(
        "could not connect to ollama-wgpu server at http://{nobody}, run 'ollama-wgpu serve' to start it"
    );
    for (words, error) in [
        (&["serve", "x"][..], "accepts 0 arg(s), received 1"),
        (&["show"], "accepts 1 arg(s), received 0"),
        (&["create"], "accepts 1 arg(s), received 0"),
        (&["stop", "a", "b"], "accepts 1 arg(s), received 2"),
        (&["pull"], "accepts 1 arg(s), received 0"),
        (&["push", "a", "b"], "accepts 1 arg(s), received 2"),
        (&["cp", "a"], "accepts 2 arg(s), received 1"),
        (&["rm"], "requires at least 1 arg(s), only received 0"),
        (&["run"], "requires at least 1 arg(s), only received 0"),
        (&["bogus"], "unknown command \"bogus\" for \"ollama-wgpu\""),
        (&["ls", "--bogus"], "unknown flag: --bogus"),
        (&["ls", "-z"], "unknown shorthand flag: 'z' in -z"),
        (
            &["run", "m", "--format"],
            "flag needs an argument: --format",
        ),
        (
            &["run", "m", "--dimensions", "x"],
            "invalid argument \"x\" for --dimensions",
        ),
        (
            &["run", "m", "--keepalive", "10"],
            "time: missing unit in duration \"10\"",
        ),
        (&["completions"], "requires <SHELL>"),
        (&["debug", "logits", "x"], "requires --tokens <TOKENS>"),
        (&["show", "m"], &none),
        (&["list"], &none),
        (&["ls"], &none),
        (&["ps"], &none),
        (&["stop", "m"], &none),
        (&["pull", "m"], &none),
        (&["push", "m"], &none),
        (&["cp", "a", "b"], &none),
        (&["rm", "m"], &none),
        (&["run", "m", "x"], &none),
    ] {
        let output = at(&nobody, words, "");
        let wanted = format!("Error: {error}\n");
        assert_eq!(refusal(&output), (Some(1), wanted), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
    for group in [&[][..], &["debug"]] {
        let output = at(&nobody, group, "");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("Commands:"),
            "{output:?}"
        );
    }
    for command in [
        "serve", "create", "show", "run", "stop", "pull", "push", "list", "ps", "cp", "rm",
    ] {
        let texts = [
            &[command, "--help"][..],
            &[command, "-h"],
            &["help", command],
        ];
        let texts = texts.map(|words| at(&nobody, words, ""));
        assert!(
            texts
                .iter()
                .all(|text| text.status.success() && text.stderr.is_empty())
        );
        let usage = format!("ollama-wgpu {command}");
        let [long, short, help] = texts.map(|text| String::from_utf8(text.stdout).expect("text"));
        assert!(
            long.contains(&usage) && long.contains("OLLAMA_HOST"),
            "{long}"
        );
        assert_eq!((&short, &help), (&long, &long), "{command}");
    }
}

#[test]
fn a_start_that_fails_says_why_once() {
    for (name, value, error) in [
        (
            "OLLAMA_MODELS",
            "/dev/null/models",
            "cannot make the models folder /dev/null/models/manifests (set OLLAMA_MODELS to one that can be written): \
             Not a directory (os error 20)",
        ),
        (
            "OLLAMA_WGPU_API_KEYS_FILE",
            "/nowhere/keys",
            "OLLAMA_WGPU_API_KEYS_FILE: /nowhere/keys: No such file or directory (os error 2)",
        ),
        (
            "OLLAMA_WGPU_ARITHMETIC",
            "doubles",
            "OLLAMA_WGPU_ARITHMETIC is \"doubles\"; accepted is a list of floats, integers and halves",
        ),
        (
            "OLLAMA_ORIGINS",
            "example.com",
            "OLLAMA_ORIGINS entry \"example.com\" is not an origin: give a scheme (such as https://) or one *",
        ),
    ] {
        let mut command = binary();
        command.arg("serve").env("OLLAMA_HOST", "127.0.0.1:0");
        let output = command
            .env("OLLAMA_WGPU_DEVICE", "cpu")
            .env(name, value)
            .output();
        let found = refusal(&output.expect("it runs"));
        assert_eq!(found, (Some(1), format!("Error: {error}\n")));
    }
}

/// A log on a full disk stops neither the server nor a client.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_under_the_log_stops_nobody() {
    let server = Server::start_logging_to(full_disk());
    server.create("tiny", &models::path(TINY.1));
    let reply = server
        .generate("tiny", "a", &json!({ "num_predict": 2 }))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    for (words, exit) in [(&["rm", "tiny"][..], 0), (&["rm", "tiny"], 1)] {
        let mut command = binary();
        command.args(words).env("OLLAMA_HOST", &server.address);
        command.stdout(Stdio::null()).stderr(full_disk());
        let status = command.status().expect("it runs");
        assert_eq!(status.code(), Some(exit), "{words:?}");
    }
}

/// A full disk is told; a reader that has enough is no failure.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_output_that_takes_nothing_ends_a_command() {
    let server = Server::start(&[]);
    server.create("tiny", &models::path(TINY.1));
    for words in [
        &["list"][..],
        &["show", "tiny"],
        &["run", "tiny", "a"],
        &["--version"],
        &["list", "--help"],
        &["completions", "bash"],
    ] {
        let mut command = binary();
        command.args(words).env("OLLAMA_HOST", &server.address);
        let full = command.stdout(full_disk()).output().expect("it runs");
        let error =
            "Error: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!(refusal(&full), (Some(1), error.into()), "{words:?}");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let left = command.stdout(writer).output().expect("it runs");
        assert_eq!(refusal(&left), (Some(0), String::new()), "{words:?}");
    }
}

#[cfg(target_os = "linux")]
fn full_disk() -> std::fs::File {
    let file = std::fs::File::options().write(true).open("/dev/full");
    file.expect("the device")
}
