//! Calls that a model writes without the tags of its format: answers that are calls of declared tools and nothing else,
//! as small Qwen and LFM models give them.

use super::{Call, Format, Tool, bodies, notations};
use serde_json::Value;

/// How such calls are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// `{"name": "f", "arguments": {...}}`, one or several.
    Json,
    /// `f(a="x")`, one or several, in a list or not.
    Python,
}

impl Notation {
    /// That of a format's bodies, if a model of it may forget the tags.
    pub fn of(format: Format) -> Option<Notation> {
        match format.mark {
            "<tool_call>" | "<tool_calls>" | "<|tool_call|>" | "<|function_call|>" => {
                Some(Notation::Json)
            }
            "<|tool_call_start|>" | "<|tool_list_start|>" | "List of tools: [" => {
                Some(Notation::Python)
            }
            _ => None,
        }
    }
}

/// What the beginning of a text says about its being a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Partial,
    Whole,
    None,
}

/// Holds an answer back while it may be calls and nothing else.
#[derive(Debug)]
pub struct BareCalls {
    notation: Notation,
    tools: Vec<Tool>,
    text: String,
    /// Where the call at hand begins.
    call: usize,
    /// Where it was scanned to; none before its name is known.
    scanned: Option<usize>,
    depth: usize,
    quote: Option<char>,
    is_escaped: bool,
}

impl BareCalls {
    pub fn new(notation: Notation, tools: &[Tool]) -> BareCalls {
        BareCalls {
            notation,
            tools: tools.to_vec(),
            text: String::new(),
            call: 0,
            scanned: None,
            depth: 0,
            quote: None,
            is_escaped: false,
        }
    }

    /// Takes a piece; gives back all text so far once it cannot be calls alone.
    pub fn push(&mut self, piece: &str) -> Option<String> {
        self.text.push_str(piece);
        loop {
            if self.scanned.is_none() {
                match self.head() {
                    Head::Whole => self.scanned = Some(self.call),
                    Head::Partial => return None,
                    Head::None => return Some(std::mem::take(&mut self.text)),
                }
            }
            if !self.scan() {
                return None;
            }
        }
    }

    /// The calls, if the answer is calls of declared tools alone; its text otherwise.
    pub fn finish(self) -> Result<Vec<Call>, String> {
        let calls = match self.notation {
            Notation::Json if !has_arguments(&self.text) => None,
            Notation::Json => bodies::json_calls(&self.text, &self.tools),
            Notation::Python => notations::python_calls(&self.text, &self.tools),
        };
        let is_declared = |call: &Call| self.tools.iter().any(|tool| tool.name == call.0);
        let calls = calls.filter(|calls| !calls.is_empty() && calls.iter().all(is_declared));
        calls.ok_or(self.text)
    }

    /// Whether a call begins where the last one ended.
    fn head(&self) -> Head {
        let is_first = self.call == 0;
        let is_between = |c: char| match self.notation {
            Notation::Json => c.is_whitespace(),
            Notation::Python if is_first => c.is_whitespace() || c == '[',
            Notation::Python => c.is_whitespace() || matches!(c, ',' | ']'),
        };
        let mut rest = self.text[self.call..].trim_start_matches(is_between);
        let (marks, end): (&[&str], &str) = match self.notation {
            Notation::Json => (&["{", "\"name\"", ":", "\""], "\""),
            Notation::Python => (&[], "("),
        };
        for mark in marks {
            rest = rest.trim_start();
            match rest.strip_prefix(mark) {
                Some(after) => rest = after,
                None if mark.starts_with(rest) => return Head::Partial,
                None => return Head::None,
            }
        }
        let heads = self.tools.iter().map(|tool| {
            let name = tool.name.as_str();
            match rest.strip_prefix(name) {
                Some(after) if after.starts_with(end) => Head::Whole,
                Some("") => Head::Partial,
                None if name.starts_with(rest) => Head::Partial,
                _ => Head::None,
            }
        });
        let heads: Vec<Head> = heads.collect();
        let found = [Head::Whole, Head::Partial].into_iter();
        let mut found = found.filter(|head| heads.contains(head));
        found.next().unwrap_or(Head::None)
    }

    /// Goes on to the end of the call at hand; false where the text ends before it.
    fn scan(&mut self) -> bool {
        let from = self.scanned.unwrap_or(self.call);
        for (at, c) in self.text[from..].char_indices() {
            match c {
                _ if self.is_escaped => self.is_escaped = false,
                '\\' if self.quote.is_some() => self.is_escaped = true,
                c if self.quote == Some(c) => self.quote = None,
                _ if self.quote.is_some() => {}
                '"' => self.quote = Some(c),
                '\'' if self.notation == Notation::Python => self.quote = Some(c),
                // The bracket around a list is none of the call's.
                '[' if self.depth == 0 => {}
                '{' | '[' | '(' => self.depth += 1,
                '}' | ']' | ')' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.call = from + at + 1;
                        self.scanned = None;
                        return true;
                    }
                }
                _ => {}
            }
        }
        self.scanned = Some(self.text.len());
        false
    }
}

/// Whether every object has a name, arguments, and nothing else: other JSON may have a name too.
fn has_arguments(text: &str) -> bool {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut objects = values.map(|value| match value {
        Ok(Value::Object(object)) => {
            object.len() == 2
                && (object.contains_key("arguments") || object.contains_key("parameters"))
        }
        _ => false,
    });
    objects.all(|is_call| is_call)
}
