//! Generated text, piece by piece, to thinking, content and tool calls.

mod bare;
mod bodies;
mod dialects;
mod formats;
mod generic;
mod harmony;
mod named;
mod notations;
mod recipients;
mod tagged;
mod thinking;

use super::calls::{self, Inferred};
use super::{Think, Tool, ToolCall, gotemplate::GoTemplate, jinja::JinjaTemplate};
pub(super) use bodies::{Call, declared, member, typed_as};
pub(super) use dialects::{Dialect, dialect_of};
pub(super) use formats::{FORMATS, Format};
use generic::GenericParser;
use harmony::HarmonyParser;
pub use named::{FamilyNames, Named, family_names, is_renderer, named};
pub(super) use notations::literal;
use recipients::RecipientParser;
pub(super) use recipients::{PART, TO_ALL, has_recipients};
use std::sync::Arc;
use tagged::TaggedParser;
use thinking::ThinkingParser;

/// What one piece of text added to the answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delta {
    pub thinking: String,
    pub content: String,
    /// Complete calls; their ids are left empty.
    pub tool_calls: Vec<ToolCall>,
}

impl Delta {
    /// Whether the text is held back, or was markup.
    pub fn is_empty(&self) -> bool {
        self.thinking.is_empty() && self.content.is_empty() && self.tool_calls.is_empty()
    }
}

/// How tool calls are told from content.
#[derive(Debug)]
enum ToolParser {
    None,
    Generic(GenericParser),
    Tagged(TaggedParser),
    Recipients(RecipientParser),
}

impl ToolParser {
    fn push(&mut self, text: String) -> (Vec<ToolCall>, String) {
        match self {
            ToolParser::None => (Vec::new(), text),
            ToolParser::Generic(parser) => parser.push(&text),
            ToolParser::Tagged(parser) => parser.push(&text),
            ToolParser::Recipients(parser) => parser.push(&text),
        }
    }

    fn finish(&mut self) -> (Vec<ToolCall>, String) {
        match self {
            ToolParser::None => Default::default(),
            ToolParser::Generic(parser) => parser.finish(),
            ToolParser::Tagged(parser) => parser.finish(),
            ToolParser::Recipients(parser) => parser.finish(),
        }
    }
}

/// How reasoning stands in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasoningTags<'p> {
    /// The text that would begin it, unless it has begun.
    pub open: Option<&'p str>,
    /// The text that ends it.
    pub close: &'p str,
    /// The text that begins the answer proper, with reasoning before it or without; often empty.
    pub answer: &'p str,
    /// Whether the model may reason even if it is not asked to.
    pub always: bool,
}

/// Splits the text of one answer. Text that may become a tag is held back until that is decided.
#[derive(Debug)]
pub struct OutputParser(Layout);

/// How an answer is laid out.
#[derive(Debug)]
enum Layout {
    /// Reasoning at the start, then text with calls in it.
    Sections {
        thinking: Option<ThinkingParser>,
        tools: ToolParser,
    },
    /// Messages with headers.
    Messages(HarmonyParser),
}

impl OutputParser {
    /// For answers without structure: all text is content.
    pub fn plain() -> OutputParser {
        OutputParser::of_sections(None, ToolParser::None)
    }

    fn of_sections(thinking: Option<ThinkingParser>, tools: ToolParser) -> OutputParser {
        OutputParser(Layout::Sections { thinking, tools })
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, piece: &str) -> Delta {
        let (thinking, tools) = match &mut self.0 {
            Layout::Sections { thinking, tools } => (thinking, tools),
            Layout::Messages(parser) => return parser.push(piece),
        };
        let (thinking, text) = match thinking {
            Some(parser) => parser.push(piece),
            None => (String::new(), piece.to_string()),
        };
        let (tool_calls, content) = tools.push(text);
        Delta {
            thinking,
            content,
            tool_calls,
        }
    }

    /// What was held back when the text ended.
    pub fn finish(&mut self) -> Delta {
        let (thinking, tools) = match &mut self.0 {
            Layout::Sections { thinking, tools } => (thinking, tools),
            Layout::Messages(parser) => return parser.finish(),
        };
        let (thinking, text) = thinking
            .as_mut()
            .map(ThinkingParser::finish)
            .unwrap_or_default();
        let (mut tool_calls, mut content) = tools.push(text);
        let (more_calls, more_content) = tools.finish();
        tool_calls.extend(more_calls);
        content.push_str(&more_content);
        Delta {
            thinking,
            content,
            tool_calls,
        }
    }

