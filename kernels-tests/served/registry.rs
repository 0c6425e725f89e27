//! Models of registries that follow a script, pulled by the real server.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::models;
use crate::scripted::{Asked, Reply, Scripted, reply};
use crate::server::Server;

/// A model as a registry has it.
#[derive(Clone)]
pub struct Model {
    pub manifest: Value,
    blobs: Vec<(String, Vec<u8>)>,
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Model {
    /// A small model that runs.
    pub fn tiny() -> Model {
        Model::of(&std::fs::read(models::path("tiny/tiny-llama.gguf")).expect("a model"))
    }

    /// A model of these weights.
    pub fn of(weights: &[u8]) -> Model {
        let mut model = Model {
            manifest: json!({ "schemaVersion": 2, "layers": [] }),
            blobs: Vec::new(),
        };
        model.manifest["config"] =
            model.blob("x", br#"{"model_format":"gguf","model_family":"llama"}"#);
        model.with("model", weights)
    }

    /// With one more layer, `application/vnd.ollama.image.KIND`.
    pub fn with(mut self, kind: &str, bytes: &[u8]) -> Model {
        let layer = self.blob(&format!("application/vnd.ollama.image.{kind}"), bytes);
        let layers = self.manifest["layers"].as_array_mut().expect("layers");
        layers.push(layer);
        self
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        self.blobs.push((digest.clone(), bytes.to_vec()));
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// What a registry of it answers.
    pub fn answers(&self) -> impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static {
        let model = self.clone();
        move |asked, _| match asked.path.contains("/manifests/") {
            true => reply(200, &[], model.manifest.to_string().as_bytes()),
            false => model.blob_reply(asked),
        }
    }

    /// A blob, or its part where one is asked for.
    pub fn blob_reply(&self, asked: &Asked) -> Reply {
        let mut blobs = self.blobs.iter();
        let Some((_, bytes)) = blobs.find(|(digest, _)| asked.path.ends_with(digest)) else {
            return reply(404, &[], b"unknown blob");
        };
        match asked.range() {
            Some((start, end)) => {
                let range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
                reply(206, &[("Content-Range", &range)], &bytes[start..end])
            }
            None => reply(200, &[], bytes),
        }
    }
}

/// The last line that the server answers to a pull or push.
pub async fn last_line(server: &Server, path: &str, name: &str, insecure: bool) -> String {
    let body = json!({ "model": name, "insecure": insecure });
    let reply = server.post(path, &body).await;
    let last = reply.text.lines().last();
    last.expect("a line").to_owned()
}

/// Pulls over plain http, which has to work.
pub async fn pull(server: &Server, registry: &Scripted) {
    let line = last_line(server, "/api/pull", &registry.name(), true).await;
    assert_eq!(line, "{\"status\":\"success\"}");
}
