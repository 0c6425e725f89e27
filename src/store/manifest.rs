//! Manifests and configs: which blobs make a model, and what kind of model it is.

use super::Digest;
use super::json;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Largest manifest that is read.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
const MAX_LAYERS: usize = 4096;

/// Media types of the layers, as in a manifest's `mediaType`.
pub mod media {
    pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// GGUF weights.
    pub const MODEL: &str = "application/vnd.ollama.image.model";
    /// GGUF weights of a small model that drafts tokens.
    pub const DRAFT: &str = "application/vnd.ollama.image.draft";
    /// GGUF LoRA.
    pub const ADAPTER: &str = "application/vnd.ollama.image.adapter";
    /// GGUF vision or audio tower.
    pub const PROJECTOR: &str = "application/vnd.ollama.image.projector";
    /// Go template.
    pub const TEMPLATE: &str = "application/vnd.ollama.image.template";
    /// Older name of [`TEMPLATE`].
    pub const PROMPT: &str = "application/vnd.ollama.image.prompt";
    /// System prompt.
    pub const SYSTEM: &str = "application/vnd.ollama.image.system";
    /// JSON object of options.
    pub const PARAMS: &str = "application/vnd.ollama.image.params";
    /// JSON array of messages.
    pub const MESSAGES: &str = "application/vnd.ollama.image.messages";
    /// License text, repeatable.
    pub const LICENSE: &str = "application/vnd.ollama.image.license";
    /// One tensor of the safetensors format, which this server does not read.
    pub const TENSOR: &str = "application/vnd.ollama.image.tensor";
}

/// One blob of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub media_type: String,
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Short name of the model the layer was taken from; empty if none.
    pub from: String,
    /// File name in the safetensors format; empty elsewhere.
    pub name: String,
}

/// The blobs of a model, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Absent in some hand-made manifests.
    pub config: Option<Layer>,
    pub layers: Vec<Layer>,
}

impl Manifest {
    /// Reads a manifest; unknown members are ignored, as are schema version and media type.
    ///
    /// The error says what is wrong with it, for [`Error::Damaged`](super::Error::Damaged).
    pub fn parse(bytes: &[u8]) -> Result<Manifest, String> {
        let raw: RawManifest = serde_json::from_slice(bytes)
            .map_err(|e| format!("its manifest is not valid JSON of that form ({e})"))?;
        let layers = raw.layers.unwrap_or_default();
        if layers.len() > MAX_LAYERS {
            return Err(format!(
                "its manifest has {} layers, more than {MAX_LAYERS}",
                layers.len()
            ));
        }
        let config = raw
            .config
            .filter(|c| c.digest.as_deref().is_some_and(|d| !d.is_empty()));
        let manifest = Manifest {
            config: config.map(RawLayer::check).transpose()?,
            layers: layers
                .into_iter()
                .map(RawLayer::check)
                .collect::<Result<_, _>>()?,
        };
        manifest
            .total()
            .ok_or("the sizes in its manifest overflow")?;
        let mut sizes = HashMap::new();
        for layer in manifest.blobs() {
            if *sizes.entry(layer.digest).or_insert(layer.size) != layer.size {
                return Err(format!("its manifest gives {} two sizes", layer.digest));
            }
        }
        Ok(manifest)
    }

    /// The JSON that Ollama writes for a model it creates.
    pub fn encode(&self) -> Vec<u8> {
        let config = self.config.as_ref().map_or(Value::Null, Layer::to_json);
        let layers: Vec<Value> = self.layers.iter().map(Layer::to_json).collect();
        json::encode_ordered(&json!({
            "schemaVersion": 2,
            "mediaType": media::MANIFEST,
            "config": config,
            "layers": layers,
        }))
    }

    /// Bytes of all layers and the config; a blob that is named twice counts twice.
    pub fn size(&self) -> u64 {
        self.total().unwrap_or(u64::MAX)
    }

    /// Every layer, config last.
    pub fn blobs(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().chain(&self.config)
    }

    /// The last layer of this type, which is the one that counts.
    pub fn last(&self, media_type: &str) -> Option<&Layer> {
        self.layers
            .iter()
            .rev()
            .find(|layer| layer.media_type == media_type)
    }

    fn total(&self) -> Option<u64> {
        self.blobs()
            .try_fold(0u64, |sum, layer| sum.checked_add(layer.size))
    }
}

impl Layer {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("mediaType".into(), self.media_type.as_str().into());
        out.insert("digest".into(), self.digest.to_string().into());
        out.insert("size".into(), self.size.into());
        insert_text(&mut out, "from", &self.from);
        insert_text(&mut out, "name", &self.name);
        Value::Object(out)
    }
}

