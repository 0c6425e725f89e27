//! The native API's requests and replies, as they travel: one set of types for the server that answers them and the
//! command line that sends them.
//!
//! Names, order and presence of members are Ollama's. Every member has a default, so a reader accepts a reply that
//! lacks some of them and a request may leave out what it does not need. No member is an untagged enum or flattened:
//! numbers keep their text (`arbitrary_precision`), which serde's buffering of such types would garble.

mod image;
mod reply;
mod request;
mod think;

pub use image::ImageData;
pub use reply::{
    ChatReply, Cloud, CloudStatus, DebugInfo, EmbedReply, EmbeddingsReply, ErrorReply,
    GenerateReply, ListReply, ListedModel, LoadedModel, LogProb, ModelDetails, Progress, PsReply,
    ShowReply, TensorEntry, TokenLogProb, VersionReply,
};
pub use request::{
    ChatRequest, CopyRequest, CreateRequest, DeleteRequest, EmbedRequest, EmbeddingsRequest,
    GenerateRequest, License, PullRequest, PushRequest, ShowRequest,
};
pub use think::Think;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A JSON object in the order it was written.
pub type Object = Map<String, Value>;

/// One turn of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`; the server lowers its case.
    pub role: String,
    pub content: String,
    /// Reasoning that came before the content.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// Refused: no model here reads images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageData>,
    /// On `assistant` messages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// On `tool` messages: the tool that produced the content.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool_name: String,
    /// On `tool` messages: the call that the content answers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool_call_id: String,
}

/// A call the model makes, or made earlier in the conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCall {
    /// What the tool's message refers to; empty where the model gives none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    pub function: ToolCallFunction,
}

/// What a [`ToolCall`] calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCallFunction {
    /// Position among the calls of one answer, from 0.
    pub index: i64,
    pub name: String,
    /// Arguments by name, in the order the model wrote them.
    pub arguments: Object,
}
