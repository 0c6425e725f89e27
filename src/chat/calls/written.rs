//! The written form of calls that a template, or a parser's name, asks for.

use super::bodies::{ATEM, json};
use super::forms::form_of;
use super::{Words, Written};
use crate::chat::jinja::JinjaTemplate;
use crate::chat::parser::{self, CallFormat, Dialect, Format, Named};

/// The form that a Jinja template asks for.
pub fn written_by_jinja(template: &JinjaTemplate) -> Written {
    let text = template.text();
    if let Some(dialect) = parser::dialect_of(text) {
        return in_messages(dialect);
    }
    if parser::has_recipients(text) {
        return in_parts();
    }
    match template.call_format() {
        CallFormat::Known(format) => written(format, text),
        CallFormat::Inferred(form) => form.written.clone(),
        CallFormat::Unknown => alone("{", before_arguments(text)),
    }
}

/// The form of the parser that a model's config names; none where that reads no calls.
pub fn written_by_named(named: &Named) -> Option<Written> {
    if let Some(dialect) = parser::dialect_of(named.marks) {
        return Some(in_messages(dialect));
    }
    parser::format_of(named.marks).map(|format| written(&format, named.marks))
}

/// The form of a format; `text` is the template, or has its marks, and tells which of several.
fn written(format: &Format, text: &str) -> Written {
    let form = form_of(format, text);
    let (before, between, after) = form.frame;
    Written {
        before: before.into(),
        call: form.call.clone(),
        between: between.map(str::to_owned),
        after: after.into(),
        tag: format.open.into(),
        tags: [format.close]
            .into_iter()
            .chain(format.inner.iter().copied())
            .filter(|tag| !tag.is_empty())
            .map(str::to_owned)
            .collect(),
        words: Words::Around,
    }
}

/// A call is a message of its own, which the end of the answer ends. Glimmer names its tool twice, and its calls may
/// follow each other.
fn in_messages(dialect: &'static Dialect) -> Written {
    let is_glimmer = dialect.ends.contains(&"<|eom|>");
    let (before, call) = match is_glimmer {
        true => (" to=", ATEM),
        false => (
            "<|channel|>commentary to=functions.",
            json("", " <|constrain|>json<|message|>", ""),
        ),
    };
    Written {
        before: before.into(),
        call,
        between: is_glimmer.then(|| "<|eom|><|start|>assistant to=".into()),
        after: String::new(),
        tag: before.into(),
        tags: dialect.tokens.iter().map(|tag| (*tag).to_owned()).collect(),
        words: match is_glimmer {
            true => Words::InMessages {
                next: "<|eom|><|start|>assistant",
                head: " to=",
                kinds: "self|user",
            },
            false => Words::InMessages {
                next: "<|end|><|start|>assistant",
                head: "<|channel|>",
                kinds: "analysis|commentary|final",
            },
        },
    }
}

/// Functionary's: a call is a part of its own, and the prompt has begun the first.
fn in_parts() -> Written {
    Written {
        before: String::new(),
        call: json("", "\n", ""),
        between: Some(parser::PART.into()),
        after: String::new(),
        tag: String::new(),
        tags: Vec::new(),
        words: Words::InParts,
    }
}

/// The form that a Go template asks for; `tag` is what it writes before a call.
pub fn written_by_go(text: &str, tag: &str) -> Written {
    if let Some(dialect) = parser::dialect_of(text) {
        return in_messages(dialect);
    }
    let middle = before_arguments(text);
    if tag == "{" {
        return alone(tag, middle);
    }
    let call = json("{\"name\": \"", middle, "}");
    if tag.ends_with('[') {
        return Written {
            before: tag.into(),
            call,
            between: Some(", ".into()),
            after: "]".into(),
            tag: tag.into(),
            tags: Vec::new(),
            words: Words::Around,
        };
    }
    let close = tag.strip_prefix('<').map(|name| format!("</{name}"));
    let close = close.filter(|close| text.contains(close.as_str()));
    let (between, after) = match close {
        Some(close) => (Some(format!("\n{close}\n{tag}\n")), format!("\n{close}")),
        None => (None, String::new()),
    };
    Written {
        before: format!("{tag}\n"),
        call,
        between,
        after,
        tag: tag.into(),
        tags: Vec::new(),
        words: Words::Around,
    }
}

/// One call that is the whole answer.
fn alone(tag: &str, middle: &'static str) -> Written {
    Written {
        before: tag.into(),
        call: json("\"name\": \"", middle, "}"),
        between: None,
        after: String::new(),
        tag: tag.into(),
        tags: Vec::new(),
        words: Words::Around,
    }
}

/// What stands between the tool's name and its arguments, which Llama 3 calls `parameters`.
fn before_arguments(template: &str) -> &'static str {
    match template.contains("\"parameters\": ") && !template.contains("\"arguments\"") {
        true => "\", \"parameters\": ",
        false => "\", \"arguments\": ",
    }
}
