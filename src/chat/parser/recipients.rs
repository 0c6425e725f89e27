//! Functionary's answers: parts with a recipient each, `all` or a tool, as in `all\nLet me see.>>>f\n{"city": "Paris"}`.

use super::{Tool, ToolCall, generic::as_arguments, thinking::partial_tag};
use serde_json::Value;

/// What begins a part; the prompt ends with the first one.
pub const PART: &str = ">>>";
/// What begins a part of text.
pub const TO_ALL: &str = "all\n";

/// Whose part the next text belongs to.
#[derive(Debug, Clone, PartialEq)]
enum State {
    /// Not known yet: the first line names it.
    Recipient,
    Text,
    /// The arguments of this tool.
    Call(String),
}

/// Splits text from calls by the recipients of an answer's parts.
#[derive(Debug)]
pub struct RecipientParser {
    names: Vec<String>,
    state: State,
    held: String,
    n_calls: usize,
}

impl RecipientParser {
    /// For an answer to `prompt`, which may have begun the first part.
    pub fn new(prompt: &str, tools: &[Tool]) -> RecipientParser {
        RecipientParser {
            names: tools.iter().map(|tool| tool.name.clone()).collect(),
            state: match prompt.ends_with(PART) {
                true => State::Recipient,
                false => State::Text,
            },
            held: String::new(),
            n_calls: 0,
        }
    }

    /// Takes a piece; returns complete calls and content.
    pub fn push(&mut self, piece: &str) -> (Vec<ToolCall>, String) {
        self.held.push_str(piece);
        let (mut calls, mut content) = (Vec::new(), String::new());
        loop {
            if self.state == State::Recipient {
                let Some((recipient, rest)) = self.held.split_once('\n') else {
                    break;
                };
                let recipient = recipient.trim().to_string();
                self.held = rest.to_string();
                self.begin(recipient, &mut content);
                continue;
            }
            let Some(at) = self.held.find(PART) else {
                if self.state == State::Text {
                    let decided = self.held.len() - partial_tag(&self.held, PART);
                    content.extend(self.held.drain(..decided));
                }
                break;
            };
            let body = self.held[..at].to_string();
            self.held.drain(..at + PART.len());
            self.end_part(&body, &mut calls, &mut content);
            self.state = State::Recipient;
        }
        (calls, content)
    }

    /// What was held back at the end.
    pub fn finish(&mut self) -> (Vec<ToolCall>, String) {
        let body = std::mem::take(&mut self.held);
        let (mut calls, mut content) = (Vec::new(), String::new());
        match self.state {
            State::Recipient => content = body,
            _ => self.end_part(&body, &mut calls, &mut content),
        }
        (calls, content)
    }

    /// A part for nobody known is text, with its first line.
    fn begin(&mut self, recipient: String, content: &mut String) {
        self.state = match recipient.as_str() {
            "all" => State::Text,
            name if self.names.iter().any(|known| known == name) => State::Call(recipient),
            _ => {
                content.push_str(&recipient);
                content.push('\n');
                State::Text
            }
        };
    }

    /// The rest of a part; arguments that are none are text.
    fn end_part(&mut self, body: &str, calls: &mut Vec<ToolCall>, content: &mut String) {
        let State::Call(name) = &self.state else {
            content.push_str(body);
            return;
        };
        let Some(arguments) = as_arguments(&Value::from(body.trim())) else {
            content.push_str(body);
            return;
        };
        calls.push(ToolCall {
            id: String::new(),
            index: self.n_calls,
            name: name.clone(),
            arguments,
        });
        self.n_calls += 1;
    }
}

/// Whether a template is of this kind.
pub fn has_recipients(text: &str) -> bool {
    text.contains(">>>${recipient}")
}
