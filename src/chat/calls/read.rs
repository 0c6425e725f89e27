//! Calls read back in a form that was read off a template: the way round of its grammar. Blanks count for nothing where
//! the form has markup.

use super::members::{KEY, Style, Texts};
use super::{Body, HOLE, Written};
use crate::chat::Tool;
use crate::chat::parser::{Call, declared, literal, member, typed_as};
use crate::chat::tool::Property;
use serde_json::{Map, Value};

impl Written {
    /// The calls of `body`, which began with the tag. Its end may be cut off behind the last call; none if anything
    /// else is in it.
    pub fn read(&self, body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
        let mut rest = eat(body, &self.before[self.tag.len()..])?;
        let mut calls = Vec::new();
        loop {
            let (call, after) = self.read_call(rest, tools)?;
            calls.push(call);
            if is_end(after, &self.after) {
                return Some(calls);
            }
            let between = self.between.as_deref()?;
            if is_end(after, between) {
                return Some(calls);
            }
            rest = eat(after, between)?;
        }
    }

    fn read_call<'t>(&self, text: &'t str, tools: &[Tool]) -> Option<(Call, &'t str)> {
        let (Body::Json {
            open,
            middle,
            close,
        }
        | Body::Members {
            open,
            middle,
            close,
            ..
        }) = &self.call;
        let rest = eat(text, open)?.trim_start();
        let (name, rest) = word(rest)?;
        let rest = eat(rest, middle)?;
        let (arguments, rest) = match &self.call {
            Body::Json { .. } => object(rest)?,
            Body::Members { style, .. } => style.read(rest, name, tools)?,
        };
        Some(((name.to_owned(), arguments), eat(rest, close)?))
    }
}

