//! What the server answers. Durations are nanoseconds, times RFC 3339 text; a zero metric is left out.

use super::{Message, Object, ToolCall};
use serde::{Deserialize, Serialize};

/// A failed request's whole body, or the last line of a stream that broke.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorReply {
    pub error: String,
}

/// One object of `/api/generate`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateReply {
    /// As the client sent it.
    pub model: String,
    pub created_at: String,
    pub response: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    pub done: bool,
    /// `stop`, `length`, `load` or `unload`; on the final object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub done_reason: String,
    /// Token ids of the prompt and everything generated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<u32>,
    #[serde(skip_serializing_if = "is_zero")]
    pub total_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub prompt_eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub eval_duration: u64,
    /// Those of the prompt's tokens that were in the cache. Not on the wire.
    #[serde(skip)]
    pub cached_tokens: u64,
    /// Those of the generated tokens that were reasoning. Not on the wire.
    #[serde(skip)]
    pub reasoning_tokens: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "_debug_info")]
    pub debug_info: Option<DebugInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<LogProb>,
}

/// One object of `/api/chat`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatReply {
    /// As the client sent it.
    pub model: String,
    pub created_at: String,
    pub message: Message,
    pub done: bool,
    /// `stop`, `length`, `load` or `unload`; on the final object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub done_reason: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub total_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub prompt_eval_count: u64,
    /// Tokens of the prompt, on every object. Not on the wire.
    #[serde(skip)]
    pub prompt_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub eval_duration: u64,
    /// Those of the prompt's tokens that were in the cache, on every object. Not on the wire.
    #[serde(skip)]
    pub cached_tokens: u64,
    /// Those of the generated tokens that were reasoning. Not on the wire.
    #[serde(skip)]
    pub reasoning_tokens: u64,
    /// Which of the stop strings ended the text, on the final object. Not on the wire.
    #[serde(skip)]
    pub matched_stop: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "_debug_info")]
    pub debug_info: Option<DebugInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<LogProb>,
}

/// The prompt a debug request would have run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DebugInfo {
    pub rendered_template: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub image_count: u64,
}

/// Log-probability of one generated token, with the alternatives that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogProb {
    pub token: String,
    pub logprob: f64,
    /// UTF-8 bytes of the token; they may end inside a character.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<u8>,
    /// Most likely first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top_logprobs: Vec<TokenLogProb>,
}

/// One alternative of a [`LogProb`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenLogProb {
    pub token: String,
    pub logprob: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<u8>,
}

/// `POST /api/embed`. The counts are left out of a reply without texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbedReply {
    /// As the client sent it.
    pub model: String,
    /// One vector of length 1 for each text, in the order of the texts.
    pub embeddings: Vec<Vec<f32>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub total_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub load_duration: u64,
    /// Tokens of all texts.
    #[serde(skip_serializing_if = "is_zero")]
    pub prompt_eval_count: u64,
}

/// `POST /api/embeddings`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbeddingsReply {
    pub embedding: Vec<f64>,
}

/// `GET /api/version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionReply {
    pub version: String,
}

/// `GET /api/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloudStatus {
    pub cloud: Cloud,
}

/// Whether hosted models may be used, and where that was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cloud {
    pub disabled: bool,
    pub source: String,
}

/// `GET /api/tags`: newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListReply {
    pub models: Vec<ListedModel>,
}

/// A model of the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListedModel {
    /// Short form with tag, as `model`.
    pub name: String,
    pub model: String,
    pub modified_at: String,
    /// Bytes of all layers and the config.
    pub size: u64,
    /// SHA-256 of the manifest, 64 hex digits.
    pub digest: String,
    pub details: ModelDetails,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// What kind of model it is. The two lengths appear in `/api/tags` only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelDetails {
    pub parent_model: String,
    pub format: String,
    pub family: String,
    pub families: Option<Vec<String>>,
    /// Such as `3.2B`.
    pub parameter_size: String,
    /// Such as `Q4_K_M`.
    pub quantization_level: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub context_length: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub embedding_length: u64,
}

/// `GET /api/ps`: latest expiry first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PsReply {
    pub models: Vec<LoadedModel>,
}

/// A model in memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadedModel {
    pub name: String,
    pub model: String,
    /// Bytes of weights, cache and work buffers.
    pub size: u64,
    pub digest: String,
    pub details: ModelDetails,
    pub expires_at: String,
    /// The part of `size` in GPU memory.
    pub size_vram: u64,
    pub context_length: u64,
}

/// `POST /api/show`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShowReply {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub license: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub modelfile: String,
    /// One line a value, the name padded to 30 columns.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parameters: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    pub details: ModelDetails,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    pub model_info: Object,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub projector_info: Object,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    pub modified_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub requires: String,
}

/// A tensor of the model file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TensorEntry {
    pub name: String,
    /// Such as `F32` or `Q4_K`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Dimensions, fastest first as in the file.
    pub shape: Vec<u64>,
}

/// One object of create, pull and push.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Bytes of the whole.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// Bytes done.
    #[serde(skip_serializing_if = "is_zero")]
    pub completed: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_string};

    #[test]
    fn intermediate_objects_have_no_metrics() {
        let reply = GenerateReply {
            model: "m".into(),
            response: "a".into(),
            ..Default::default()
        };
        assert_eq!(
            to_string(&reply).unwrap(),
            r#"{"model":"m","created_at":"","response":"a","done":false}"#
        );
    }

    #[test]
    fn final_objects_have_ollamas_order() {
        let reply = ChatReply {
            model: "m".into(),
            message: Message {
                role: "assistant".into(),
                ..Default::default()
            },
            done: true,
            done_reason: "stop".into(),
            total_duration: 3,
            eval_count: 2,
            ..Default::default()
        };
        assert_eq!(
            to_string(&reply).unwrap(),
            r#"{"model":"m","created_at":"","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":3,"eval_count":2}"#
        );
    }

    #[test]
    fn replies_with_missing_members_are_read() {
        let reply: LoadedModel =
            from_value(json!({"name": "m:latest", "details": {"families": null}})).unwrap();
        assert_eq!((reply.name.as_str(), reply.size), ("m:latest", 0));
    }
}
