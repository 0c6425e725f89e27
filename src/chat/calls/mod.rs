//! How a model writes tool calls, as a grammar: the way round of `parser`. Each format of the parser has its written
//! form here, so that calls which must be made are made in the model's own words, with arguments that fit their schemas.
//! The form of a template that nobody knows is read off what it writes, and reads calls as well.

mod bodies;
mod forms;
mod inferred;
mod members;
mod pieces;
mod read;
mod written;

use super::parser;
use super::{Error, ToolCall};
use members::Style;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Write as _;

pub(super) use inferred::{Inferred, inferred};
pub(super) use written::{written_by_go, written_by_jinja, written_by_named};

/// A tool that may be called.
#[derive(Debug, Clone, PartialEq)]
pub struct Callable {
    pub name: String,
    /// The JSON Schema of its arguments, as the grammar's compiler takes it.
    pub schema: Value,
}

/// What an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The answer is calls and nothing else; text with calls in it otherwise.
    pub required: bool,
    /// More than one call.
    pub several: bool,
}

/// One way to write calls: `before`, calls with `between` between them, `after`.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Begins with the text that tells calls from content.
    before: String,
    call: Body,
    /// None where an answer holds one call only.
    between: Option<String>,
    after: String,
    /// What `before` begins with; a brace or bracket tells a call only at the start of an answer.
    tag: String,
    /// Texts that may be control tokens.
    tags: Vec<String>,
    words: Words,
}

/// Where text that is no call may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// Before calls and after them.
    Around,
    /// In messages of their own, as gpt-oss and Glimmer have them: what stands between messages, and how the header of
    /// one goes on that is no call's.
    InMessages {
        next: &'static str,
        head: &'static str,
        /// What may follow that, as a regular expression.
        kinds: &'static str,
    },
    /// In parts of their own, as Functionary has them.
    InParts,
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
enum Body {
    /// `open`, the tool's name, `middle`, the arguments as JSON, `close`.
    Json {
        open: Cow<'static, str>,
        middle: Cow<'static, str>,
        close: Cow<'static, str>,
    },
    /// `open`, the tool's name, `middle`, the arguments one by one, `close`.
    Members {
        open: Cow<'static, str>,
        middle: Cow<'static, str>,
        style: Style,
        close: Cow<'static, str>,
    },
}

/// Stands in a form that was read off a template for one word which no call shares with another: an id, an index.
const HOLE: char = '\0';

/// Stands in a form for the tool's name where that is written again.
const NAME: char = '\u{2}';

/// Most calls in a row: a small model that must call would go on without end.
const MAX_CALLS: usize = 32;

/// Ids of control tokens by their text.
pub type Control<'c> = dyn Fn(&str) -> Option<u32> + 'c;

impl Written {
    /// The grammar of answers in this form, in Lark's notation as `llguidance` reads it.
    ///
    /// # Errors
    /// [`Error::Tool`] names an argument whose schema this form cannot hold.
    pub fn grammar(
        &self,
        tools: &[Callable],
        rules: Rules,
        control: &Control,
    ) -> Result<String, Error> {
        let literal = |text: &str| self.literal(text, control);
        let mut lark = self.start(rules, control);
        let rest = match rules.required {
            true => self.before.as_str(),
            false => &self.before[self.tag.len()..],
        };
        let more = match &self.between {
            Some(between) if rules.several => {
                format!("({} call){{0,{}}}", literal(between), MAX_CALLS - 1)
            }
            _ => String::new(),
        };
        let parts = [literal(rest), "call".into(), more, literal(&self.after)];
        lark += &format!("calls: {}\n", parts.join(" "));
        let names: Vec<String> = (0..tools.len()).map(|i| format!("call_{i}")).collect();
        lark += &format!("call: {}\n", names.join(" | "));
        for (i, tool) in tools.iter().enumerate() {
            let (middle, close) = match &self.call {
                Body::Json { middle, close, .. } => {
                    let _ = writeln!(lark, "args_{i}: %json {}", tool.schema);
                    (&**middle, &**close)
                }
                Body::Members {
                    middle,
                    style,
                    close,
                    ..
                } => {
                    lark += &style.grammar(i, tool, &literal)?;
                    (&**middle, &**close)
                }
            };
            let head = literal(&(self.head(&tool.name) + &middle.replace(NAME, &tool.name)));
            let _ = writeln!(lark, "call_{i}: {head} args_{i} {}", literal(close));
        }
        Ok(lark)
    }

