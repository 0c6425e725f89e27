//! Bodies: JSON of every shape, members of every type, numbers out of every range, and text that looks like something else.

use serde_json::{Value, json};

use super::{TINY, Target, extend};
use crate::models;

const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03";

/// A generation whose unknown member has this text as its value.
fn with_member(text: &[u8]) -> Vec<u8> {
    let head = format!(
        r#"{{"model":"{TINY}","prompt":"Hi","stream":false,"options":{{"num_predict":1}},"x":"#
    );
    [head.as_bytes(), text, b"}"].concat()
}

#[test]
fn json_of_every_shape() {
    let target = Target::new(&[]);
    let deep = |n: usize| [b"[".repeat(n), b"]".repeat(n)].concat();
    let keys: Vec<String> = (0..1_000_000).map(|i| format!("\"k{i}\":1")).collect();
    let keys = format!("{{{}}}", keys.join(","));
    let long = format!("\"{}\"", "a".repeat(10_000_000));
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let plain = with_member(b"1");
    for (what, body, status) in [
        ("100 levels", with_member(&deep(100)), 200),
        ("10 000 levels", with_member(&deep(10_000)), 400),
        ("a million levels", with_member(&deep(1_000_000)), 400),
        ("a million members", with_member(keys.as_bytes()), 200),
        ("a string of 10 MB", with_member(long.as_bytes()), 200),
        ("1e400", with_member(b"1e400"), 200),
        ("-0", with_member(b"-0"), 200),
        ("NaN", with_member(b"NaN"), 400),
        ("a lone surrogate", with_member(br#""\ud800""#), 400),
        ("bytes that are no UTF-8", with_member(b"\"\xff\xfe\""), 400),
        (
            "a byte order mark",
            [b"\xef\xbb\xbf".as_slice(), &plain].concat(),
            400,
        ),
        ("UTF-16", utf16, 400),
        (
            "data after the value",
            [plain.as_slice(), b"}]junk"].concat(),
            200,
        ),
        ("half of it", plain[..plain.len() / 2].to_vec(), 400),
        ("a number", b"5".to_vec(), 400),
        ("a list", b"[{}]".to_vec(), 400),
        ("gzip", GZIP.to_vec(), 400),
    ] {
        let answer = target.post("/api/generate", &body);
        assert_eq!(answer.status, status, "{what}: {}", answer.text);
        assert!(status == 200 || !answer.error().is_empty(), "{what}");
    }
    // Of a member that comes twice, the last counts.
    let twice = format!(r#"{{"model":"nosuch","model":"{TINY}","stream":false}}"#);
    assert_eq!(target.post("/api/generate", twice.as_bytes()).status, 200);
    target.is_well();
}

#[test]
fn members_of_every_type() {
    let target = Target::new(&[]);
    // Where a request sets no limit: a model of random weights may go on for a long time.
    let file = models::path("tiny/tiny-llama.gguf");
    let text = format!("FROM {}\nPARAMETER num_predict 8\n", file.display());
    let (made, why) = target.server.try_create_from(TINY, &text);
    assert!(made, "{why}");
    let base = json!({
        "model": TINY, "prompt": "Hi", "input": "Hi", "stream": false, "options": { "num_predict": 1 },
        "messages": [{ "role": "user", "content": "Hi" }],
    });
    let values = [
        json!(null),
        json!(5),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!(""),
        json!(true),
        json!(1e300),
        json!([]),
        json!([null]),
        json!([5]),
        json!([{}]),
        json!({ "a": 5 }),
    ];
    let generate = "model prompt suffix system template context stream raw format keep_alive images think truncate shift \
        logprobs top_logprobs";
    for (path, members) in [
        ("/api/generate", generate),
        (
            "/api/chat",
            "model messages tools format keep_alive options think logprobs",
        ),
        ("/api/embed", "model input truncate dimensions keep_alive"),
        ("/api/show", "model name verbose system options"),
        ("/api/copy", "source destination"),
        (
            "/api/create",
            "model files adapters quantize template system license parameters messages info",
        ),
        (
            "/v1/chat/completions",
            "model messages tools response_format stop max_tokens temperature seed n logprobs",
        ),
        (
            "/v1/completions",
            "model prompt stop max_tokens suffix echo",
        ),
        ("/v1/embeddings", "model input dimensions encoding_format"),
        (
            "/v1/responses",
            "model input instructions tools max_output_tokens",
        ),
        (
            "/v1/messages",
            "model messages max_tokens system tools thinking stop_sequences",
        ),
    ] {
        for member in members.split_whitespace() {
            for value in &values {
                let mut body = base.clone();
                if path.starts_with("/v1") {
                    extend(
                        &mut body,
                        json!({ "max_tokens": 1, "max_output_tokens": 1 }),
                    );
                } else if path == "/api/create" {
                    body = json!({ "model": "made", "stream": false });
                }
                body[member] = value.clone();
                let answer = target.post(path, body.to_string().as_bytes());
                // Ollama's one status for a format of the wrong kind.
                let is_known = [200, 400, 404].contains(&answer.status)
                    || (answer.status == 500 && answer.error().starts_with("invalid format: "));
                assert!(
                    is_known,
                    "{path} {member} {value}: {} {}",
                    answer.status, answer.text
                );
                assert!(
                    answer.status == 200 || !answer.error().is_empty(),
                    "{path} {member}: {}",
                    answer.text
                );
            }
        }
    }
    target.is_well();
}

#[test]
fn options_out_of_range() {
    let target = Target::new(&[]);
    let huge = 1_u64 << 63;
    let cases = [
        (
            "num_ctx",
            vec![
                json!(0),
                json!(-1),
                json!(1),
                json!(1_u64 << 31),
                json!(huge),
                json!(1e300),
                json!(4096.9),
            ],
        ),
        (
            "num_batch",
            vec![json!(0), json!(-1), json!(1), json!(1_u64 << 31)],
        ),
        ("num_gpu", vec![json!(-5), json!(1_000_000)]),
        ("num_thread", vec![json!(-1), json!(1_000_000), json!(huge)]),
        ("main_gpu", vec![json!(-1), json!(99)]),
        ("num_keep", vec![json!(-1), json!(1_u64 << 31), json!(huge)]),
        (
            "num_predict",
            vec![json!(0), json!(-1), json!(-2), json!(1_u64 << 31)],
        ),
        ("seed", vec![json!(i64::MIN), json!(u64::MAX), json!(1e300)]),
        ("top_k", vec![json!(-1), json!(0), json!(1_u64 << 31)]),
        (
            "repeat_last_n",
            vec![json!(-1), json!(-5), json!(0), json!(1_u64 << 31)],
        ),
        ("draft_num_predict", vec![json!(-1), json!(1_000_000)]),
        (
            "temperature",
            vec![json!(-1), json!(1e38), json!(-1e38), json!(1e-30)],
        ),
        ("top_p", vec![json!(-1), json!(0), json!(2), json!(1e38)]),
        ("min_p", vec![json!(-1), json!(2), json!(1e38)]),
        ("typical_p", vec![json!(-1), json!(0), json!(5)]),
        ("repeat_penalty", vec![json!(-1), json!(0), json!(1e38)]),
        ("presence_penalty", vec![json!(-1e38), json!(1e38)]),
        ("frequency_penalty", vec![json!(-1e38), json!(1e38)]),
        ("stop", vec![json!([""]), json!([])]),
        ("nonsense", vec![json!(1)]),
    ];
    for (name, values) in cases {
        for value in values {
            let mut options = json!({ "num_predict": 2, "num_ctx": 64 });
            options[name] = value.clone();
            let answer = target.generate(json!({ "options": options }));
            assert_eq!(answer.status, 200, "{name} {value}: {}", answer.text);
            let reply: Value = serde_json::from_str(&answer.text).expect("JSON");
            assert!(
                ["stop", "length"].contains(&reply["done_reason"].as_str().unwrap_or_default())
            );
        }
    }
    for (name, value, status, text) in [
        (
            "num_ctx",
            json!("4096"),
            500,
            "option \"num_ctx\" must be of type integer",
        ),
        ("stop", json!(vec!["a"; 65]), 400, "at most 64 strings"),
        ("stop", json!(["a".repeat(5000)]), 400, "at most 4096 bytes"),
    ] {
        let answer = target.generate(json!({ "options": { name: value } }));
        assert_eq!(answer.status, status, "{name}");
        assert!(answer.error().contains(text), "{}", answer.text);
    }
    for (members, text) in [
        (
            json!({ "keep_alive": "-1" }),
            "time: missing unit in duration",
        ),
        (json!({ "keep_alive": "x" }), "time: invalid duration"),
        (
            json!({ "top_logprobs": 1_000_000 }),
            "top_logprobs must be between 0 and 20",
        ),
        (json!({ "context": [-1] }), "outside the model's vocabulary"),
        (
            json!({ "context": [1 << 30] }),
            "outside the model's vocabulary",
        ),
        (json!({ "context": [huge] }), "field context"),
    ] {
        let answer = target.generate(members.clone());
        assert_eq!(answer.status, 400, "{members}");
        assert!(answer.error().contains(text), "{members}: {}", answer.text);
    }
    for keep_alive in [json!(-1), json!(1e300), json!("1000000h"), json!(0)] {
        assert_eq!(
            target.generate(json!({ "keep_alive": keep_alive })).status,
            200
        );
    }
    target.is_well();
}

#[test]
fn images_are_refused_without_a_look() {
    let target = Target::new(&[]);
    let bomb = "iVBORw0KGgoAAAANSUhEUgAA//8AAP//CAIAAAA=";
    let none = format!("\"{TINY}\" does not support images");
    for (image, text) in [
        ("%%%", "illegal base64 data at input byte 0"),
        ("http://127.0.0.1:1/x.png", "illegal base64 data"),
        ("file:///etc/passwd", "illegal base64 data"),
        ("data:image/png;base64,AAAA", "illegal base64 data"),
        ("", none.as_str()),
        ("aGVsbG8=", none.as_str()),
        (bomb, none.as_str()),
    ] {
        let answers = [
            target.generate(json!({ "images": [image] })),
            target.generate(json!({ "images": vec![image; 65] })),
            target.post(
                "/api/chat",
                json!({ "model": TINY, "messages": [{ "role": "user", "images": [image] }] })
                    .to_string()
                    .as_bytes(),
            ),
        ];
        for answer in answers {
            assert_eq!(answer.status, 400, "{image}");
            assert!(answer.error().starts_with(text), "{image}: {}", answer.text);
        }
    }
    for url in [
        "http://127.0.0.1:1/x.png",
        "file:///etc/passwd",
        "data:image/png;base64,%%%",
    ] {
        let part = json!({ "type": "image_url", "image_url": { "url": url } });
        let body = json!({ "model": TINY, "messages": [{ "role": "user", "content": [part] }] });
        let answer = target.post("/v1/chat/completions", body.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{url}: {}", answer.text);
    }
    let large = "A".repeat(44 << 20);
    assert_eq!(target.generate(json!({ "images": [large] })).status, 400);
    target.is_well();
}

#[test]
fn compressed_bodies_are_refused_or_bounded() {
    let target = Target::new(&[]);
    // A frame of blocks that each repeat one byte 128 KiB times: 1 KB becomes 32 MiB.
    let mut bomb = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x58];
    for i in 0..256_u32 {
        let header = ((1 << 17) << 3) | (1 << 1) | u32::from(i == 255);
        bomb.extend_from_slice(&header.to_le_bytes()[..3]);
        bomb.push(b' ');
    }
    let compatible = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
    ];
    for path in compatible {
        let line = format!("POST {path}");
        for encoding in ["gzip", "deflate", "br", "gzip, zstd"] {
            let header = format!("Content-Encoding: {encoding}");
            assert_eq!(
                target.request(&line, &[&header], GZIP).status,
                415,
                "{path} {encoding}"
            );
        }
        let zstd = ["Content-Encoding: zstd"];
        assert_eq!(target.request(&line, &zstd, &bomb).status, 413, "{path}");
        assert_eq!(target.request(&line, &zstd, GZIP).status, 400, "{path}");
    }
    for path in ["/api/generate", "/api/chat", "/api/show", "/api/embed"] {
        let line = format!("POST {path}");
        for (encoding, body) in [("gzip", GZIP), ("zstd", bomb.as_slice())] {
            let header = format!("Content-Encoding: {encoding}");
            assert_eq!(
                target.request(&line, &[&header], body).status,
                400,
                "{path} {encoding}"
            );
        }
    }
    target.is_well();
}

#[test]
fn text_stays_text() {
    let target = Target::new(&[]);
    let rendered = |path: &str, members: Value| {
        let mut body = json!({ "model": TINY, "stream": false, "_debug_render_only": true });
        extend(&mut body, members);
        let answer = target.post(path, body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text);
        let reply: Value = serde_json::from_str(&answer.text).expect("JSON");
        reply["_debug_info"]["rendered_template"]
            .as_str()
            .expect("a prompt")
            .to_owned()
    };
    let syntax = "{{ .Prompt }}{{ range }}{% for i in range(10**9) %}{{ 7*7 }}${7*7}";
    let generate =
        json!({ "prompt": syntax, "system": syntax, "template": "{{ .System }}|{{ .Prompt }}" });
    assert_eq!(
        rendered("/api/generate", generate),
        format!("{syntax}|{syntax}")
    );
    let chat = json!({ "messages": [{ "role": syntax, "content": syntax }] });
    assert!(rendered("/api/chat", chat).contains(syntax));
    let long_role = json!({ "messages": [{ "role": "r".repeat(1 << 20), "content": "x" }] });
    assert!(!rendered("/api/chat", long_role).is_empty());
    // Templates of requests work within limits.
    let doubled = "{{ $x := \"aaaaaaaaaa\" }}".to_owned()
        + &"{{ $x = printf \"%s%s%s%s\" $x $x $x $x }}".repeat(40);
    for (template, text) in [
        ("{{ if }}".to_owned(), "missing value for if"),
        (
            "{{ if true }}".repeat(5000) + &"{{ end }}".repeat(5000),
            "128 nested template blocks",
        ),
        ("a".repeat(2 << 20), "1048576 bytes of source"),
        (doubled, "template steps"),
        (
            "{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}".to_owned(),
            "64 nested template calls",
        ),
    ] {
        let answer = target.generate(json!({ "template": template }));
        assert_eq!(answer.status, 500, "{text}");
        assert!(answer.error().contains(text), "{}", answer.text);
    }
    let arguments = "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000);
    let call = format!(
        r#"{{"model":"{TINY}","messages":[{{"role":"assistant","tool_calls":[{{"function":{{"name":"f","arguments":{arguments}}}}}]}}]}}"#
    );
    assert_eq!(target.post("/api/chat", call.as_bytes()).status, 400);
    target.is_well();
}