#[derive(Deserialize)]
struct RawManifest {
    config: Option<RawLayer>,
    layers: Option<Vec<RawLayer>>,
}

#[derive(Deserialize)]
struct RawLayer {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    digest: Option<String>,
    size: Option<i64>,
    from: Option<String>,
    name: Option<String>,
}

impl RawLayer {
    fn check(self) -> Result<Layer, String> {
        let digest = self.digest.unwrap_or_default();
        let size = self.size.unwrap_or_default();
        Ok(Layer {
            media_type: self.media_type.unwrap_or_default(),
            digest: Digest::parse(&digest)
                .map_err(|_| format!("a layer has the invalid digest {:.80?}", digest))?,
            size: u64::try_from(size).map_err(|_| format!("a layer has the size {size}"))?,
            from: self.from.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
        })
    }
}

/// What kind of model it is: the config blob. Empty text and zero mean unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `gguf` or `safetensors`.
    pub model_format: String,
    /// The architecture.
    pub model_family: String,
    pub model_families: Option<Vec<String>>,
    /// Number of parameters, such as `7.6B`.
    pub model_type: String,
    /// Quantization, such as `Q4_K_M`.
    pub file_type: String,
    pub renderer: String,
    pub parser: String,
    pub requires: String,
    pub remote_host: String,
    pub remote_model: String,
    pub capabilities: Vec<String>,
    pub context_length: u64,
    pub embedding_length: u64,
    pub base_name: String,
}

impl Config {
    /// Reads a config; unknown members are ignored and members of the wrong type count as absent.
    pub fn parse(bytes: &[u8]) -> Result<Config, String> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|e| format!("its config is not valid JSON ({e})"))?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| value[key].as_u64().unwrap_or_default();
        Ok(Config {
            model_format: text("model_format"),
            model_family: text("model_family"),
            model_families: texts(&value["model_families"]),
            model_type: text("model_type"),
            file_type: text("file_type"),
            renderer: text("renderer"),
            parser: text("parser"),
            requires: text("requires"),
            remote_host: text("remote_host"),
            remote_model: text("remote_model"),
            capabilities: texts(&value["capabilities"]).unwrap_or_default(),
            context_length: number("context_length"),
            embedding_length: number("embedding_length"),
            base_name: text("base_name"),
        })
    }

    /// The blob, byte for byte as Ollama writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Map::new();
        out.insert("model_format".into(), self.model_format.as_str().into());
        out.insert("model_family".into(), self.model_family.as_str().into());
        out.insert("model_families".into(), json!(self.model_families));
        out.insert("model_type".into(), self.model_type.as_str().into());
        out.insert("file_type".into(), self.file_type.as_str().into());
        insert_text(&mut out, "renderer", &self.renderer);
        insert_text(&mut out, "parser", &self.parser);
        insert_text(&mut out, "requires", &self.requires);
        insert_text(&mut out, "remote_host", &self.remote_host);
        insert_text(&mut out, "remote_model", &self.remote_model);
        if !self.capabilities.is_empty() {
            out.insert("capabilities".into(), json!(self.capabilities));
        }
        insert_number(&mut out, "context_length", self.context_length);
        insert_number(&mut out, "embedding_length", self.embedding_length);
        insert_text(&mut out, "base_name", &self.base_name);
        out.insert("architecture".into(), "amd64".into());
        out.insert("os".into(), "linux".into());
        json::encode_ordered(&Value::Object(out))
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let items = value.as_array()?;
    Some(
        items
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    )
}

fn insert_text(out: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        out.insert(key.into(), text.into());
    }
}

