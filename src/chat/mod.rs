//! From messages to a prompt and from generated text back to a message: text only, no I/O.
//!
//! `template` renders a model's own template, `prompt` fits a conversation into a context,
//! `capabilities` reads from a template what a model can do, `parser` splits generated text into
//! thinking, content and tool calls, `calls` says how a model writes those as a grammar.

mod calls;
pub mod capabilities;
mod go_data;
pub mod go_json;
mod gotemplate;
mod jinja;
pub mod parser;
pub mod prompt;
pub mod shipped;
pub mod template;
pub mod tool;

pub use calls::{Callable, Rules};
pub use capabilities::{Capability, capabilities_of_model};
pub use parser::{Delta, OutputParser};
pub use prompt::{Prompt, fit};
pub use template::{RenderInput, Template};
pub use tool::{Tool, ToolCall};

/// Why a template could not be read or rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The template's text is not a template; the message has the form of Go's or of minijinja.
    #[error("{0}")]
    Parse(String),
    /// The template failed on this input, or refused it with `raise_exception`.
    #[error("{0}")]
    Render(String),
    /// The template asked for more work or text than a chat can need.
    #[error("template exceeds the limit of {limit} {what}")]
    Limit { what: &'static str, limit: usize },
    /// A tool's description is not of the expected form.
    #[error("{0}")]
    Tool(String),
}

/// Who speaks. Servers accept any role; templates decide what to make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
    Other(String),
}

impl Role {
    /// The role of this name, letter case ignored.
    pub fn new(name: &str) -> Role {
        match name.to_lowercase().as_str() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            other => Role::Other(other.to_string()),
        }
    }

    /// The lower-case name that templates compare with.
    pub fn as_str(&self) -> &str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
            Role::Other(name) => name,
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub role: Role,
    pub content: String,
    /// Earlier reasoning, given back to templates that want it.
    pub thinking: String,
    /// Number of images that belong to this turn; the bytes stay with the server.
    pub n_images: usize,
    pub tool_calls: Vec<ToolCall>,
    /// On a tool's answer: which tool produced it.
    pub tool_name: String,
    /// On a tool's answer: which call it answers.
    pub tool_call_id: String,
}

impl Message {
    /// A turn of plain text.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message {
            role,
            content: content.into(),
            thinking: String::new(),
            n_images: 0,
            tool_calls: Vec::new(),
            tool_name: String::new(),
            tool_call_id: String::new(),
        }
    }
}

/// The request's `think`; absent is `None` where it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Think {
    Off,
    On,
    Low,
    Medium,
    High,
    Max,
}

impl Think {
    /// Whether reasoning is wanted.
    pub fn is_on(self) -> bool {
        self != Think::Off
    }

    /// The level as Go templates see it: plain `true` is `medium`, `false` is empty.
    pub fn level(self) -> &'static str {
        match self {
            Think::Off => "",
            Think::Low => "low",
            Think::On | Think::Medium => "medium",
            Think::High => "high",
            Think::Max => "max",
        }
    }

    /// The level if the request named one, as `reasoning_effort` of a Jinja template.
    pub fn named_level(self) -> Option<&'static str> {
        match self {
            Think::Off | Think::On => None,
            level => Some(level.level()),
        }
    }
}

#[cfg(test)]
mod tests;
