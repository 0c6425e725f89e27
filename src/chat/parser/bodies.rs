//! What stands between the tags of a tool call, format by format.

use super::{Tool, generic::as_arguments};
use crate::chat::tool::Property;
use serde_json::{Map, Value};

/// Deepest nesting of a value in Python's notation.
const MAX_DEPTH: usize = 64;

/// A tool's name and its arguments.
pub type Call = (String, Map<String, Value>);

/// `{"name", "arguments"}`, or an array of such objects.
pub fn json_calls(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    match serde_json::from_str(body).ok()? {
        Value::Array(items) => items.iter().map(json_call).collect(),
        object => json_call(&object).map(|call| vec![call]),
    }
}

fn json_call(object: &Value) -> Option<Call> {
    let name = object
        .get("name")
        .or_else(|| object.get("tool_name"))?
        .as_str()?
        .to_string();
    let arguments = ["arguments", "parameters"]
        .iter()
        .find_map(|key| object.get(*key));
    match arguments {
        None | Some(Value::Null) => Some((name, Map::new())),
        Some(arguments) => Some((name, as_arguments(arguments)?)),
    }
}

/// An array of JSON calls, or `NAME[ARGS]{...}`, each one after its own tag.
pub fn mistral_calls(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    if body.starts_with(['[', '{']) {
        // A model may go on with text after the array.
        let first = serde_json::Deserializer::from_str(body)
            .into_iter::<Value>()
            .next()?
            .ok()?;
        return json_calls(&first.to_string(), tools);
    }
    body.split("[TOOL_CALLS]")
        .map(|call| {
            let (name, arguments) = call.split_once("[ARGS]")?;
            let name = name.split("[CALL_ID]").next()?.trim().to_string();
            Some((
                name,
                as_arguments(&Value::String(arguments.trim().to_string()))?,
            ))
        })
        .collect()
}

/// `<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜>`, with the older
/// `function<｜tool▁sep｜>NAME` and a fenced block.
pub fn deepseek_calls(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    let calls = body
        .split("<｜tool▁call▁begin｜>")
        .filter(|call| !call.trim().is_empty());
    calls
        .map(|call| {
            let call = call.split("<｜tool▁call▁end｜>").next()?;
            let (first, second) = call.split_once("<｜tool▁sep｜>")?;
            let (name, arguments) = match first.trim() {
                "function" => second.split_once('\n')?,
                name => (name, second),
            };
            let arguments = arguments
                .trim()
                .trim_start_matches("```json")
                .trim_matches('`');
            let arguments = as_arguments(&Value::String(arguments.trim().to_string()))?;
            Some((name.trim().to_string(), arguments))
        })
        .collect()
}

/// `<function=NAME><parameter=KEY>VALUE</parameter></function>`.
pub fn xml_functions(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let (_, rest) = body.split_once("<function=")?;
    rest.split("<function=")
        .map(|function| xml_function(function, tools))
        .collect()
}

fn xml_function(text: &str, tools: &[Tool]) -> Option<Call> {
    let (name, body) = text.split_once('>')?;
    let name = name.trim().to_string();
    let body = body.split("</function>").next()?;
    let mut arguments = Map::new();
    for parameter in body.split("<parameter=").skip(1) {
        let (key, value) = parameter.split_once('>')?;
        let value = value
            .rsplit_once("</parameter>")
            .map_or(value, |(value, _)| value);
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let value = typed(value, &declared_types(tools, &name, key.trim()));
        arguments.insert(key.trim().to_string(), value);
    }
    Some((name, arguments))
}

/// `NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>`.
pub fn key_value_pairs(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let mut parts = body.split("<arg_key>");
    let name = parts.next()?.trim().to_string();
    let mut arguments = Map::new();
    for pair in parts {
        let (key, value) = pair.split_once("</arg_key>")?;
        let value = value.split_once("<arg_value>")?.1;
        let value = value
            .rsplit_once("</arg_value>")
            .map_or(value, |(value, _)| value);
        let value = typed(value, &declared_types(tools, &name, key.trim()));
        arguments.insert(key.trim().to_string(), value);
    }
    (!name.is_empty()).then(|| vec![(name, arguments)])
}

