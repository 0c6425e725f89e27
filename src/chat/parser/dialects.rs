//! The two forms of messages with headers: gpt-oss's and Glimmer's.

use super::bodies::{self, Call};
use super::{ReasoningTags, Tool, generic::as_arguments};
use serde_json::{Map, Value};

pub const MESSAGE: &str = "<|message|>";
pub const START: &str = "<|start|>";
pub const CHANNEL: &str = "<|channel|>";

/// What the text of a message is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Thinking,
    Content,
    /// The arguments of a call of this tool.
    Call(String),
}

/// How messages are written.
#[derive(Debug)]
pub struct Dialect {
    /// Special tokens that the parser needs to see.
    pub tokens: &'static [&'static str],
    /// What ends a message.
    pub ends: &'static [&'static str],
    /// What every header has.
    pub header: &'static str,
    /// What a message without its beginning begins with.
    pub headless: Option<&'static str>,
    /// What begins the answer proper, after the prompt's own beginning.
    pub answer: &'static str,
    /// How reasoning stands before an answer: the prompt ends with a header that only lacks its end.
    pub reasoning: ReasoningTags<'static>,
    /// What a header says of its message.
    pub kind: fn(&str) -> Kind,
    /// The calls of a message to this tool.
    pub calls: fn(&str, &str, &[Tool]) -> Option<Vec<Call>>,
}

/// OpenAI's harmony format, <https://cookbook.openai.com/articles/openai-harmony>.
static HARMONY: Dialect = Dialect {
    tokens: &[START, CHANNEL, "<|constrain|>", MESSAGE, "<|end|>"],
    // The second ends a generation too, so that it is seldom seen.
    ends: &["<|end|>", "<|call|>"],
    header: CHANNEL,
    headless: Some(CHANNEL),
    answer: "<|channel|>final<|message|>",
    reasoning: ReasoningTags {
        open: Some("<|channel|>analysis<|message|>"),
        close: "<|end|><|start|>assistant",
        answer: "<|channel|>final<|message|>",
        always: true,
    },
    kind: kind_by_channel,
    calls: json_call,
};

/// Glimmer's: a recipient in every header, calls as elements.
static GLIMMER: Dialect = Dialect {
    tokens: &[START, MESSAGE, "<|eom|>", "<|eot|>"],
    ends: &["<|eom|>", "<|eot|>"],
    header: "to=",
    headless: None,
    answer: " to=user<|message|>",
    reasoning: ReasoningTags {
        open: Some(" to=self<|message|>"),
        close: "<|eom|><|start|>assistant",
        answer: " to=user<|message|>",
        always: true,
    },
    kind: kind_by_recipient,
    calls: bodies::atem_calls,
};

/// The dialect that a template, of either language, writes.
pub fn dialect_of(template: &str) -> Option<&'static Dialect> {
    let has = |tag: &str| template.contains(tag);
    if !has(START) || !has(MESSAGE) {
        return None;
    }
    match (has(CHANNEL), has("<atem:function_calls>")) {
        (true, _) => Some(&HARMONY),
        (_, true) => Some(&GLIMMER),
        _ => None,
    }
}

/// `assistant to=functions.f<|channel|>commentary <|constrain|>json`, in any order.
fn kind_by_channel(header: &str) -> Kind {
    // Recipients that are no tools.
    let is_tool = |name: &&str| !["", "user", "assistant", "all"].contains(name);
    if let Some(name) = recipient(header).filter(is_tool) {
        return Kind::Call(name.strip_prefix("functions.").unwrap_or(name).to_owned());
    }
    let channel = header.split_once(CHANNEL).map_or("", |(_, rest)| rest);
    match words(channel).next() {
        Some("analysis") => Kind::Thinking,
        _ => Kind::Content,
    }
}

/// `assistant to=self`.
fn kind_by_recipient(header: &str) -> Kind {
    match recipient(header) {
        None | Some("" | "user") => Kind::Content,
        Some("self") => Kind::Thinking,
        Some(name) => Kind::Call(name.to_owned()),
    }
}

fn recipient(header: &str) -> Option<&str> {
    words(header).find_map(|word| word.strip_prefix("to="))
}

fn words(header: &str) -> impl Iterator<Item = &str> {
    let is_between = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '|');
    header.split(is_between).filter(|word| !word.is_empty())
}

/// Arguments as JSON; none are none.
fn json_call(name: &str, text: &str, _: &[Tool]) -> Option<Vec<Call>> {
    let arguments = match text.trim() {
        "" => Map::new(),
        json => as_arguments(&Value::String(json.to_owned()))?,
    };
    Some(vec![(name.to_owned(), arguments)])
}