    /// The calls of an earlier answer in this form.
    pub fn text(&self, calls: &[ToolCall]) -> String {
        let one = |call: &ToolCall| match &self.call {
            Body::Json { middle, close, .. } => {
                let arguments = Value::Object(call.arguments.clone());
                format!("{}{middle}{arguments}{close}", self.head(&call.name))
            }
            Body::Members {
                middle,
                style,
                close,
                ..
            } => {
                let arguments = style.text(&call.arguments);
                let middle = middle.replace(NAME, &call.name);
                format!("{}{middle}{arguments}{close}", self.head(&call.name))
            }
        };
        let calls: Vec<String> = calls.iter().map(one).collect();
        let between = self.between.as_deref().unwrap_or("\n");
        format!("{}{}{}", self.before, calls.join(between), self.after)
    }

    /// The beginning of a call, up to the end of the tool's name.
    fn head(&self, name: &str) -> String {
        match &self.call {
            Body::Json { open, .. } if open.ends_with('"') => {
                format!("{open}{}", quoted_inside(name))
            }
            Body::Json { open, .. } | Body::Members { open, .. } => format!("{open}{name}"),
        }
    }

    /// What comes before the calls: nothing, or text up to the tag.
    fn start(&self, rules: Rules, control: &Control) -> String {
        if rules.required {
            return "start: calls\n".into();
        }
        let tag = self.tag.as_str();
        if let Words::InMessages { next, head, kinds } = self.words {
            let literal = |text: &str| self.literal(text, control);
            let (next, head, message) = (literal(next), literal(head), literal("<|message|>"));
            return format!(
                "start: (message next)* (message | begin calls)\nnext: {next}\nbegin: {}\n\
                 message: {head} KIND {message} TEXT\nKIND: /{kinds}/\n\
                 TEXT: /([^<]|<[^|])*/\n",
                literal(tag)
            );
        }
        if self.words == Words::InParts {
            let (all, part) = (quoted(parser::TO_ALL), quoted(parser::PART));
            return format!(
                "start: {all} begin calls | {all} TEXT? | calls\nbegin[suffix={part}]: /(?s:.*)/\n\
                 TEXT: /(?s:.+)/\n"
            );
        }
        if matches!(tag, "{" | "[") {
            let blanks = "BLANKS: /[ \\n]{0,4}/\n";
            return format!(
                "start: BLANKS \"{tag}\" calls | TEXT?\nTEXT: /\\s*[^\\{tag}\\s](?s:.*)/\n{blanks}"
            );
        }
        let begin = self.literal(tag, control);
        let (free, begin) = match begin.contains("<[") {
            true => ("TEXT? ", format!("begin: {begin}\n")),
            false => ("", format!("begin[suffix={begin}]: /(?s:.*)/\n")),
        };
        let mut start = match rules.several && self.between.is_some() {
            true => format!("start: ({free}begin calls)* TEXT?\n"),
            false => format!("start: {free}begin calls | TEXT?\n"),
        };
        start += &begin;
        start += "TEXT: /(?s:.+)/\n";
        start
    }

    /// A text as terminals: control tokens in it are those tokens and no text.
    fn literal(&self, text: &str, control: &Control) -> String {
        let mut terminals = Vec::new();
        let mut rest = text;
        let tags = self.tags.iter().chain([&self.tag]).map(String::as_str);
        let tokens: Vec<(&str, u32)> = tags
            .filter_map(|tag| control(tag).map(|id| (tag, id)))
            .collect();
        loop {
            let found = tokens
                .iter()
                .filter_map(|&(tag, id)| rest.find(tag).map(|at| (at, tag, id)))
                .min();
            let before = found.map_or(rest, |(at, ..)| &rest[..at]);
            for (i, part) in before.split(HOLE).enumerate() {
                if i > 0 {
                    terminals.push("/[A-Za-z0-9_]{1,16}/".into());
                }
                if !part.is_empty() {
                    terminals.push(quoted(part));
                }
            }
            match found {
                Some((at, tag, id)) => {
                    terminals.push(format!("<[{id}]>"));
                    rest = &rest[at + tag.len()..];
                }
                None => return terminals.join(" "),
            }
        }
    }
}

/// A literal of Lark's, which reads strings as JSON does.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text as it stands inside the quotes of a JSON string.
fn quoted_inside(text: &str) -> String {
    let whole = quoted(text);
    whole[1..whole.len() - 1].to_owned()
}