/// `<invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>`, one or several.
pub fn invocations(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let mut calls = Vec::new();
    let mut rest = body;
    while let Some(invocation) = rest.strip_prefix("<invoke name=\"") {
        let (name, mut inside) = invocation.split_once("\">")?;
        let mut arguments = Map::new();
        loop {
            inside = inside.trim_start();
            let Some(parameter) = inside.strip_prefix("<parameter name=\"") else {
                break;
            };
            let (key, value) = parameter.split_once("\">")?;
            let (value, after) = value.split_once("</parameter>")?;
            let value = typed(value, &declared_types(tools, name, key));
            arguments.insert(key.to_string(), value);
            inside = after;
        }
        calls.push((name.to_string(), arguments));
        rest = inside.strip_prefix("</invoke>")?.trim_start();
    }
    rest.is_empty().then_some(calls)
}

/// `<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{...}<|tool_call_end|>`.
pub fn kimi_calls(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    let calls = body
        .split("<|tool_call_begin|>")
        .filter(|call| !call.trim().is_empty());
    calls
        .map(|call| {
            let call = call.split("<|tool_call_end|>").next()?;
            let (id, arguments) = call.split_once("<|tool_call_argument_begin|>")?;
            let id = id.trim();
            let name = id.rsplit_once(':').map_or(id, |(name, _)| name);
            let name = name.strip_prefix("functions.").unwrap_or(name);
            let arguments = as_arguments(&Value::String(arguments.trim().to_string()))?;
            Some((name.to_string(), arguments))
        })
        .collect()
}

/// The types that a tool declares for an argument, members of unions included.
fn declared_types(tools: &[Tool], name: &str, key: &str) -> Vec<String> {
    fn types(property: &Property) -> Vec<String> {
        let inner = property.any_of.iter().flat_map(types);
        property.kind.iter().cloned().chain(inner).collect()
    }
    let tool = tools.iter().find(|tool| tool.name == name);
    let properties = tool.and_then(|tool| tool.parameters.properties.as_ref());
    let property = properties.and_then(|known| known.iter().find(|(known, _)| known == key));
    property
        .map(|(_, property)| types(property))
        .unwrap_or_default()
}

/// A value written without quotes, as the first of its declared types that it fits; a string else.
fn typed(text: &str, types: &[String]) -> Value {
    let has = |name: &str| types.iter().any(|known| known == name);
    let trimmed = text.trim();
    if !types.is_empty() && trimmed.eq_ignore_ascii_case("null") {
        return Value::Null;
    }
    if has("boolean") {
        match trimmed.to_ascii_lowercase().as_str() {
            "true" => return true.into(),
            "false" => return false.into(),
            _ if types.len() == 1 => return false.into(),
            _ => {}
        }
    }
    let json = serde_json::from_str::<Value>(trimmed).ok();
    let fits = |value: &Value| match value {
        Value::Number(n) => (has("integer") && n.as_i64().is_some()) || has("number"),
        Value::Array(_) => has("array"),
        Value::Object(_) => has("object"),
        _ => false,
    };
    json.filter(fits).unwrap_or_else(|| text.into())
}

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

/// FunctionGemma's: [`bare_key_call`] with `<escape>` around texts.
pub fn escaped_calls(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    bare_key_call(body, "<escape>")
}

/// Gemma 4's: [`bare_key_call`] with `<|"|>` around texts.
pub fn quoted_calls(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    bare_key_call(body, "<|\"|>")
}

/// `call:NAME{KEY:VALUE,...}` with bare keys and texts between two marks `quote`.
fn bare_key_call(body: &str, quote: &'static str) -> Option<Vec<Call>> {
    let (name, arguments) = body.strip_prefix("call:")?.split_once('{')?;
    let mut reader = BareKeys {
        rest: arguments,
        quote,
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

    /// A text after its opening mark, and the closing one.
    fn text(&mut self) -> Option<String> {
        let (text, rest) = self.rest.split_once(self.quote)?;
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
