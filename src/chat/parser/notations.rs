//! Calls whose arguments are in a notation of their own: Python's, and that of Gemma's models.

use super::{Tool, bodies::Call};
use serde_json::{Map, Value};

/// Deepest nesting of a value.
const MAX_DEPTH: usize = 64;

/// `[f(a="x", b=1), g()]` in Python's notation, or one call a line without brackets.
pub fn python_calls(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    let mut reader = Python { rest: body };
    let is_list = reader.take('[');
    let mut calls = Vec::new();
    // A list that was cut off counts as far as it goes.
    while !(reader.rest.trim().is_empty() || (is_list && reader.take(']'))) {
        calls.push(reader.call()?);
        reader.take(',');
    }
    reader.rest.trim().is_empty().then_some(calls)
}

/// The literal that `text` begins with, in Python's notation or as JSON, and what follows it.
pub fn literal(text: &str) -> Option<(Value, &str)> {
    let mut reader = Python { rest: text };
    Some((reader.value(0)?, reader.rest))
}

/// FunctionGemma's: [`bare_key_call`] with `<escape>` around texts.
pub fn escaped_calls(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    bare_key_call(body, "<escape>", tools)
}

/// Gemma 4's: [`bare_key_call`] with `<|"|>` around texts.
pub fn quoted_calls(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    bare_key_call(body, "<|\"|>", tools)
}

/// `call:NAME{KEY:VALUE,...}` with bare keys and texts between two marks `quote`.
fn bare_key_call(body: &str, quote: &'static str, tools: &[Tool]) -> Option<Vec<Call>> {
    let (name, arguments) = body.strip_prefix("call:")?.split_once('{')?;
    let mut reader = BareKeys {
        rest: arguments,
        quote,
        keys: keys_of(tools, name.trim()),
    };
    let arguments = reader.members(0)?;
    reader
        .rest
        .trim()
        .is_empty()
        .then(|| vec![(name.trim().to_string(), arguments)])
}

/// Reads the values of Gemma's calls.
struct BareKeys<'t> {
    rest: &'t str,
    /// Around texts.
    quote: &'static str,
    /// The arguments that the tool declares.
    keys: Vec<String>,
}

fn keys_of(tools: &[Tool], name: &str) -> Vec<String> {
    let tool = tools.iter().find(|tool| tool.name == name);
    let properties = tool.and_then(|tool| tool.parameters.properties.as_ref());
    let names = properties.into_iter().flatten().map(|(key, _)| key.clone());
    names.collect()
}

impl BareKeys<'_> {
    /// Takes text up to one of the marks; the mark stays.
    fn until(&mut self, marks: &[char]) -> Option<String> {
        let end = self.rest.find(marks)?;
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(taken.trim().to_string())
    }

    fn take(&mut self, mark: &str) -> bool {
        let found = self.rest.trim_start().strip_prefix(mark);
        if let Some(rest) = found {
            self.rest = rest;
        }
        found.is_some()
    }

    /// A text after its opening mark, and the closing one. Where that is missing, the text ends before the next argument
    /// that the tool declares, or with the call.
    fn text(&mut self) -> Option<String> {
        if let Some((text, rest)) = self.rest.split_once(self.quote) {
            self.rest = rest;
            return Some(text.to_string());
        }
        let next = self.keys.iter();
        let next = next.filter_map(|key| self.rest.find(&format!(",{key}:")));
        let end = next.min().or_else(|| self.rest.rfind('}'))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(text.to_string())
    }

    /// Members after the opening brace, and the closing one.
    fn members(&mut self, depth: usize) -> Option<Map<String, Value>> {
        let mut out = Map::new();
        while !self.take("}") {
            let key = match self.take(self.quote) {
                true => self.text()?,
                false => self.until(&[':', '}'])?,
            };
            self.take(":").then_some(())?;
            out.insert(key, self.value(depth + 1)?);
            self.take(",");
        }
        Some(out)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.take(self.quote) {
            return self.text().map(Value::String);
        }
        if self.take("{") {
            return self.members(depth).map(Value::Object);
        }
        if self.take("[") {
            let mut items = Vec::new();
            while !self.take("]") {
                items.push(self.value(depth + 1)?);
                self.take(",");
            }
            return Some(items.into());
        }
        let bare = self.until(&[',', '}', ']'])?;
        serde_json::from_str(&bare).ok()
    }
}

/// Reads Python's literals.
struct Python<'t> {
    rest: &'t str,
}

impl Python<'_> {
    /// Takes a character if it is next, blanks aside.
    fn take(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let is_part = |c: char| c.is_alphanumeric() || "_.-+".contains(c);
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_string())
    }

    fn call(&mut self) -> Option<Call> {
        let name = self.word()?;
        let mut arguments = Map::new();
        self.take('(').then_some(())?;
        while !self.take(')') {
            let key = self.word()?;
            self.take('=').then_some(())?;
            arguments.insert(key, self.value(0)?);
            if !self.take(',') && !self.rest.trim_start().starts_with(')') {
                return None;
            }
        }
        Some((name, arguments))
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth == MAX_DEPTH {
            return None;
        }
        self.rest = self.rest.trim_start();
        match self.rest.chars().next()? {
            quote @ ('"' | '\'') => self.string(quote).map(Value::String),
            '[' => self.list(depth),
            '{' => self.dict(depth),
            _ => match self.word()?.as_str() {
                "True" | "true" => Some(true.into()),
                "False" | "false" => Some(false.into()),
                "None" | "null" => Some(Value::Null),
                number => serde_json::from_str(number).ok(),
            },
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        self.take('[');
        let mut items = Vec::new();
        while !self.take(']') {
            items.push(self.value(depth + 1)?);
            if !self.take(',') && !self.rest.trim_start().starts_with(']') {
                return None;
            }
        }
        Some(items.into())
    }

    fn dict(&mut self, depth: usize) -> Option<Value> {
        self.take('{');
        let mut members = Map::new();
        while !self.take('}') {
            let Value::String(key) = self.value(depth + 1)? else {
                return None;
            };
            self.take(':').then_some(())?;
            members.insert(key, self.value(depth + 1)?);
            if !self.take(',') && !self.rest.trim_start().starts_with('}') {
                return None;
            }
        }
        Some(members.into())
    }

    fn string(&mut self, quote: char) -> Option<String> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Some(out);
                }
                '\\' => out.push(match chars.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'u' => code_point(&mut chars)?,
                    other => other,
                }),
                c => out.push(c),
            }
        }
        None
    }
}

/// The character of `\uXXXX`, or of two of them that are a surrogate pair, after its first `u`.
fn code_point(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let high = code_unit(chars)?;
    if let Some(c) = char::from_u32(high) {
        return Some(c);
    }
    (chars.next()?.1 == '\\' && chars.next()?.1 == 'u').then_some(())?;
    let low = code_unit(chars)?;
    char::decode_utf16([high as u16, low as u16]).next()?.ok()
}

fn code_unit(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<u32> {
    let digit = |_| chars.next()?.1.to_digit(16);
    (0..4)
        .map(digit)
        .try_fold(0, |unit, digit| Some(unit << 4 | digit?))
}
