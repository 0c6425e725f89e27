//! Tool calls of a model whose format only its Go template shows: the text that comes before a
//! call, then a known tool's name and a JSON object.

use super::{Tool, ToolCall, thinking::partial_tag};
use serde_json::{Map, Value};

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    LookingForTag,
    Calling,
    Done,
}

/// Finds calls after a tag. With the tag `{` or `[` only text that begins with it can be a call;
/// with any other, text before the tag is content and nothing after it is.
#[derive(Debug)]
pub struct GenericParser {
    tag: String,
    names: Vec<String>,
    state: State,
    buffer: String,
    n_calls: usize,
    /// Whether the name may be complete although no brace closes with the next piece.
    must_retry: bool,
}

impl GenericParser {
    pub fn new(tag: String, tools: &[Tool]) -> GenericParser {
        let names = tools
            .iter()
            .map(|t| t.name.clone())
            .filter(|name| !name.is_empty())
            .collect();
        GenericParser {
            tag,
            names,
            state: State::LookingForTag,
            buffer: String::new(),
            n_calls: 0,
            must_retry: false,
        }
    }

    /// Takes a piece; returns complete calls and content.
    pub fn push(&mut self, piece: &str) -> (Vec<ToolCall>, String) {
        if self.state == State::Done {
            return (Vec::new(), piece.to_string());
        }
        self.buffer.push_str(piece);
        let mut content = String::new();
        if self.state == State::LookingForTag {
            content = self.look_for_tag();
            if self.state != State::Calling {
                return (Vec::new(), content);
            }
            self.must_retry = true;
        }
        let mut calls = Vec::new();
        // Only a closing brace completes a call, so long texts are not scanned for every token.
        if self.must_retry || piece.contains(['}', ']']) {
            calls.extend(std::iter::from_fn(|| self.take_call(false)));
            if self.brackets_balance() {
                self.state = State::Done;
                content.push_str(&std::mem::take(&mut self.buffer));
            }
        }
        (calls, content)
    }

    /// What was held back at the end: text that was no call is content if it looks like plain JSON.
    pub fn finish(&mut self) -> (Vec<ToolCall>, String) {
        let state = std::mem::replace(&mut self.state, State::Done);
        let mut calls = Vec::new();
        if state == State::Calling {
            calls.extend(std::iter::from_fn(|| self.take_call(true)));
        }
        let held = std::mem::take(&mut self.buffer);
        let is_text = self.n_calls == 0 && (state == State::LookingForTag || self.is_bracket());
        (calls, if is_text { held } else { String::new() })
    }

    fn is_bracket(&self) -> bool {
        matches!(self.tag.as_str(), "{" | "[")
    }

    /// Text before the tag, all but what may be its beginning.
    fn look_for_tag(&mut self) -> String {
        let found = self.buffer.find(&self.tag);
        let end = found.unwrap_or(self.buffer.len() - partial_tag(&self.buffer, &self.tag));
        let rest = self.buffer.split_off(end);
        let mut content = std::mem::replace(&mut self.buffer, rest);
        if self.is_bracket() && !content.trim().is_empty() {
            self.state = State::Done;
            content.push_str(&std::mem::take(&mut self.buffer));
        } else if found.is_some() {
            self.state = State::Calling;
        }
        content
    }

    /// The next complete call in the buffer, which is cut after it. At the end of the text a name
    /// is not expected to grow any more.
    fn take_call(&mut self, is_end: bool) -> Option<ToolCall> {
        let may_grow = |name: &String| {
            let n = partial_tag(&self.buffer, name);
            n > 0 && n < name.len()
        };
        self.must_retry = !is_end && self.names.iter().any(may_grow);
        if self.must_retry {
            return None;
        }
        let (name, name_end) = self.find_name()?;
        let (arguments, object_end) = find_arguments(&self.buffer, &name)?;
        self.buffer.drain(..name_end.max(object_end));
        self.n_calls += 1;
        Some(ToolCall {
            id: String::new(),
            index: self.n_calls - 1,
            name,
            arguments,
        })
    }

    /// The first tool named in the buffer, the longest of those at one place, and its end.
    fn find_name(&self) -> Option<(String, usize)> {
        let found = self
            .names
            .iter()
            .filter_map(|name| self.buffer.find(name).map(|at| (at, name)));
        let (at, name) = found.min_by_key(|&(at, name)| (at, std::cmp::Reverse(name.len())))?;
        Some((name.clone(), at + name.len()))
    }

    /// Whether every bracket of the tag's kind is closed, so that no call can follow.
    fn brackets_balance(&self) -> bool {
        let (open, close) = match self.tag.as_str() {
            "{" => ('{', '}'),
            "[" => ('[', ']'),
            _ => return false,
        };
        let mut depth = 0i64;
        let (mut in_string, mut is_escaped) = (false, false);
        for c in self.buffer.chars() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' if in_string => is_escaped = true,
                '"' if depth > 0 => in_string = !in_string,
                _ if in_string => {}
                c if c == open => depth += 1,
                c if c == close => {
                    depth -= 1;
                    if depth == 0 {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }
}

/// The arguments in the first complete JSON object, and the place of its last brace. That brace
/// stays in the buffer: it keeps the brackets unbalanced, so that text after a call is no content.
fn find_arguments(buffer: &str, name: &str) -> Option<(Map<String, Value>, usize)> {
    let (object, end) = first_object(buffer)?;
    match search(&object, name) {
        Found::Arguments(arguments) => Some((arguments, end)),
        Found::Nothing => Some((object.as_object()?.clone(), end)),
        Found::Incomplete => None,
    }
}

/// The first `{...}` that is JSON, and the place of its last brace. Others are skipped.
fn first_object(buffer: &str) -> Option<(Value, usize)> {
    let (mut start, mut depth) = (0, 0u32);
    let (mut in_string, mut is_escaped) = (false, false);
    for (i, byte) in buffer.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' if depth > 0 => in_string = !in_string,
            _ if in_string => {}
            b'{' => {
                if depth == 0 {
                    start = i;
                }
                depth += 1;
            }
            b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0
                    && let Ok(object) = serde_json::from_str(&buffer[start..=i])
                {
                    return Some((object, i));
                }
            }
            _ => {}
        }
    }
    None
}

enum Found {
    Arguments(Map<String, Value>),
    /// A call's object without its arguments.
    Incomplete,
    Nothing,
}

/// Looks for the arguments of a call of `name` in `value`, from outside in.
fn search(value: &Value, name: &str) -> Found {
    match value {
        // `tool_name` is Command R's.
        Value::Object(object)
            if object.contains_key("name") || object.contains_key("tool_name") =>
        {
            ["arguments", "parameters"]
                .iter()
                .find_map(|key| object.get(*key).and_then(as_arguments))
                .map_or(Found::Incomplete, Found::Arguments)
        }
        Value::Object(object) => match object.get(name).and_then(as_arguments) {
            Some(arguments) => Found::Arguments(arguments),
            None => first_found(object.values(), name),
        },
        Value::Array(items) => first_found(items.iter(), name),
        _ => Found::Nothing,
    }
}

fn first_found<'a>(values: impl Iterator<Item = &'a Value>, name: &str) -> Found {
    values
        .map(|value| search(value, name))
        .find(|found| !matches!(found, Found::Nothing))
        .unwrap_or(Found::Nothing)
}

/// An object, or a string that holds one.
pub fn as_arguments(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object.clone()),
        Value::String(text) => match serde_json::from_str(text).ok()? {
            Value::Object(object) => Some(object),
            _ => None,
        },
        _ => None,
    }
}