fn insert_number(out: &mut Map<String, Value>, key: &str, number: u64) {
    if number != 0 {
        out.insert(key.into(), number.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layer(media_type: &str, bytes: &[u8]) -> Layer {
        Layer {
            media_type: media_type.into(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            from: String::new(),
            name: String::new(),
        }
    }

    #[test]
    fn written_manifests_read_back() {
        let manifest = Manifest {
            config: Some(layer(media::CONFIG, b"{}")),
            layers: vec![
                Layer {
                    from: "m:latest".into(),
                    ..layer(media::MODEL, b"gguf")
                },
                layer(media::LICENSE, b"a"),
                layer(media::LICENSE, b"b"),
            ],
        };
        let bytes = manifest.encode();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let start = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":2}},\"layers\":[",
            media::MANIFEST,
            media::CONFIG,
            Digest::of(b"{}")
        );
        assert!(text.starts_with(&start), "{text}");
        assert!(text.ends_with("}]}\n"), "{text}");
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        assert_eq!(manifest.size(), 8);
        assert_eq!(
            manifest.last(media::LICENSE).unwrap().digest,
            Digest::of(b"b")
        );
    }

    /// The IDs that a real Ollama gave a model it imported, and its size.
    #[test]
    fn manifest_bytes_are_ollamas() {
        let config = Config {
            model_format: "gguf".into(),
            model_family: "llama".into(),
            model_families: Some(vec!["llama".into()]),
            model_type: "134.52M".into(),
            file_type: "Q4_1".into(),
            ..Config::default()
        };
        let chatml = crate::chat::shipped::chatml();
        let params = json::encode_sorted(&json!({ "stop": chatml.stop }));
        let weights = Layer {
            digest: Digest::parse(
                "sha256:941f309b54caaad6747569ba43712bcde44a2be3bae16c3282ff499c37c54af5",
            )
            .unwrap(),
            size: 98_362_432,
            ..layer(media::MODEL, b"")
        };
        let manifest = Manifest {
            config: Some(layer(media::CONFIG, &config.encode())),
            layers: vec![
                weights,
                layer(media::TEMPLATE, chatml.template.as_bytes()),
                layer(media::PARAMS, &params),
            ],
        };
        assert_eq!(manifest.size(), 98_362_745);
        assert_eq!(
            Digest::of(&manifest.encode()).hex(),
            "fd5f44c0b5aff6453726119fc560d73a8a995a55b4a49804bc24b1969ecf1794"
        );
    }

    #[test]
    fn a_missing_config_and_null_layers_are_tolerated() {
        for text in [
            "{}",
            r#"{"config":null,"layers":null}"#,
            r#"{"config":{"digest":"","size":0},"layers":[],"x":1}"#,
        ] {
            assert_eq!(
                Manifest::parse(text.as_bytes()).unwrap(),
                Manifest::default(),
                "{text}"
            );
        }
    }

    #[test]
    fn broken_manifests_are_refused() {
        let digest = Digest::of(b"");
        let many = vec![format!("{{\"digest\":\"{digest}\"}}"); MAX_LAYERS + 1].join(",");
        let half = format!("{{\"digest\":\"{digest}\",\"size\":{}}}", i64::MAX);
        for text in [
            String::new(),
            "null".into(),
            "[]".into(),
            "{\"layers\":[".into(),
            "{\"layers\":{}}".into(),
            "[".repeat(100_000),
            r#"{"layers":[{"digest":"../../etc/passwd","size":1}]}"#.into(),
            format!(r#"{{"layers":[{{"digest":"{digest}","size":-1}}]}}"#),
            format!(r#"{{"layers":[{{"digest":"{digest}","size":9223372036854775808}}]}}"#),
            format!(r#"{{"config":{{"digest":"{digest}","size":-1}}}}"#),
            format!("{{\"layers\":[{many}]}}"),
            format!("{{\"layers\":[{half},{half},{half}]}}"),
            format!(
                r#"{{"layers":[{{"digest":"{digest}","size":1}},{{"digest":"{digest}","size":2}}]}}"#
            ),
        ] {
            assert!(Manifest::parse(text.as_bytes()).is_err(), "{text:.100}");
        }
    }

    #[test]
    fn config_bytes_are_ollamas() {
        let config = Config {
            model_format: "gguf".into(),
            model_family: "test".into(),
            model_families: Some(vec!["test".into()]),
            model_type: "0".into(),
            file_type: "unknown".into(),
            ..Config::default()
        };
        assert!(
            Digest::of(&config.encode())
                .hex()
                .starts_with("99759ad5b91e723d")
        );
        assert_eq!(Config::parse(&config.encode()).unwrap(), config);
    }

    #[test]
    fn optional_config_members_round_trip() {
        let config = Config {
            requires: "0.14.0".into(),
            renderer: "r".into(),
            parser: "p".into(),
            remote_host: "h".into(),
            remote_model: "m".into(),
            capabilities: vec!["tools".into()],
            context_length: 8192,
            embedding_length: 576,
            base_name: "b".into(),
            ..Config::default()
        };
        assert_eq!(Config::parse(&config.encode()).unwrap(), config);
        let odd = br#"{"model_family":5,"model_families":"x","capabilities":null,"rootfs":{}}"#;
        assert_eq!(Config::parse(odd).unwrap(), Config::default());
        assert!(Config::parse(b"not json").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes);
            let _ = Config::parse(&bytes);
        }
    }
}
