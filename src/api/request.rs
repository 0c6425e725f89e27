//! What clients send.

use super::{ImageData, Message, Object, Think};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use std::collections::BTreeMap;

/// `POST /api/generate`. An empty prompt loads the model, or unloads it when `keep_alive` is 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateRequest {
    pub model: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// Text after the gap, for fill in the middle.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// Token ids of an earlier reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<i64>>,
    /// Absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
    /// `"json"` or a JSON Schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    /// Seconds as a number, or a Go duration such as `"10m"`; negative is for ever, 0 unloads after the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageData>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub options: Object,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub logprobs: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub top_logprobs: i64,
    /// Render the prompt and return it instead of generating.
    #[serde(
        rename = "_debug_render_only",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub debug_render_only: bool,
}

/// `POST /api/chat`. No messages loads the model, or unloads it when `keep_alive` is 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<Message>,
    /// Absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// `"json"` or a JSON Schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    /// As in [`GenerateRequest::keep_alive`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Value>,
    /// Functions the model may call: `{type, function: {name, description, parameters}}`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// `"auto"`, `"none"`, `"required"` or `{type, function: {name}}`, as OpenAI's; beyond Ollama's members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    /// Whether an answer may hold several calls; absent means true. Beyond Ollama's members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub options: Object,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    /// A model that cannot think answers without, instead of an error. Not on the wire.
    #[serde(skip)]
    pub think_if_able: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub logprobs: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub top_logprobs: i64,
    #[serde(
        rename = "_debug_render_only",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub debug_render_only: bool,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// `POST /api/embed`. No texts loads the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbedRequest {
    pub model: String,
    /// One text or a list of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Whether texts that do not fit the context are cut; absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    /// Keep this many numbers of each vector, if it has more; 0 keeps all.
    #[serde(skip_serializing_if = "is_zero")]
    pub dimensions: i64,
    /// As in [`GenerateRequest::keep_alive`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Value>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub options: Object,
}

/// `POST /api/embeddings`, the older form. An empty prompt loads the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbeddingsRequest {
    pub model: String,
    pub prompt: String,
    /// As in [`GenerateRequest::keep_alive`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Value>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub options: Object,
}

/// `POST /api/show`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShowRequest {
    pub model: String,
    /// Older name of `model`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Include the arrays of the GGUF metadata.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub verbose: bool,
    /// Shown in place of the model's system text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// Merged into the parameters of the generated Modelfile.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub options: Object,
}

/// `POST /api/copy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyRequest {
    pub source: String,
    pub destination: String,
}

/// `DELETE /api/delete`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeleteRequest {
    pub model: String,
    /// Older name of `model`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// `POST /api/pull`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PullRequest {
    pub model: String,
    /// Older name of `model`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Plain http to the registry.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
}

/// `POST /api/push`: the same members as a pull.
pub type PushRequest = PullRequest;

/// `POST /api/create`: a model from another model (`from`) or from uploaded blobs (`files`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateRequest {
    pub model: String,
    /// Older name of `model`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// File name to digest (`sha256:<hex>`). `Some` of nothing differs from `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<BTreeMap<String, String>>,
    /// LoRA adapters, file name to digest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub adapters: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub draft_files: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub draft_quantize: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub quantize: String,
    /// Older name of `quantize`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub quantization: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    #[serde(skip_serializing_if = "License::is_empty")]
    pub license: License,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub parameters: Object,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub renderer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parser: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub requires: String,
    /// Where a hosted model is, which no model of this server can be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_host: String,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub info: Object,
}

/// License texts: one string or a list of them on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct License(pub Vec<String>);

impl License {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for License {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(License(vec![text])),
            other => serde_json::from_value(other)
                .map(License)
                .map_err(|_| de::Error::custom("license must be a string or an array of strings")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn unused_members_stay_off_the_wire() {
        let request = GenerateRequest {
            model: "m".into(),
            prompt: "p".into(),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"model": "m", "prompt": "p"})
        );
        let request = ChatRequest {
            model: "m".into(),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"model": "m", "messages": []})
        );
    }

    #[test]
    fn license_forms() {
        let license = |v| from_value::<CreateRequest>(json!({ "license": v })).map(|r| r.license.0);
        assert_eq!(license(json!("a")).unwrap(), ["a"]);
        assert_eq!(license(json!(["a", "b"])).unwrap(), ["a", "b"]);
        assert!(
            license(json!(5))
                .unwrap_err()
                .to_string()
                .contains("license")
        );
    }

    #[test]
    fn options_keep_their_numbers() {
        let sent = json!({"options": {"temperature": 0.1, "seed": 18446744073709551615u64, "stop": ["a"]}});
        let request: GenerateRequest = from_value(sent.clone()).unwrap();
        assert_eq!(
            serde_json::to_value(&request.options).unwrap(),
            sent["options"]
        );
    }
}
