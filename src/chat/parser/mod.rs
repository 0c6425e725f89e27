//! Generated text, piece by piece, to thinking, content and tool calls.

mod bodies;
mod generic;
mod tagged;
mod thinking;

use super::{Think, Tool, ToolCall, gotemplate::GoTemplate};
use generic::GenericParser;
pub(super) use tagged::Format;
use tagged::{FORMATS, TaggedParser};
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
}

impl ToolParser {
    fn push(&mut self, text: String) -> (Vec<ToolCall>, String) {
        match self {
            ToolParser::None => (Vec::new(), text),
            ToolParser::Generic(parser) => parser.push(&text),
            ToolParser::Tagged(parser) => parser.push(&text),
        }
    }

    fn finish(&mut self) -> (Vec<ToolCall>, String) {
        match self {
            ToolParser::None => Default::default(),
            ToolParser::Generic(parser) => parser.finish(),
            ToolParser::Tagged(parser) => parser.finish(),
        }
    }
}

/// Splits the text of one answer. Text that may become a tag is held back until that is decided.
#[derive(Debug)]
pub struct OutputParser {
    thinking: Option<ThinkingParser>,
    tools: ToolParser,
}

impl OutputParser {
    /// For answers without structure: all text is content.
    pub fn plain() -> OutputParser {
        OutputParser {
            thinking: None,
            tools: ToolParser::None,
        }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, piece: &str) -> Delta {
        let (thinking, text) = match &mut self.thinking {
            Some(parser) => parser.push(piece),
            None => (String::new(), piece.to_string()),
        };
        let (tool_calls, content) = self.tools.push(text);
        Delta {
            thinking,
            content,
            tool_calls,
        }
    }

    /// What was held back when the text ended.
    pub fn finish(&mut self) -> Delta {
        let (thinking, text) = self
            .thinking
            .as_mut()
            .map(ThinkingParser::finish)
            .unwrap_or_default();
        let (mut tool_calls, mut content) = self.tools.push(text);
        let (more_calls, more_content) = self.tools.finish();
        tool_calls.extend(more_calls);
        content.push_str(&more_content);
        Delta {
            thinking,
            content,
            tool_calls,
        }
    }

    /// The tag that would begin the model's reasoning, unless it has begun, and the one that ends
    /// it; none for a model whose reasoning is not looked for.
    pub fn thinking_tags(&self) -> Option<(Option<&str>, &str)> {
        self.thinking.as_ref().map(ThinkingParser::tags)
    }

    /// Whether the model is still reasoning: a format asked for does not bind this text.
    pub fn is_thinking(&self) -> bool {
        self.thinking
            .as_ref()
            .is_some_and(ThinkingParser::is_thinking)
    }
}

/// Tags around reasoning that Jinja templates write.
const THINKING_TAGS: [(&str, &str); 3] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
];

/// The parser for a model whose prompt a Go template renders: reasoning is looked for only if the
/// request asks for it.
pub(super) fn for_go(
    template: &GoTemplate,
    prompt: &str,
    tools: &[Tool],
    think: Option<Think>,
) -> OutputParser {
    let tags = template
        .thinking_tags()
        .filter(|_| think.is_some_and(Think::is_on));
    let tools = match tools {
        [] => ToolParser::None,
        tools => ToolParser::Generic(GenericParser::new(template.tool_tag(), tools)),
    };
    OutputParser {
        thinking: tags.map(|(open, close)| ThinkingParser::new(&open, &close, prompt)),
        tools,
    }
}

/// The parser for a model whose prompt the GGUF's Jinja template renders: reasoning is always
/// looked for, and dropped if the request does not want it.
pub(super) fn for_jinja(
    text: &str,
    prompt: &str,
    tools: &[Tool],
    think: Option<Think>,
) -> OutputParser {
    let format = format_of(text);
    let thinking = tags_of(text).map(|(open, close)| {
        let mut parser = ThinkingParser::new(open, close, prompt);
        if think == Some(Think::Off) {
            parser = parser.dropping();
        }
        match format {
            Some(format) if !tools.is_empty() => parser.ended_by(format.open),
            _ => parser,
        }
    });
    let tools = match (tools, format) {
        ([], _) => ToolParser::None,
        (tools, Some(format)) => ToolParser::Tagged(TaggedParser::new(format, tools)),
        (tools, None) => ToolParser::Generic(GenericParser::new("{".into(), tools)),
    };
    OutputParser { thinking, tools }
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
pub(super) fn visible_for_jinja(text: &str, tools: &[Tool]) -> Vec<String> {
    let tags = tags_of(text)
        .into_iter()
        .flat_map(|(open, close)| [open, close]);
    let format = format_of(text).filter(|_| !tools.is_empty());
    let of_format = format.into_iter().flat_map(|format| {
        [format.open, format.close]
            .into_iter()
            .chain(format.inner.iter().copied())
    });
    tags.chain(of_format)
        .filter(|tag| !tag.is_empty())
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod splits;
#[cfg(test)]
mod tests;
