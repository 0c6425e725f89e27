//! Tool calls between two tags, told from the content around them.

use super::bare::{BareCalls, Notation};
use super::{Call, Tool, ToolCall, bodies, formats::Format, thinking::partial_tag};
use crate::chat::calls::Inferred;
use std::sync::Arc;

/// Marks of the formats that are read without some of their tags.
const LENIENT: [&str; 3] = ["<seed:tool_call>", "<function=", "<arg_key>"];

/// How the text between the tags is read.
#[derive(Debug)]
enum Reader {
    Format(fn(&str, &[Tool]) -> Option<Vec<Call>>),
    Inferred(Arc<Inferred>),
}

/// Splits content from calls between the tags of a format.
#[derive(Debug)]
pub struct TaggedParser {
    open: String,
    close: String,
    reader: Reader,
    tools: Vec<Tool>,
    is_inside: bool,
    /// Whether blanks are to be dropped: a call has just ended.
    is_after_call: bool,
    held: String,
    /// The blanks before the last opening tag, which are content if no call follows a tag that is a word.
    blanks: String,
    n_calls: usize,
    /// The answer as long as it may be calls without tags.
    bare: Option<Box<BareCalls>>,
    /// Whether bodies are read that lack some of their tags, so that one that was cut off looks whole.
    is_lenient: bool,
}

impl TaggedParser {
    /// Of a known format.
    pub fn new(format: Format, tools: &[Tool]) -> TaggedParser {
        let reader = Reader::Format(format.read);
        TaggedParser {
            bare: Notation::of(format).map(|notation| Box::new(BareCalls::new(notation, tools))),
            is_lenient: LENIENT.contains(&format.mark),
            ..TaggedParser::of(format.open, format.close, reader, tools)
        }
    }

    /// Of the format that a template's own calls show.
    pub fn inferred(inferred: &Arc<Inferred>, tools: &[Tool]) -> TaggedParser {
        let reader = Reader::Inferred(inferred.clone());
        TaggedParser::of(inferred.open(), &inferred.close, reader, tools)
    }

    fn of(open: &str, close: &str, reader: Reader, tools: &[Tool]) -> TaggedParser {
        TaggedParser {
            open: open.into(),
            close: close.into(),
            reader,
            tools: tools.to_vec(),
            is_inside: false,
            is_after_call: false,
            held: String::new(),
            blanks: String::new(),
            n_calls: 0,
            bare: None,
            is_lenient: false,
        }
    }

    /// What begins the calls.
    pub fn open(&self) -> &str {
        &self.open
    }

    /// Takes a piece; returns complete calls and content.
    pub fn push(&mut self, piece: &str) -> (Vec<ToolCall>, String) {
        match &mut self.bare {
            None => self.held.push_str(piece),
            Some(bare) => match bare.push(piece) {
                None => return Default::default(),
                Some(text) => {
                    self.bare = None;
                    self.held = text;
                }
            },
        }
        let (mut calls, mut content) = (Vec::new(), String::new());
        loop {
            let goes_on = match self.is_inside {
                true => self.take_body(&mut calls, &mut content),
                false => self.take_content(&mut content),
            };
            if !goes_on {
                return (calls, content);
            }
        }
    }

    /// What was held back at the end. A body whose closing tag never came counts if it is complete.
    pub fn finish(&mut self) -> (Vec<ToolCall>, String) {
        let (mut calls, mut content) = match self.bare.take().map(|bare| bare.finish()) {
            None => Default::default(),
            Some(Ok(found)) => {
                let mut calls = Vec::new();
                self.give(found, &mut calls);
                return (calls, String::new());
            }
            Some(Err(text)) => self.push(&text),
        };
        let held = std::mem::take(&mut self.held);
        match self.is_inside {
            true if self.is_lenient && !self.is_whole(&held) => content.push_str(&held),
            true => self.read(&held, &mut calls, &mut content),
            false => content.push_str(&held),
        }
        (calls, content)
    }

    /// Content up to the opening tag, with the blanks before it held back.
    fn take_content(&mut self, content: &mut String) -> bool {
        if self.is_after_call {
            self.is_after_call = !self.is_past_noise();
        }
        if self.is_after_call {
            return false;
        }
        if let Some(at) = self.held.find(&self.open) {
            let before = &self.held[..at];
            content.push_str(before.trim_end());
            self.blanks = before[before.trim_end().len()..].to_string();
            self.held.drain(..at + self.open.len());
            self.is_inside = true;
            return true;
        }
        let decided = &self.held[..self.held.len() - partial_tag(&self.held, &self.open)];
        let n_decided = decided.trim_end().len();
        content.extend(self.held.drain(..n_decided));
        false
    }

    /// Drops blanks behind a call and tags that models repeat there; false when more text is needed.
    fn is_past_noise(&mut self) -> bool {
        let again = Some(self.close.as_str()).filter(|close| !self.open.starts_with(close));
        let noise: Vec<&str> = again.into_iter().chain(["<|tool_response>"]).collect();
        let mut rest = self.held.trim_start();
        while let Some(after) = noise.iter().find_map(|tag| rest.strip_prefix(tag)) {
            rest = after.trim_start();
        }
        self.held = rest.to_string();
        !noise.iter().any(|tag| tag.starts_with(&self.held))
    }

    /// Whether a body without its end is complete all the same: a declared tool with every argument that it requires.
    fn is_whole(&self, body: &str) -> bool {
        let Reader::Format(read) = &self.reader else {
            return true;
        };
        let calls = read(body.trim(), &self.tools).unwrap_or_default();
        let has_required = |(name, arguments): &Call| {
            let tool = self.tools.iter().find(|tool| tool.name == *name);
            let mut required = tool.into_iter().flat_map(|tool| &tool.parameters.required);
            tool.is_some() && required.all(|key| arguments.contains_key(key))
        };
        !bodies::is_cut(body) && calls.iter().all(has_required)
    }

    fn take_body(&mut self, calls: &mut Vec<ToolCall>, content: &mut String) -> bool {
        let found = (!self.close.is_empty()).then(|| self.held.find(&self.close));
        let Some(at) = found.flatten() else {
            return false;
        };
        let body = self.held[..at].to_string();
        self.held.drain(..at + self.close.len());
        self.read(&body, calls, content);
        self.is_inside = false;
        self.is_after_call = true;
        true
    }

    /// The calls of a body; one that is no call is given back as text, without its tags. A tag that is a word of the
    /// text stays.
    fn read(&mut self, body: &str, calls: &mut Vec<ToolCall>, content: &mut String) {
        let found = match &self.reader {
            Reader::Format(read) => read(body.trim(), &self.tools),
            Reader::Inferred(form) => form.written.read(body.trim(), &self.tools),
        };
        let found = found.unwrap_or_default();
        if found.is_empty() {
            if !self.open.starts_with(['<', '[']) {
                content.push_str(&self.blanks);
                content.push_str(&self.open);
            }
            content.push_str(body);
        }
        self.give(found, calls);
    }

    fn give(&mut self, found: Vec<Call>, calls: &mut Vec<ToolCall>) {
        for (name, arguments) in found {
            calls.push(ToolCall {
                id: String::new(),
                index: self.n_calls,
                name,
                arguments,
            });
            self.n_calls += 1;
        }
    }
}