    /// How reasoning may stand in the text that comes; none for a model whose reasoning is not
    /// looked for.
    pub fn reasoning(&self) -> Option<ReasoningTags<'_>> {
        match &self.0 {
            Layout::Sections { thinking, .. } => thinking.as_ref().map(|parser| {
                let (open, close) = parser.tags();
                ReasoningTags {
                    open,
                    close,
                    answer: "",
                    always: false,
                }
            }),
            Layout::Messages(parser) => parser.reasoning(),
        }
    }

    /// Whether the model is reasoning.
    pub fn is_thinking(&self) -> bool {
        match &self.0 {
            Layout::Sections { thinking, .. } => {
                thinking.as_ref().is_some_and(ThinkingParser::is_thinking)
            }
            Layout::Messages(parser) => parser.is_thinking(),
        }
    }
}

/// Tags around reasoning that Jinja templates write.
const THINKING_TAGS: [(&str, &str); 5] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    // Gemma 4.
    ("<|channel>thought", "<channel|>"),
];

/// The parser for a model whose prompt a Go template renders: reasoning is looked for only if the
/// request asks for it.
pub(super) fn for_go(
    template: &GoTemplate,
    prompt: &str,
    tools: &[Tool],
    think: Option<Think>,
) -> OutputParser {
    if let Some(dialect) = dialect_of(template.text()) {
        return messages_parser(dialect, prompt, tools, think);
    }
    let tags = template
        .thinking_tags()
        .filter(|_| think.is_some_and(Think::is_on));
    let tools = match tools {
        [] => ToolParser::None,
        tools => ToolParser::Generic(GenericParser::new(template.tool_tag(), tools)),
    };
    let thinking = tags.map(|(open, close)| ThinkingParser::new(&open, &close, prompt));
    OutputParser::of_sections(thinking, tools)
}

fn messages_parser(
    dialect: &'static Dialect,
    prompt: &str,
    tools: &[Tool],
    think: Option<Think>,
) -> OutputParser {
    let parser = HarmonyParser::new(dialect, prompt, tools, think != Some(Think::Off));
    OutputParser(Layout::Messages(parser))
}

/// The parser for a model whose prompt the GGUF's Jinja template renders: reasoning is always
/// looked for, and dropped if the request does not want it.
pub(super) fn for_jinja(
    template: &JinjaTemplate,
    prompt: &str,
    tools: &[Tool],
    think: Option<Think>,
) -> OutputParser {
    let text = template.text();
    if let Some(dialect) = dialect_of(text) {
        return messages_parser(dialect, prompt, tools, think);
    }
    if has_recipients(text) {
        let parts = ToolParser::Recipients(RecipientParser::new(prompt, tools));
        return OutputParser::of_sections(None, parts);
    }
    let calls = match tools {
        [] => ToolParser::None,
        tools => calls_parser(template, tools),
    };
    sections(text, calls, prompt, think)
}

/// The parser that a model's config names, whatever renders its prompts.
pub(super) fn for_named(
    named: &Named,
    prompt: &str,
    tools: &[Tool],
    think: Option<Think>,
) -> OutputParser {
    if let Some(dialect) = dialect_of(named.marks) {
        return messages_parser(dialect, prompt, tools, think);
    }
    let calls = match (tools, format_of(named.marks)) {
        ([], _) | (_, None) => ToolParser::None,
        (tools, Some(format)) => ToolParser::Tagged(TaggedParser::new(format, tools)),
    };
    sections(named.marks, calls, prompt, think)
}

/// Reasoning between the tags that `marks` has, dropped if the request does not want it, then text with calls.
fn sections(marks: &str, calls: ToolParser, prompt: &str, think: Option<Think>) -> OutputParser {
    let thinking = tags_of(marks).map(|(open, close)| {
        let mut parser = ThinkingParser::new(open, close, prompt);
        if think == Some(Think::Off) {
            parser = parser.dropping();
        }
        match &calls {
            ToolParser::Tagged(calls) => parser.ended_by(calls.open()),
            _ => parser,
        }
    });
    OutputParser::of_sections(thinking, calls)
}

/// How the model of a Jinja template writes calls.
#[derive(Debug)]
pub(super) enum CallFormat {
    /// A format that the template's text tells.
    Known(Format),
    /// What the template writes for a call.
    Inferred(Arc<Inferred>),
    /// A JSON object is taken for one.
    Unknown,
}

