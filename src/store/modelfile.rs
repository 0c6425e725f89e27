//! Modelfiles: reading one into a create request, and writing one.
//!
//! The command line reads them; the server only writes them, for `/api/show`.

use super::parameters::{Parameter, parse_parameter};
use crate::api::{CreateRequest, Message};
use serde_json::Value;
use std::fmt::{self, Write as _};

/// Why a Modelfile cannot be used; texts are Ollama's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An unknown instruction, or one without a value.
    #[error(
        "(line {line}): command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", \"draft\", \"renderer\", \"parser\", \"parameter\", \"message\", or \"requires\""
    )]
    Command { line: usize },
    #[error("(line {line}): message role must be one of \"system\", \"user\", or \"assistant\"")]
    Role { line: usize },
    /// The file ends inside a word or an open quote.
    #[error("unexpected EOF")]
    UnexpectedEnd,
    /// A parameter's name or a message's role breaks off.
    #[error("unexpected EOF: {0}")]
    Broken(String),
    #[error("no FROM line")]
    NoFrom,
    #[error("unknown parameter '{0}'")]
    UnknownParameter(String),
    #[error("invalid {kind} value [{value}]")]
    InvalidValue { kind: &'static str, value: String },
    #[error("requires must be a valid semver (e.g. 0.14.0)")]
    Requires,
    #[error("a Modelfile must be UTF-8, or UTF-16 with a byte order mark")]
    Encoding,
}

/// One instruction with its value, unquoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A model's name, or a path to weights; empty means the Modelfile's folder.
    From(String),
    Adapter(String),
    Draft(String),
    Template(String),
    System(String),
    Renderer(String),
    Parser(String),
    Requires(String),
    License(String),
    Parameter {
        key: String,
        value: String,
    },
    Message {
        role: String,
        content: String,
    },
}

/// What a Modelfile asks for, with the local paths still to be resolved.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Names or paths after FROM, in order; at least one.
    pub from: Vec<String>,
    /// Path of the last ADAPTER.
    pub adapter: Option<String>,
    /// Paths after DRAFT.
    pub draft: Vec<String>,
    /// Everything else; model, `from` and the files are for the caller to fill.
    pub request: CreateRequest,
    /// Parameters that are ignored, to be warned of.
    pub deprecated: Vec<String>,
}

/// Reads a Modelfile into its commands, in order.
pub fn parse(bytes: &[u8]) -> Result<Vec<Command>, Error> {
    let text = decode(bytes)?;
    let mut reader = Reader {
        rest: &text,
        line: 1,
    };
    let mut commands = Vec::new();
    while let Some(command) = reader.command()? {
        commands.push(command);
    }
    if !commands
        .iter()
        .any(|command| matches!(command, Command::From(_)))
    {
        return Err(Error::NoFrom);
    }
    Ok(commands)
}

/// Turns commands into a request: licenses, messages and stop strings add up, of the others the last one counts.
pub fn plan(commands: Vec<Command>) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    for command in commands {
        let request = &mut plan.request;
        match command {
            Command::From(source) => plan.from.push(source),
            Command::Adapter(path) => plan.adapter = Some(path),
            Command::Draft(path) => plan.draft.push(path),
            Command::Template(text) => request.template = text,
            Command::System(text) => request.system = text,
            Command::Renderer(name) => request.renderer = name,
            Command::Parser(name) => request.parser = name,
            Command::Requires(version) if is_version(&version) => request.requires = version,
            Command::Requires(_) => return Err(Error::Requires),
            Command::License(text) => request.license.0.push(text),
            Command::Message { role, content } => {
                request.messages.push(Message {
                    role,
                    content,
                    ..Message::default()
                });
            }
            Command::Parameter { key, value } => match parse_parameter(&key, &value)? {
                Parameter::Deprecated => plan.deprecated.push(key),
                Parameter::Single(value) => {
                    request.parameters.insert(key, value);
                }
                Parameter::Item(item) => {
                    let list = request
                        .parameters
                        .entry(key)
                        .or_insert_with(|| Value::Array(vec![]));
                    if let Value::Array(items) = list {
                        items.push(Value::String(item));
                    }
                }
            },
        }
    }
    Ok(plan)
}

/// As a line of a Modelfile, quoted so that it reads back.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::From(source) => write!(f, "FROM {source}"),
            Command::Adapter(path) => write!(f, "ADAPTER {}", quote(path)),
            Command::Draft(path) => write!(f, "DRAFT {}", quote(path)),
            Command::Template(text) => write!(f, "TEMPLATE {}", quote(text)),
            Command::System(text) => write!(f, "SYSTEM {}", quote(text)),
            Command::Renderer(name) => write!(f, "RENDERER {}", quote(name)),
            Command::Parser(name) => write!(f, "PARSER {}", quote(name)),
            Command::Requires(version) => write!(f, "REQUIRES {}", quote(version)),
            Command::License(text) => write!(f, "LICENSE {}", quote(text)),
            Command::Parameter { key, value } => write!(f, "PARAMETER {key} {}", quote(value)),
            Command::Message { role, content } => write!(f, "MESSAGE {role} {}", quote(content)),
        }
    }
}

