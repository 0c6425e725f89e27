//! What clients send.

use super::{ImageData, Message, Object, Think};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use std::collections::BTreeMap;

/// `POST /api/generate`. An empty prompt loads the model, or unloads it when `keep_alive` is 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateRequest {
    /// The model's name, with or without tag.
    pub model: String,
    /// Text that the answer follows, put into the template unless `raw` is set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// Text after the gap, for fill in the middle.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    /// In place of the model's system text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// A Go template in place of the model's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// Token ids of an earlier reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<i64>>,
    /// Absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// The prompt is sent to the model as it is, without template or system text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
    /// `"json"` or a JSON Schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    /// Seconds as a number, or a Go duration such as `"10m"`; negative is for ever, 0 unloads after the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Value>,
    /// Refused: no model here reads images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageData>,
    /// Over those of the model: `num_ctx`, `temperature`, `stop` and the like.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub options: Object,
    /// Absent, a model that can think does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    /// Whether a prompt beyond the context is cut; absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    /// Whether the oldest tokens make room when the context is full; absent means true where the model bears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<bool>,
    /// Whether log-probabilities of the generated tokens are sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub logprobs: bool,
    /// How many alternatives of each token are sent with them.
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
    /// The model's name, with or without tag.
    pub model: String,
    /// Oldest first.
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
    /// As in [`GenerateRequest::options`].
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub options: Object,
    /// As in [`GenerateRequest::think`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    /// A model that cannot think answers without, instead of an error. Not on the wire.
    #[serde(skip)]
    pub think_if_able: bool,
    /// Whether the oldest messages are left out where all do not fit the context; absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    /// As in [`GenerateRequest::shift`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<bool>,
    /// As in [`GenerateRequest::logprobs`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub logprobs: bool,
    /// As in [`GenerateRequest::top_logprobs`].
    #[serde(skip_serializing_if = "is_zero")]
    pub top_logprobs: i64,
    /// As in [`GenerateRequest::debug_render_only`].
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
    /// The model's name, with or without tag.
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
    /// As in [`GenerateRequest::options`].
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub options: Object,
}

/// `POST /api/embeddings`, the older form. An empty prompt loads the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbeddingsRequest {
    /// The model's name, with or without tag.
    pub model: String,
    /// The one text.
    pub prompt: String,
    /// As in [`GenerateRequest::keep_alive`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Value>,
    /// As in [`GenerateRequest::options`].
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub options: Object,
}

/// `POST /api/show`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShowRequest {
    /// The model's name, with or without tag.
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
    /// Name of a model that is there.
    pub source: String,
    /// Name of the copy; a model of that name is replaced.
    pub destination: String,
}

/// `DELETE /api/delete`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeleteRequest {
    /// The model's name, with or without tag.
    pub model: String,
    /// Older name of `model`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// `POST /api/pull`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PullRequest {
    /// The model's name, with or without tag.
    pub model: String,
    /// Older name of `model`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Plain http to the registry.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
}

/// `POST /api/push`: the same members as a pull.
pub type PushRequest = PullRequest;

/// `POST /api/create`: a model from another model (`from`) or from uploaded blobs (`files`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateRequest {
    /// Name of the new model; one of that name is replaced.
    pub model: String,
    /// Older name of `model`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// A model to begin with, pulled if it is not there; empty where `files` are.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// File name to digest (`sha256:<hex>`). `Some` of nothing differs from `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<BTreeMap<String, String>>,
    /// LoRA adapters, file name to digest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub adapters: BTreeMap<String, String>,
    /// Refused: draft models are not supported.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub draft_files: BTreeMap<String, String>,
    /// Refused without `draft_files`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub draft_quantize: String,
    /// Type to write the weights in, such as `q4_K_M`; empty leaves them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub quantize: String,
    /// Older name of `quantize`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub quantization: String,
    /// Go template; empty keeps that of the source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// System text; empty keeps that of the source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// Added to those of the source.
    #[serde(skip_serializing_if = "License::is_empty")]
    pub license: License,
    /// Options, over those of the source.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub parameters: Object,
    /// Conversation that precedes every chat, in place of the source's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// Name of what renders prompts, as in Ollama's configs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub renderer: String,
    /// Name of what reads answers, as in Ollama's configs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parser: String,
    /// Oldest version of Ollama that runs it; kept, not checked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub requires: String,
    /// Where a hosted model is, which no model of this server can be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_host: String,
    /// Members of the config to overwrite, such as `model_family` or `context_length`.
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
