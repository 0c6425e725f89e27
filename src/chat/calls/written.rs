//! The written form of each format that the parser reads.

use super::members::{Style, Texts};
use super::{Body, Words, Written};
use crate::chat::jinja::JinjaTemplate;
use crate::chat::parser::{self, CallFormat, Dialect, Format, Named};
use std::borrow::Cow;

/// Where a JSON call keeps its parts.
fn json(open: &str, middle: &str, close: &str) -> Body {
    Body::Json {
        open: open.into(),
        middle: middle.into(),
        close: close.into(),
    }
}

/// `{"name": "f", "arguments": {...}}`.
fn named(arguments: &str) -> Body {
    json("{\"name\": \"", &format!("\", \"{arguments}\": "), "}")
}

const PYTHON: Body = Body::Members {
    open: Cow::Borrowed(""),
    middle: Cow::Borrowed("("),
    style: Style {
        open: Cow::Borrowed(""),
        middle: Cow::Borrowed("="),
        close: Cow::Borrowed(""),
        between: Cow::Borrowed(", "),
        texts: Texts::Json,
    },
    close: Cow::Borrowed(")"),
};

/// Qwen3-Coder's.
const XML: Body = Body::Members {
    open: Cow::Borrowed("<function="),
    middle: Cow::Borrowed(">\n"),
    style: Style {
        open: Cow::Borrowed("<parameter="),
        middle: Cow::Borrowed(">\n"),
        close: Cow::Borrowed("\n</parameter>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed("</function>"),
};

/// GLM's.
const PAIRS: Body = Body::Members {
    open: Cow::Borrowed(""),
    middle: Cow::Borrowed("\n"),
    style: Style {
        open: Cow::Borrowed("<arg_key>"),
        middle: Cow::Borrowed("</arg_key>\n<arg_value>"),
        close: Cow::Borrowed("</arg_value>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed(""),
};

/// FunctionGemma's.
const ESCAPED: Body = Body::Members {
    open: Cow::Borrowed("call:"),
    middle: Cow::Borrowed("{"),
    style: Style {
        open: Cow::Borrowed(""),
        middle: Cow::Borrowed(":"),
        close: Cow::Borrowed(""),
        between: Cow::Borrowed(","),
        texts: Texts::Between(Cow::Borrowed("<escape>")),
    },
    close: Cow::Borrowed("}"),
};

/// Gemma 4's.
const QUOTED: Body = Body::Members {
    open: Cow::Borrowed("call:"),
    middle: Cow::Borrowed("{"),
    style: Style {
        open: Cow::Borrowed(""),
        middle: Cow::Borrowed(":"),
        close: Cow::Borrowed(""),
        between: Cow::Borrowed(","),
        texts: Texts::Between(Cow::Borrowed("<|\"|>")),
    },
    close: Cow::Borrowed("}"),
};

/// MiniMax's.
const INVOCATION: Body = Body::Members {
    open: Cow::Borrowed("<invoke name=\""),
    middle: Cow::Borrowed("\">\n"),
    style: Style {
        open: Cow::Borrowed("<parameter name=\""),
        middle: Cow::Borrowed("\">"),
        close: Cow::Borrowed("</parameter>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed("</invoke>\n"),
};

/// DeepSeek's since V3.2.
const DSML: Body = Body::Members {
    open: Cow::Borrowed("<｜DSML｜invoke name=\""),
    middle: Cow::Borrowed("\">\n"),
    style: Style {
        open: Cow::Borrowed("<｜DSML｜parameter name=\""),
        middle: Cow::Borrowed("\" string=\"false\">"),
        close: Cow::Borrowed("</｜DSML｜parameter>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::BareAfter(Cow::Borrowed("\" string=\"true\">")),
    },
    close: Cow::Borrowed("</｜DSML｜invoke>\n"),
};

/// Glimmer's.
const ATEM: Body = Body::Members {
    open: Cow::Borrowed(""),
    middle: Cow::Borrowed("<|message|><atem:function_calls>\n<atem:invoke name=\"\u{2}\">\n"),
    style: Style {
        open: Cow::Borrowed("<atem:parameter name=\""),
        middle: Cow::Borrowed("\">"),
        close: Cow::Borrowed("</atem:parameter>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed("</atem:invoke>\n</atem:function_calls>"),
};

/// MiniCPM's.
const PARAMS: Body = Body::Members {
    open: Cow::Borrowed(""),
    middle: Cow::Borrowed("\">"),
    style: Style {
        open: Cow::Borrowed("<param name=\""),
        middle: Cow::Borrowed("\">"),
        close: Cow::Borrowed("</param>"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed(""),
};

/// What stands before, between and after calls.
type Frame = (&'static str, Option<&'static str>, &'static str);

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
        CallFormat::Unknown => alone("{", arguments_key(text)),
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
    let (frame, call): (Frame, Body) = match format.mark {
        "<function=example_function_name>{" => (
            ("<function=", Some("</function><function="), "</function>"),
            json("", ">", ""),
        ),
        "<function=" => (
            (
                "<tool_call>\n",
                Some("\n</tool_call>\n<tool_call>\n"),
                "\n</tool_call>",
            ),
            XML,
        ),
        "<arg_key>" => (
            (
                "<tool_call>",
                Some("</tool_call>\n<tool_call>"),
                "</tool_call>",
            ),
            PAIRS,
        ),
        "<tool_call>" => (
            (
                "<tool_call>\n",
                Some("\n</tool_call>\n<tool_call>\n"),
                "\n</tool_call>",
            ),
            named("arguments"),
        ),
        "[TOOL_CALLS]" if text.contains("[ARGS]") => (
            ("[TOOL_CALLS]", Some("[TOOL_CALLS]"), ""),
            json("", "[ARGS]", ""),
        ),
        "[TOOL_CALLS]" => (("[TOOL_CALLS][", Some(", "), "]"), named("arguments")),
        "<｜tool▁calls▁begin｜>" if text.contains("```json") => (
            ("<｜tool▁calls▁begin｜>", Some("\n"), "<｜tool▁calls▁end｜>"),
            json(
                "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                "\n```json\n",
                "\n```<｜tool▁call▁end｜>",
            ),
        ),
        "<｜tool▁calls▁begin｜>" => (
            ("<｜tool▁calls▁begin｜>", Some(""), "<｜tool▁calls▁end｜>"),
            json(
                "<｜tool▁call▁begin｜>",
                "<｜tool▁sep｜>",
                "<｜tool▁call▁end｜>",
            ),
        ),
        "<|tool_call_start|>" | "<|tool_list_start|>" | "List of tools: [" => (
            ("<|tool_call_start|>[", Some(", "), "]<|tool_call_end|>"),
            PYTHON,
        ),
        "<function_calls>" => (
            ("<function_calls>", Some("\n"), "</function_calls>"),
            PYTHON,
        ),
        "<start_function_call>" => (
            (
                "<start_function_call>",
                Some("<end_function_call><start_function_call>"),
                "<end_function_call>",
            ),
            ESCAPED,
        ),
        "<seed:tool_call>" => (
            (
                "<seed:tool_call>\n",
                Some("\n</seed:tool_call>\n<seed:tool_call>\n"),
                "\n</seed:tool_call>",
            ),
            XML,
        ),
        "<minimax:tool_call>" => (
            ("<minimax:tool_call>\n", Some(""), "</minimax:tool_call>"),
            INVOCATION,
        ),
        // The index is that of the call, which nobody reads.
        "<|tool_calls_section_begin|>" => (
            (
                "<|tool_calls_section_begin|>",
                Some(""),
                "<|tool_calls_section_end|>",
            ),
            json(
                "<|tool_call_begin|>functions.",
                ":0<|tool_call_argument_begin|>",
                "<|tool_call_end|>",
            ),
        ),
        "<|tool_call>call:" => (
            (
                "<|tool_call>",
                Some("<tool_call|><|tool_call>"),
                "<tool_call|>",
            ),
            QUOTED,
        ),
        "<|START_ACTION|>" => (
            ("<|START_ACTION|>[", Some(", "), "]<|END_ACTION|>"),
            json("{\"tool_name\": \"", "\", \"parameters\": ", "}"),
        ),
        "<|/tool_call|>" => (
            ("<|tool_call|>[", Some(", "), "]<|/tool_call|>"),
            named("arguments"),
        ),
        "<TOOLCALL>" => (
            ("<TOOLCALL>[", Some(", "), "]</TOOLCALL>"),
            named("arguments"),
        ),
        "'function_calls>" => (
            (
                "<｜DSML｜function_calls>\n",
                Some(""),
                "</｜DSML｜function_calls>",
            ),
            DSML,
        ),
        "'tool_calls>" => (
            ("<｜DSML｜tool_calls>\n", Some(""), "</｜DSML｜tool_calls>"),
            DSML,
        ),
        "<function name=\"" => (
            (
                "<function name=\"",
                Some("</function><function name=\""),
                "</function>",
            ),
            PARAMS,
        ),
        // The id is the server's to give.
        "<|tool_call:begin|>" => (
            ("<|tool_calls|>", Some(""), "<|calls|>"),
            json(
                "<|tool_call:begin|>0<|tool_call:name|>",
                "<|tool_call:args|>",
                "<|tool_call:end|>",
            ),
        ),
        "<|tools_prefix|>" => (
            ("<|tools_prefix|>[", Some(", "), "]<|tools_suffix|>"),
            json("{\"", "\": ", "}"),
        ),
        "<tool_calls>" if text.contains("<tool_calls>[") => (
            ("<tool_calls>[", Some(", "), "]</tool_calls>"),
            named("arguments"),
        ),
        "<tool_calls>" => (
            ("<tool_calls>\n", Some("\n"), "\n</tool_calls>"),
            named("arguments"),
        ),
        "'role': 'function call'" => (
            ("<|message_sep|>\n\nfunction call<|role_sep|>\n", None, ""),
            named("arguments"),
        ),
        "<|function_call|>" => (("<|function_call|>", None, ""), named("arguments")),
        "followed by a json-formatted list of actions" => (
            ("Action:\n```json\n[", Some(","), "\n]```"),
            json(
                "\n    {\n        \"tool_name\": \"",
                "\",\n        \"parameters\": ",
                "\n    }",
            ),
        ),
        "functools[" => (("functools[", Some(", "), "]"), named("arguments")),
        // Granite's, the last of the parser's formats.
        _ => (("<|tool_call|>[", Some(", "), "]"), named("arguments")),
    };
    Written {
        before: frame.0.into(),
        call,
        between: frame.1.map(str::to_owned),
        after: frame.2.into(),
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
    let key = arguments_key(text);
    if tag == "{" {
        return alone(tag, key);
    }
    if tag.ends_with('[') {
        return Written {
            before: tag.into(),
            call: named(key),
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
        call: named(key),
        between,
        after,
        tag: tag.into(),
        tags: Vec::new(),
        words: Words::Around,
    }
}

/// One call that is the whole answer.
fn alone(tag: &str, key: &str) -> Written {
    Written {
        before: tag.into(),
        call: json("\"name\": \"", &format!("\", \"{key}\": "), "}"),
        between: None,
        after: String::new(),
        tag: tag.into(),
        tags: Vec::new(),
        words: Words::Around,
    }
}

/// Llama 3 calls them `parameters`.
fn arguments_key(template: &str) -> &'static str {
    match template.contains("\"parameters\": ") && !template.contains("\"arguments\"") {
        true => "parameters",
        false => "arguments",
    }
}
