//! Generated text, piece by piece, to thinking, content and tool calls.

mod generic;
mod thinking;

use super::{Think, Tool, ToolCall, gotemplate::GoTemplate};
use generic::GenericParser;
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

/// Splits the text of one answer. Text that may become a tag is held back until that is decided.
#[derive(Debug)]
pub struct OutputParser {
    thinking: Option<ThinkingParser>,
    tools: Option<GenericParser>,
}

impl OutputParser {
    /// For answers without structure: all text is content.
    pub fn plain() -> OutputParser {
        OutputParser {
            thinking: None,
            tools: None,
        }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, piece: &str) -> Delta {
        let (thinking, text) = match &mut self.thinking {
            Some(parser) => parser.push(piece),
            None => (String::new(), piece.to_string()),
        };
        let (tool_calls, content) = match &mut self.tools {
            Some(parser) => parser.push(&text),
            None => (Vec::new(), text),
        };
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
        let (tool_calls, content) = match &mut self.tools {
            Some(parser) => {
                let (mut calls, mut content) = parser.push(&text);
                let (more_calls, more_content) = parser.finish();
                calls.extend(more_calls);
                content.push_str(&more_content);
                (calls, content)
            }
            None => (Vec::new(), text),
        };
        Delta {
            thinking,
            content,
            tool_calls,
        }
    }

    /// Whether the model is still reasoning: a format asked for does not bind this text.
    pub fn is_thinking(&self) -> bool {
        self.thinking
            .as_ref()
            .is_some_and(ThinkingParser::is_thinking)
    }
}

/// The parser for a model whose prompt a Go template renders.
pub(super) fn for_go(
    template: &GoTemplate,
    prompt: &str,
    tools: &[Tool],
    think: Option<Think>,
) -> OutputParser {
    let tags = thinking_tags(template).filter(|_| think.is_some_and(Think::is_on));
    OutputParser {
        thinking: tags.map(|(open, close)| ThinkingParser::new(&open, &close, prompt, true)),
        tools: (!tools.is_empty()).then(|| GenericParser::new(template.tool_tag(), tools)),
    }
}

/// The parser for a model whose prompt the GGUF's Jinja template renders.
pub(super) fn for_jinja(
    text: &str,
    prompt: &str,
    tools: &[Tool],
    think: Option<Think>,
) -> OutputParser {
    let keep = think.is_some_and(Think::is_on);
    let thinks = text.contains("<think>") && text.contains("</think>");
    OutputParser {
        thinking: thinks.then(|| ThinkingParser::new("<think>", "</think>", prompt, keep)),
        tools: (!tools.is_empty()).then(|| GenericParser::new("{".into(), tools)),
    }
}

/// The opening and closing tag of reasoning, if a Go template shows them.
pub(super) fn thinking_tags(template: &GoTemplate) -> Option<(String, String)> {
    template.thinking_tags()
}

pub(super) fn visible_for_go(template: &GoTemplate, tools: &[Tool]) -> Vec<String> {
    let mut out = Vec::new();
    if let Some((open, close)) = thinking_tags(template) {
        out.extend([open, close]);
    }
    if !tools.is_empty() {
        out.push(template.tool_tag());
    }
    out
}

pub(super) fn visible_for_jinja(_text: &str) -> Vec<String> {
    vec!["<think>".into(), "</think>".into()]
}
