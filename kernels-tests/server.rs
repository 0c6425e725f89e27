//! The real binary's server on a free port with a models folder of its own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ollama_wgpu::store::registry::use_ring;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A running server; dropping it ends it.
pub struct Server {
    pub address: String,
    pub home: TempDir,
    child: Child,
    log: Arc<Mutex<String>>,
}

/// What a request brought.
pub struct Reply {
    pub status: u16,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e} in {}", self.text))
    }
}

/// The data of a stream of server-sent events, in order; what is no JSON as text.
pub fn frames(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data)))
        .collect()
}

/// The binary under test.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ollama-wgpu"))
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

impl Server {
    /// Starts a server with these variables set, and waits until it answers.
    pub fn start(variables: &[(&str, &str)]) -> Server {
        Server::start_with(&[], variables)
    }

    /// As [`Server::start`], with flags of `serve`.
    pub fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Server {
        Server::launch(flags, variables, Stdio::piped())
    }

    /// As [`Server::start`], with a log that goes to `stderr` and is not kept.
    #[allow(dead_code, reason = "the benches do not")]
    pub fn start_logging_to(stderr: std::fs::File) -> Server {
        Server::launch(&[], &[], stderr.into())
    }

    fn launch(flags: &[&str], variables: &[(&str, &str)], stderr: Stdio) -> Server {
        // The tests' own HTTP clients need it.
        use_ring();
        let home = tempfile::tempdir().expect("a temporary folder");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = binary();
        command
            .arg("serve")
            .args(flags)
            .env("HOME", home.path())
            .env("OLLAMA_MODELS", home.path().join("models"))
            .env("OLLAMA_HOST", &address)
            .env("OLLAMA_WGPU_DEVICE", "cpu")
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(stderr);
        let mut child = command.spawn().expect("the server starts");
        let log = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&log);
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    *sink.lock().expect("the log") += &format!("{line}\n");
                }
            });
        }
        let server = Server {
            address,
            home,
            child,
            log,
        };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let start = Instant::now();
        while std::net::TcpStream::connect(&self.address).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the server does not answer:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends SIGHUP.
    #[cfg(unix)]
    pub fn hang_up(&self) {
        // The shell's own: the program of that name is not on every machine.
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -HUP {}", self.child.id())])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// The process.
    #[allow(dead_code, reason = "the bench asks it")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    #[cfg(target_os = "linux")]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the process lives");
        let line = status.lines().find(|l| l.starts_with("VmRSS:"));
        let kib = line.and_then(|l| l.split_whitespace().nth(1));
        kib.and_then(|n| n.parse::<u64>().ok()).expect("VmRSS") * 1024
    }

    pub async fn get(&self, path: &str) -> Reply {
        reply(reqwest::Client::new().get(self.url(path))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        reply(
            reqwest::Client::new()
                .post(self.url(path))
                .body(body.to_string()),
        )
        .await
    }

    /// Imports a GGUF file as the command line does.
    pub fn create(&self, name: &str, gguf: &Path) {
        let output = self.try_create(name, gguf);
        assert!(output.0, "create {name}: {}\n{}", output.1, self.log());
    }

    /// The same, where it may fail: whether it worked, and what it printed to stderr.
    pub fn try_create(&self, name: &str, gguf: &Path) -> (bool, String) {
        self.try_create_from(name, &format!("FROM {}\n", gguf.display()))
    }

    /// The same of a Modelfile.
    pub fn try_create_from(&self, name: &str, text: &str) -> (bool, String) {
        let modelfile = self.home.path().join(format!("Modelfile.{name}"));
        std::fs::write(&modelfile, text).expect("a Modelfile");
        let output = binary()
            .args(["create", name, "-f"])
            .arg(&modelfile)
            .env("HOME", self.home.path())
            .env("OLLAMA_HOST", &self.address)
            .output()
            .expect("create runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), stderr)
    }

    /// A generation that does not stream, with its options.
    pub async fn generate(&self, model: &str, prompt: &str, options: &Value) -> Reply {
        let body = json!({
            "model": model, "prompt": prompt, "raw": true, "stream": false, "options": options,
        });
        self.post("/api/generate", &body).await
    }
}

async fn reply(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.expect("the server answers");
    Reply {
        status: response.status().as_u16(),
        text: response.text().await.expect("a whole body"),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the test will have noticed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