/// Commands as the text of a Modelfile.
pub fn render(commands: &[Command]) -> String {
    commands.iter().fold(String::new(), |mut text, command| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{command}");
        text
    })
}

/// Quotes what would not read back bare: line breaks, blanks or quotes at an end.
fn quote(text: &str) -> String {
    let bare = text.trim() == text && !text.starts_with('"') && !text.ends_with('"');
    if bare && !text.contains(['\n', '\r']) {
        text.to_owned()
    } else if text.contains('"') {
        format!("\"\"\"{text}\"\"\"")
    } else {
        format!("\"{text}\"")
    }
}

/// The value without quotes around the whole of it; `None` while a quote is open.
fn unquote(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("\"\"\"") {
        rest.strip_suffix("\"\"\"")
    } else if let Some(rest) = text.strip_prefix('"') {
        rest.strip_suffix('"')
    } else {
        Some(text)
    }
}

fn decode(bytes: &[u8]) -> Result<String, Error> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        let text = String::from_utf16(&units).ok();
        text.filter(|_| rest.is_empty()).ok_or(Error::Encoding)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            String::from_utf8(bytes.to_vec()).map_err(|_| Error::Encoding)
        }
    }
}

/// A semantic version, `v` in front optional, minor and patch optional unless more follows.
fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (text, build) = text
        .split_once('+')
        .map_or((text, None), |(t, b)| (t, Some(b)));
    let (core, pre) = text
        .split_once('-')
        .map_or((text, None), |(t, p)| (t, Some(p)));
    let numbers: Vec<&str> = core.split('.').collect();
    let identifiers = |text: Option<&str>, numeric_ok: fn(&str) -> bool| {
        text.is_none_or(|text| {
            text.split('.')
                .all(|id| is_identifier(id) && numeric_ok(id))
        })
    };
    let no_leading_zero = |id: &str| !id.bytes().all(|b| b.is_ascii_digit()) || is_number(id);
    numbers.len() <= 3
        && numbers.iter().all(|n| is_number(n))
        && (numbers.len() == 3 || (pre.is_none() && build.is_none()))
        && identifiers(pre, no_leading_zero)
        && identifiers(build, |_| true)
}

fn is_number(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Walks the text; `line` counts from 1, and every `\n` and every `\r` begins a new one, as in Ollama.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if is_newline(c) {
            self.line += 1;
        }
        Some(c)
    }

    /// The next command; `None` at the end of the file.
    fn command(&mut self) -> Result<Option<Command>, Error> {
        self.skip_blank_lines_and_comments();
        let Some(first) = self.next() else {
            return Ok(None);
        };
        let mut name = String::from(first.to_ascii_lowercase());
        loop {
            match self.next() {
                None => return Err(Error::UnexpectedEnd),
                Some(c) if is_blank(c) => break,
                Some(c) if c.is_ascii_alphabetic() => name.push(c.to_ascii_lowercase()),
                Some(_) => return Err(Error::Command { line: self.line }),
            }
        }
        let command = match name.as_str() {
            "from" => Command::From(self.value()?),
            "adapter" => Command::Adapter(self.value()?),
            "draft" => Command::Draft(self.value()?),
            "template" => Command::Template(self.value()?),
            "system" => Command::System(self.value()?),
            "renderer" => Command::Renderer(self.value()?),
            "parser" => Command::Parser(self.value()?),
            "requires" => Command::Requires(self.value()?),
            "license" => Command::License(self.value()?),
            "parameter" => {
                let key = self.word(|c| c.is_ascii_alphanumeric() || c == '_')?;
                Command::Parameter {
                    key,
                    value: self.value()?,
                }
            }
            "message" => {
                let role = self.word(|c| c.is_ascii_alphabetic())?;
                if !matches!(role.as_str(), "system" | "user" | "assistant") {
                    return Err(Error::Role { line: self.line });
                }
                Command::Message {
                    role,
                    content: self.value()?,
                }
            }
            _ => return Err(Error::Command { line: self.line }),
        };
        Ok(Some(command))
    }

    fn skip_blank_lines_and_comments(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                while self.next().is_some_and(|c| !is_newline(c)) {}
            } else if is_blank(c) || is_newline(c) {
                self.next();
            } else {
                return;
            }
        }
    }

    /// A parameter's key or a message's role: the blanks before it, the word, and the blank that ends it.
    fn word(&mut self, allowed: fn(char) -> bool) -> Result<String, Error> {
        while self.peek().is_some_and(is_blank) {
            self.next();
        }
        let mut word = String::new();
        loop {
            match self.next() {
                None => return Err(Error::UnexpectedEnd),
                Some(c) if is_blank(c) => return Ok(word),
                Some(c) if allowed(c) => word.push(c),
                Some(_) => return Err(Error::Broken(word)),
            }
        }
    }

    /// The rest of the line, or of as many lines as a quote spans.
    fn value(&mut self) -> Result<String, Error> {
        let mut value = String::new();
        loop {
            match self.next() {
                Some('\0') => {}
                Some(c) if !is_newline(c) => value.push(c),
                end => {
                    if let Some(text) = unquote(value.trim()) {
                        return Ok(text.to_owned());
                    }
                    value.push(end.ok_or(Error::UnexpectedEnd)?);
                }
            }
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

#[cfg(test)]
mod tests;
