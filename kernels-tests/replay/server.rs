//! The servers that the recordings name, each a child process with its own environment.

use crate::client;
use crate::models;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to start, or a model to leave memory.
const PATIENCE: Duration = Duration::from_secs(30);
/// Models in the order of their recording, and their files among the test models.
const MODELS: [(&str, &str); 4] = [
    ("smollm2", "smollm2-135m-instruct-q4_1.gguf"),
    ("qwen-coder", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
    ("gemma", "gemma-3-270m-q4_k_m.gguf"),
    ("minilm", "all-minilm-l6-v2-f16.gguf"),
];

pub struct Server {
    pub port: u16,
    models: PathBuf,
    process: Child,
}

/// The running servers by the recordings' name for them; they share one models folder, but for `empty`.
pub struct Servers {
    folder: TempDir,
    running: HashMap<String, Server>,
}

impl Servers {
    pub fn new() -> Self {
        Servers {
            folder: tempfile::tempdir().expect("a temporary folder"),
            running: HashMap::new(),
        }
    }

    /// The server of this name, started at its first use.
    pub async fn get(&mut self, name: &str) -> &Server {
        if !self.running.contains_key(name) {
            let folder = if name == "empty" { "empty" } else { "models" };
            let folder = self.folder.path().join(folder);
            let is_new = name != "empty" && !folder.exists();
            let server = Server::start(name, &folder).await;
            if is_new {
                server.create_models().await;
            }
            self.running.insert(name.to_owned(), server);
        }
        &self.running[name]
    }
}

fn variables(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "nocloud" => &[("OLLAMA_NO_CLOUD", "1")],
        "origins" => &[(
            "OLLAMA_ORIGINS",
            "https://example.com,chrome-extension://*,http://*.corp.example",
        )],
        "anyorigin" => &[("OLLAMA_ORIGINS", "*")],
        "smallctx" => &[
            ("OLLAMA_CONTEXT_LENGTH", "256"),
            ("OLLAMA_KEEP_ALIVE", "60"),
        ],
        _ => &[],
    }
}

impl Server {
    async fn start(name: &str, models: &Path) -> Server {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port")
            .port();
        let host = if name == "allinterfaces" {
            "0.0.0.0"
        } else {
            "127.0.0.1"
        };
        let process = Command::new(env!("CARGO_BIN_EXE_ollama-wgpu"))
            .arg("serve")
            .env("OLLAMA_HOST", format!("{host}:{port}"))
            .env("OLLAMA_MODELS", models)
            .env("OLLAMA_WGPU_DEVICE", "cpu")
            .envs(variables(name).iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut server = Server {
            port,
            models: models.to_owned(),
            process,
        };
        server.wait_until_up().await;
        server
    }

    async fn wait_until_up(&mut self) {
        let start = Instant::now();
        while client::send(self, &json!({"method": "HEAD", "path": "/"}))
            .await
            .is_err()
        {
            let ended = self.process.try_wait().expect("the server's state");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            assert!(start.elapsed() < PATIENCE, "the server does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn create_models(&self) {
        for (name, file) in MODELS {
            let path = models::path(file);
            let digest = self.place_blob(&path);
            let files = json!({ file.rsplit('/').next().expect("a file name"): digest });
            let body = json!({"model": name, "files": files, "stream": false});
            let answer = client::send(
                self,
                &json!({"method": "POST", "path": "/api/create", "body": body}),
            )
            .await
            .unwrap_or_else(|e| panic!("creating {name}: {e}"));
            assert_eq!(answer.status, 200, "creating {name}: {}", answer.text());
        }
    }

    /// Links a model file into the store under its digest, which spares copying it through the socket.
    fn place_blob(&self, path: &Path) -> String {
        let source = std::fs::canonicalize(path).unwrap_or_else(|e| {
            panic!(
                "{}: {e}; scripts/test.sh fetches the test models",
                path.display()
            )
        });
        let mut file = std::fs::File::open(&source).expect("a readable model");
        let mut hasher = Sha256::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece).expect("a readable model") {
                0 => break,
                n => hasher.update(&piece[..n]),
            }
        }
        let hex = hex::encode(hasher.finalize());
        let blob = self.models.join("blobs").join(format!("sha256-{hex}"));
        std::fs::create_dir_all(blob.parent().expect("a folder")).expect("the blobs folder");
        if std::fs::hard_link(&source, &blob).is_err() {
            std::fs::copy(&source, &blob).expect("room for the model");
        }
        format!("sha256:{hex}")
    }

    /// Waits until no model that `setup` unloads is in memory.
    pub async fn wait_for_unloading(&self, setup: &[Value]) -> Result<(), String> {
        let unloaded = setup
            .iter()
            .map(|s| &s["body"])
            .filter(|b| b["keep_alive"] == 0);
        let names: Vec<String> = unloaded
            .map(|b| format!("{}:latest", b["model"].as_str().unwrap_or_default()))
            .collect();
        let start = Instant::now();
        loop {
            let answer = client::send(self, &json!({"method": "GET", "path": "/api/ps"})).await?;
            let loaded: Value = serde_json::from_str(&answer.text()).map_err(|e| e.to_string())?;
            let models = loaded["models"].as_array().cloned().unwrap_or_default();
            if !models
                .iter()
                .any(|m| names.iter().any(|n| m["name"] == n.as_str()))
            {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("still loaded: {loaded}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A recorded value with this server's own port and folder.
    pub fn filled_in(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let text = text.replace("$PORT", &self.port.to_string());
                Value::String(text.replace("$OLLAMA_MODELS", &self.models.display().to_string()))
            }
            Value::Array(items) => items.iter().map(|v| self.filled_in(v)).collect(),
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, v)| (name.clone(), self.filled_in(v)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; the test has said so then.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