impl CallFormat {
    /// A known format must read what the template writes, where that can be told.
    pub(super) fn of(template: &JinjaTemplate) -> CallFormat {
        let inferred = calls::inferred(template).map(Arc::new);
        match (format_of(template.text()), inferred) {
            (Some(format), Some(form)) if !reads(format, &form) => CallFormat::Inferred(form),
            (Some(format), _) => CallFormat::Known(format),
            (None, Some(form)) => CallFormat::Inferred(form),
            (None, None) => CallFormat::Unknown,
        }
    }
}

fn reads(format: Format, form: &Inferred) -> bool {
    let (text, expected) = form.example();
    let mut parser = TaggedParser::new(format, &[]);
    let calls = [parser.push(&text).0, parser.finish().0].concat();
    let calls = calls.into_iter().map(|call| (call.name, call.arguments));
    calls.eq([expected])
}

fn calls_parser(template: &JinjaTemplate, tools: &[Tool]) -> ToolParser {
    match template.call_format() {
        CallFormat::Known(format) => ToolParser::Tagged(TaggedParser::new(*format, tools)),
        CallFormat::Inferred(form) if matches!(form.open(), "{" | "[") => {
            ToolParser::Generic(GenericParser::new(form.open().into(), tools))
        }
        CallFormat::Inferred(form) => ToolParser::Tagged(TaggedParser::inferred(form, tools)),
        CallFormat::Unknown => ToolParser::Generic(GenericParser::new("{".into(), tools)),
    }
}

/// The format of calls that a Jinja template contains.
pub(super) fn format_of(text: &str) -> Option<Format> {
    FORMATS
        .into_iter()
        .find(|format| text.contains(format.mark))
}

fn tags_of(text: &str) -> Option<(&'static str, &'static str)> {
    THINKING_TAGS
        .into_iter()
        .find(|(open, close)| text.contains(open) && text.contains(close))
}

/// Texts that the parser of [`for_go`] looks for and that may be special tokens.
pub(super) fn visible_for_go(template: &GoTemplate, tools: &[Tool]) -> Vec<String> {
    if let Some(dialect) = dialect_of(template.text()) {
        return dialect.tokens.iter().map(|tag| (*tag).to_owned()).collect();
    }
    let tags = template
        .thinking_tags()
        .into_iter()
        .flat_map(|(open, close)| [open, close]);
    let tool_tag = (!tools.is_empty())
        .then(|| first_token(&template.tool_tag()))
        .flatten();
    tags.chain(tool_tag).collect()
}

/// The `[...]` or `<...>` that a tag begins with.
fn first_token(tag: &str) -> Option<String> {
    let close = match tag.chars().next()? {
        '<' => '>',
        '[' => ']',
        _ => return None,
    };
    tag.find(close).map(|end| tag[..=end].to_string())
}

/// Texts that the parser of [`for_jinja`] looks for and that may be special tokens.
pub(super) fn visible_for_jinja(template: &JinjaTemplate, tools: &[Tool]) -> Vec<String> {
    let of_calls: Vec<&str> = match (tools, template.call_format()) {
        ([], _) | (_, CallFormat::Unknown) => Vec::new(),
        (_, CallFormat::Known(format)) => format.tokens(),
        (_, CallFormat::Inferred(form)) => form.tokens().iter().map(String::as_str).collect(),
    };
    visible(template.text(), &of_calls)
}

/// The same of [`for_named`].
pub(super) fn visible_for_named(named: &Named, tools: &[Tool]) -> Vec<String> {
    let format = format_of(named.marks).filter(|_| !tools.is_empty());
    let of_calls = format.map_or_else(Vec::new, |format| format.tokens());
    visible(named.marks, &of_calls)
}

fn visible(marks: &str, of_calls: &[&str]) -> Vec<String> {
    if let Some(dialect) = dialect_of(marks) {
        return dialect.tokens.iter().map(|tag| (*tag).to_owned()).collect();
    }
    let tags = tags_of(marks)
        .into_iter()
        .flat_map(|(open, close)| [open, close]);
    tags.chain(of_calls.iter().copied())
        .filter(|tag| !tag.is_empty())
        .map(|tag| first_token(tag).unwrap_or_else(|| tag.to_string()))
        .collect()
}

#[cfg(test)]
mod mended_tests;
#[cfg(test)]
mod named_tests;
#[cfg(test)]
mod splits;
#[cfg(test)]
mod tagged_tests;
#[cfg(test)]
mod tests;
