//! What a hostile client sends, over a bare socket: each case with the answer it must get. Whatever it is, the server lives
//! on, its memory comes back, and no error tells a path or an address of its machine.
//!
//! `docs/hostile-input.md` lists what is sent, and the test that sends it.

mod load;
mod members;
mod schemas;
mod wire;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::models;
use crate::server::Server;

/// The model that most cases name: a real vocabulary and random weights.
const TINY: &str = "tiny";
/// No answer of this kind may take longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Resident memory above the baseline that may remain.
const MAX_LEFT_BYTES: u64 = 256 << 20;

/// What came back until the server closed the connection.
struct Answer {
    /// 0 where the connection was closed without an answer.
    status: u16,
    head: String,
    text: String,
}

impl Answer {
    fn error(&self) -> String {
        let body: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let error = body["error"].as_str().or(body["error"]["message"].as_str());
        error.unwrap_or_default().to_owned()
    }
}

/// A server under attack.
struct Target {
    server: Server,
    baseline_bytes: u64,
}

impl Target {
    /// A server with [`TINY`] loaded.
    fn new(variables: &[(&str, &str)]) -> Target {
        let server = Server::start(variables);
        server.create(TINY, &models::path("tiny/tiny-llama.gguf"));
        let mut target = Target {
            server,
            baseline_bytes: 0,
        };
        assert_eq!(target.generate(json!({})).status, 200);
        target.baseline_bytes = target.server.resident_bytes();
        target
    }

    /// Sends `bytes` as they are and reads until the end.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.server.address).expect("a connection");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit");
        // A server that has answered may have closed the connection already.
        stream.write_all(bytes).ok();
        let mut answer = Vec::new();
        if let Err(e) = stream.read_to_end(&mut answer) {
            let is_reset = e.kind() == std::io::ErrorKind::ConnectionReset;
            assert!(is_reset, "{e} after {:?}", beginning(bytes));
        }
        self.checked(&String::from_utf8_lossy(&answer))
    }

    fn checked(&self, answer: &str) -> Answer {
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        let home = self.server.home.path().display().to_string();
        for secret in [home.as_str(), "/root", "/home", "models/blobs", "0x"] {
            let is_told = status.is_some_and(|s: u16| s >= 400) && text.contains(secret);
            assert!(!is_told, "{secret} in {text}");
        }
        Answer {
            status: status.unwrap_or(0),
            head: head.to_owned(),
            text: text.to_owned(),
        }
    }

    /// A request with a body of known length, after which the connection closes.
    fn request(&self, line: &str, headers: &[&str], body: &[u8]) -> Answer {
        let host = format!("Host: {}", self.server.address);
        let is_given = headers
            .iter()
            .any(|h| h.to_ascii_lowercase().starts_with("host:"));
        let mut head = format!("{line} HTTP/1.1\r\n");
        for header in headers
            .iter()
            .copied()
            .chain((!is_given).then_some(host.as_str()))
        {
            head += &format!("{header}\r\n");
        }
        head += &format!(
            "Connection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.request(&format!("POST {path}"), &[], body)
    }

    /// [`TINY`] asked for two tokens, with these members.
    fn generate(&self, members: Value) -> Answer {
        let mut body = json!({ "model": TINY, "prompt": "Hi", "stream": false, "options": { "num_predict": 2 } });
        extend(&mut body, members);
        self.post("/api/generate", body.to_string().as_bytes())
    }

    /// It still answers, at once and rightly, and its memory came back.
    fn is_well(&self) {
        let start = Instant::now();
        assert_eq!(self.request("GET /api/version", &[], b"").status, 200);
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        let answer = self.generate(json!({}));
        assert_eq!(answer.status, 200, "{}\n{}", answer.text, self.server.log());
        let start = Instant::now();
        let most = self.baseline_bytes + MAX_LEFT_BYTES;
        while self.server.resident_bytes() > most {
            let resident = self.server.resident_bytes() >> 20;
            assert!(start.elapsed() < Duration::from_secs(10), "{resident} MiB");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Puts members into an object, objects inside it included.
fn extend(body: &mut Value, members: Value) {
    let Value::Object(members) = members else {
        panic!("{members} is no object")
    };
    for (name, value) in members {
        match (&mut body[&name], value) {
            (old @ Value::Object(_), new @ Value::Object(_)) => extend(old, new),
            (old, new) => *old = new,
        }
    }
}

/// Of a request, for a message.
fn beginning(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}
