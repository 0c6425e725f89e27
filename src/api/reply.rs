//! What the server answers. Durations are nanoseconds, times RFC 3339 text; a zero metric is left out.

use super::{Message, Object, ToolCall};
use serde::{Deserialize, Serialize};

/// A failed request's whole body, or the last line of a stream that broke.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorReply {
    /// What failed, for people; clients match on some texts of Ollama's.
    pub error: String,
}

/// One object of `/api/generate`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateReply {
    /// As the client sent it.
    pub model: String,
    /// RFC 3339, in UTC.
    pub created_at: String,
    /// The next piece of the answer, or all of it without streaming.
    pub response: String,
    /// Likewise of the reasoning.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// Whether this is the final object.
    pub done: bool,
    /// `stop`, `length`, `load` or `unload`; on the final object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub done_reason: String,
    /// Token ids of the prompt and everything generated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<u32>,
    /// From the request's arrival on. Metrics are on the final object.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_duration: u64,
    /// Until the model was ready.
    #[serde(skip_serializing_if = "is_zero")]
    pub load_duration: u64,
    /// Tokens of the prompt.
    #[serde(skip_serializing_if = "is_zero")]
    pub prompt_eval_count: u64,
    /// Of computing the prompt.
    #[serde(skip_serializing_if = "is_zero")]
    pub prompt_eval_duration: u64,
    /// Tokens generated.
    #[serde(skip_serializing_if = "is_zero")]
    pub eval_count: u64,
    /// Of generating them.
    #[serde(skip_serializing_if = "is_zero")]
    pub eval_duration: u64,
    /// Those of the prompt's tokens that were in the cache. Not on the wire.
    #[serde(skip)]
    pub cached_tokens: u64,
    /// Those of the generated tokens that were reasoning. Not on the wire.
    #[serde(skip)]
    pub reasoning_tokens: u64,
    /// Complete calls, as they are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// In place of an answer, where the request asked for the prompt.
    #[serde(skip_serializing_if = "Option::is_none", rename = "_debug_info")]
    pub debug_info: Option<DebugInfo>,
    /// Of the tokens of this piece, if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<LogProb>,
}

/// One object of `/api/chat`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatReply {
    /// As the client sent it.
    pub model: String,
    /// RFC 3339, in UTC.
    pub created_at: String,
    /// The next piece of the answer, or all of it without streaming.
    pub message: Message,
    /// Whether this is the final object.
    pub done: bool,
    /// `stop`, `length`, `load` or `unload`; on the final object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub done_reason: String,
    /// As in [`GenerateReply`], like the metrics below.
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
    /// As in [`GenerateReply::debug_info`].
    #[serde(skip_serializing_if = "Option::is_none", rename = "_debug_info")]
    pub debug_info: Option<DebugInfo>,
    /// As in [`GenerateReply::logprobs`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<LogProb>,
}

/// The prompt a debug request would have run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DebugInfo {
    /// The whole prompt.
    pub rendered_template: String,
    /// Images that it refers to.
    #[serde(skip_serializing_if = "is_zero")]
    pub image_count: u64,
}

/// Log-probability of one generated token, with the alternatives that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogProb {
    /// Its text, with replacement characters for bytes that are no UTF-8.
    pub token: String,
    /// Natural logarithm.
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
    /// As in [`LogProb`].
    pub token: String,
    /// Natural logarithm.
    pub logprob: f64,
    /// As in [`LogProb`].
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
    /// From the request's arrival on.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_duration: u64,
    /// Until the model was ready.
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
    /// The vector; empty without a prompt.
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
    /// What the reply holds.
    pub cloud: Cloud,
}

/// Whether hosted models may be used, and where that was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cloud {
    /// Whether hosted models are off.
    pub disabled: bool,
    /// `env` where the user's settings switched them off, else `config`.
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
    /// When its manifest was written.
    pub modified_at: String,
    /// Bytes of all layers and the config.
    pub size: u64,
    /// SHA-256 of the manifest, 64 hex digits.
    pub digest: String,
    /// As in [`ShowReply`].
    pub details: ModelDetails,
    /// Such as `completion`, `tools` or `embedding`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// What kind of model it is. The two lengths appear in `/api/tags` only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelDetails {
    /// The model it was made from; empty if none.
    pub parent_model: String,
    /// `gguf`.
    pub format: String,
    /// Architecture of the weights.
    pub family: String,
    /// Those of all its GGUF files.
    pub families: Option<Vec<String>>,
    /// Such as `3.2B`.
    pub parameter_size: String,
    /// Such as `Q4_K_M`.
    pub quantization_level: String,
    /// Tokens that it was trained for.
    #[serde(skip_serializing_if = "is_zero")]
    pub context_length: u64,
    /// Numbers of its hidden state.
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
    /// Short form with tag, as `model`.
    pub name: String,
    pub model: String,
    /// Bytes of weights, cache and work buffers.
    pub size: u64,
    /// As in [`ListedModel::digest`].
    pub digest: String,
    pub details: ModelDetails,
    /// When it is unloaded if nobody asks again.
    pub expires_at: String,
    /// The part of `size` in GPU memory.
    pub size_vram: u64,
    /// Tokens of context of one request.
    pub context_length: u64,
}

/// `POST /api/show`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShowReply {
    /// All license texts, one after another.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// A Modelfile that makes this model again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub modelfile: String,
    /// One line a value, the name padded to 30 columns.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parameters: String,
    /// Go or Jinja template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// System text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    pub details: ModelDetails,
    /// Conversation that precedes every chat.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// GGUF metadata by key; arrays are null unless they were asked for.
    pub model_info: Object,
    /// Likewise of the vision or audio tower.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub projector_info: Object,
    /// In the file's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorEntry>,
    /// As in [`ListedModel::capabilities`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// When its manifest was written.
    pub modified_at: String,
    /// As in the request that made it.
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
    /// What is done, or was.
    pub status: String,
    /// Of the blob on its way; empty at other steps.
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