impl Style {
    /// The arguments that `text` begins with, and what follows them.
    fn read<'t>(
        &self,
        mut text: &'t str,
        tool: &str,
        tools: &[Tool],
    ) -> Option<(Map<String, Value>, &'t str)> {
        let mut arguments = Map::new();
        loop {
            let begun = match arguments.is_empty() {
                true => Some(text),
                false => eat(text, &self.between),
            };
            let Some((key, rest)) =
                begun.and_then(|text| word(eat(text, &self.open)?.trim_start()))
            else {
                return Some((arguments, text));
            };
            let (value, rest) = self.read_value(rest, tool, key, tools)?;
            arguments.insert(key.to_owned(), value);
            text = rest;
        }
    }

    /// What lies between an argument's name and the next one.
    fn read_value<'t>(
        &self,
        text: &'t str,
        tool: &str,
        key: &str,
        tools: &[Tool],
    ) -> Option<(Value, &'t str)> {
        let close = self.close_of(key);
        let rest = match &self.texts {
            Texts::BareAfter(middle) => eat(text, middle).or_else(|| eat(text, &self.middle))?,
            _ => eat(text, &self.middle)?,
        };
        match &self.texts {
            Texts::Json => {
                literal(rest).and_then(|(value, rest)| Some((value, eat(rest, &close)?)))
            }
            Texts::Between(mark) => {
                let (value, rest) = match rest.trim_start().strip_prefix(&**mark) {
                    Some(rest) => {
                        let (text, rest) = rest.split_once(&**mark)?;
                        (text.into(), rest)
                    }
                    None => literal(rest)?,
                };
                Some((value, eat(rest, &close)?))
            }
            Texts::Bare | Texts::BareAfter(_) => {
                let (value, rest) = self.bare(rest, key)?;
                let property = declared(tools, tool, key);
                let nested = property.and_then(|property| self.nested(value, Some(property), 0));
                Some((nested.unwrap_or_else(|| typed_as(value, property)), rest))
            }
        }
    }

    /// A value as it stands, up to what closes it, and what follows that.
    fn bare<'t>(&self, text: &'t str, key: &str) -> Option<(&'t str, &'t str)> {
        let close = self.close_of(key);
        let (mark, again) = (close.trim(), format!("{}{key}{}", self.open, self.middle));
        let mut end = text.find(mark)?;
        // Elements of the same name may stand within it.
        let mut n_open = text[..end].matches(&again).count();
        while n_open > 0 && self.close.contains(KEY) {
            let Some(next) = text[end + mark.len()..].find(mark) else {
                break;
            };
            let between = &text[end + mark.len()..end + mark.len() + next];
            n_open = n_open - 1 + between.matches(&again).count();
            end += mark.len() + next;
        }
        let (value, rest) = text.split_at(end);
        let blanks = &close[..close.len() - close.trim_start().len()];
        let value = value.strip_suffix(blanks).unwrap_or(value);
        Some((value, eat(rest, &close)?))
    }

    /// A list or an object whose items or members are written one by one like arguments, as MiniMax M3 does: items are
    /// called `item`. None where it is something else, or declared as something else.
    fn nested(&self, text: &str, property: Option<&Property>, depth: usize) -> Option<Value> {
        let types = property.map(Property::types).unwrap_or_default();
        let may_be = |kind: &str| types.is_empty() || types.iter().any(|known| known == kind);
        if depth == MAX_DEPTH || self.open.trim().is_empty() {
            return None;
        }
        let of_items = property.and_then(|property| property.items.as_ref());
        let of_items = of_items.and_then(|schema| Property::from_json(schema).ok());
        let of_members = property.and_then(|property| property.properties.as_deref());
        let (mut members, mut items) = (Map::new(), Vec::new());
        let mut rest = text;
        while members.is_empty() && items.is_empty() || !rest.trim().is_empty() {
            let (key, after) = word(eat(rest, &self.open)?)?;
            let (value, after) = self.bare(eat(after, &self.middle)?, key)?;
            let property = match key {
                "item" if may_be("array") => of_items.as_ref(),
                key => of_members.and_then(|known| member(known, key)),
            };
            let nested = self.nested(value, property, depth + 1);
            let value = nested.unwrap_or_else(|| typed_as(value, property));
            match key {
                "item" if may_be("array") => items.push(value),
                key => drop(members.insert(key.to_owned(), value)),
            }
            rest = after;
        }
        match (members.is_empty(), items.is_empty()) {
            (true, false) => Some(items.into()),
            (false, true) if may_be("object") => Some(members.into()),
            _ => None,
        }
    }
}

/// Deepest nesting of a value.
const MAX_DEPTH: usize = 64;

/// Characters of names of tools and arguments, and of what stands in a hole.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$')
}

fn word(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A JSON object and what follows it.
fn object(text: &str) -> Option<(Map<String, Value>, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let Value::Object(object) = values.next()?.ok()? else {
        return None;
    };
    Some((object, &text[values.byte_offset()..]))
}

/// What follows `pattern` in `text`.
fn eat<'t>(text: &'t str, pattern: &str) -> Option<&'t str> {
    match walk(text, pattern) {
        (rest, "") => Some(rest),
        _ => None,
    }
}

/// Whether `text` is no more than `pattern` or its beginning.
fn is_end(text: &str, pattern: &str) -> bool {
    walk(text, pattern).0.trim().is_empty()
}

/// What is left of both where they part. Blanks before markup match any; those at the pattern's end only themselves, since
/// a text may follow.
fn walk<'t, 'p>(mut text: &'t str, pattern: &'p str) -> (&'t str, &'p str) {
    let marks = pattern.trim_end();
    let mut left = marks.chars();
    loop {
        let before = left.as_str();
        let Some(mark) = left.next() else {
            for blank in pattern[marks.len()..].chars() {
                text = text.strip_prefix(blank).unwrap_or(text);
            }
            return (text, "");
        };
        if mark.is_whitespace() {
            continue;
        }
        let next = text.trim_start();
        let rest = match mark {
            HOLE => Some(next.trim_start_matches(|c| is_word(c) || c == HOLE)),
            mark => next.strip_prefix(mark),
        };
        match rest {
            Some(rest) => text = rest,
            None => return (text, before),
        }
    }
}
