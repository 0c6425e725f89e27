//! Arguments that are written one by one, as in `f(city="Paris")` or `<parameter=city>Paris</parameter>`.

use super::{Callable, quoted};
use crate::chat::Error;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt::Write as _;

/// How one argument is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Before the argument's name.
    pub open: Cow<'static, str>,
    /// Between name and value.
    pub middle: Cow<'static, str>,
    /// After the value; [`KEY`] in it is the argument's name.
    pub close: Cow<'static, str>,
    /// Between two arguments.
    pub between: Cow<'static, str>,
    pub texts: Texts,
}

/// The argument's name in [`Style::close`].
pub const KEY: char = '\u{1}';

/// How a string is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Texts {
    /// As JSON, like every other value.
    Json,
    /// As it is, up to what follows the value.
    Bare,
    /// The same, after this in place of `middle`.
    BareAfter(Cow<'static, str>),
    /// As it is, between two of these; lists and objects cannot be written then.
    Between(Cow<'static, str>),
}

/// Keywords that restrict a string; what stands as it is cannot be held to them.
const TEXT_KEYWORDS: [&str; 5] = ["pattern", "format", "minLength", "maxLength", "const"];

type Literal<'l> = dyn Fn(&str) -> String + 'l;

impl Style {
    /// The rule `args_<index>` and those it needs.
    ///
    /// # Errors
    /// [`Error::Tool`] names an argument that this style cannot hold.
    pub fn grammar(
        &self,
        index: usize,
        tool: &Callable,
        literal: &Literal,
    ) -> Result<String, Error> {
        let none = Map::new();
        let properties = tool.schema.get("properties").and_then(Value::as_object);
        let properties = properties.unwrap_or(&none);
        let required: Vec<&str> = match tool.schema.get("required").and_then(Value::as_array) {
            Some(names) => names.iter().filter_map(Value::as_str).collect(),
            None => Vec::new(),
        };
        if let Some(unknown) = required
            .iter()
            .find(|name| !properties.contains_key(**name))
        {
            return Err(refused(tool, unknown, "is required without a schema"));
        }
        let mut lark = String::new();
        for (at, (name, schema)) in properties.iter().enumerate() {
            let value = format!("value_{index}_{at}");
            let (rule, tail, is_text) = self.value(tool, name, schema, &value, literal)?;
            let middle = match &self.texts {
                Texts::BareAfter(middle) if is_text => middle,
                _ => &self.middle,
            };
            let head = literal(&format!("{}{name}{middle}", self.open));
            lark += &rule;
            let _ = writeln!(lark, "arg_{index}_{at}: {head} {value} {tail}");
        }
        // `first` comes where no argument stands before, `more` after one.
        let n = properties.len();
        let between = match &*self.between {
            "" => String::new(),
            between => literal(between) + " ",
        };
        for (at, name) in properties.keys().enumerate() {
            let (first, more, next) = (rule("first", index, at), rule("more", index, at), at + 1);
            let skip = |kind: &str| match required.contains(&name.as_str()) {
                true => String::new(),
                false => format!(" | {}", rule(kind, index, next)),
            };
            let after = rule("more", index, next);
            let _ = writeln!(lark, "{first}: arg_{index}_{at} {after}{}", skip("first"));
            let _ = writeln!(
                lark,
                "{more}: {between}arg_{index}_{at} {after}{}",
                skip("more")
            );
        }
        let _ = writeln!(lark, "{}: \"\"", rule("first", index, n));
        let _ = writeln!(lark, "{}: \"\"", rule("more", index, n));
        let _ = writeln!(lark, "args_{index}: {}", rule("first", index, 0));
        Ok(lark)
    }

    /// The rule of one value, what follows it, and whether it is a text as it stands.
    fn value(
        &self,
        tool: &Callable,
        name: &str,
        schema: &Value,
        rule: &str,
        literal: &Literal,
    ) -> Result<(String, String, bool), Error> {
        let written_close = self.close_of(name);
        let close = literal(&written_close);
        let json = |schema: &Value| format!("{rule}: %json {}\n", in_context(schema, &tool.schema));
        let (before, after) = match &self.texts {
            Texts::Json => return Ok((json(schema), close, false)),
            Texts::Bare | Texts::BareAfter(_) => ("", written_close.as_str()),
            Texts::Between(mark) => (&**mark, &**mark),
        };
        let types = types(schema);
        if types.is_empty() || !types.contains(&"string") {
            return match (types.as_slice(), &self.texts, string_choices(schema)) {
                ([], _, Some(choices)) => Ok((
                    one_of(rule, before, &choices, after, literal),
                    self.after_text(name, literal),
                    true,
                )),
                ([], ..) => Err(refused(tool, name, "declares no type")),
                (types, Texts::Between(_), _)
                    if types.contains(&"object") || types.contains(&"array") =>
                {
                    Err(refused(tool, name, "is a list or an object"))
                }
                _ => Ok((json(schema), close, false)),
            };
        }
        if let Some(keyword) = TEXT_KEYWORDS.iter().find(|k| schema.get(**k).is_some()) {
            return Err(refused(tool, name, &format!("has the keyword {keyword:?}")));
        }
        if types.iter().any(|t| !matches!(*t, "string" | "null")) {
            return Err(refused(tool, name, "is a string or something else"));
        }
        let text = match string_choices(schema) {
            Some(choices) => one_of(rule, before, &choices, after, literal),
            None if schema.get("enum").is_some() => {
                return Err(refused(
                    tool,
                    name,
                    "has an enum of other values than strings",
                ));
            }
            None => self.free(rule, before, after, literal),
        };
        Ok((text, self.after_text(name, literal), true))
    }

    /// What follows a text, whose own rule ends with the mark after it.
    fn after_text(&self, name: &str, literal: &Literal) -> String {
        match self.texts {
            Texts::Between(_) => literal(&self.close_of(name)),
            _ => "\"\"".into(),
        }
    }

    /// What follows the value of the argument `name`.
    pub fn close_of(&self, name: &str) -> String {
        self.close.replace(KEY, name)
    }

    /// Any text up to `after`, which must not look like markup of the call itself.
    fn free(&self, rule: &str, before: &str, after: &str, literal: &Literal) -> String {
        let end = literal(after);
        let before = literal(before);
        let inner = format!("{rule}_text");
        // A mark that is a control token ends the text by itself.
        if end.starts_with("<[") {
            return format!(
                "{rule}: {before} {inner}? {end}\n{inner}: TEXT_{rule}\nTEXT_{rule}: /(?s:.+)/\n"
            );
        }
        // A control token within the mark follows a text that ends with what comes before it.
        let (end, more) = end.split_once(" <[").unwrap_or((&end, ""));
        let more = match more {
            "" => String::new(),
            more => format!(" <[{more}"),
        };
        format!("{rule}: {before} {inner}{more}\n{inner}[suffix={end}]: /([^<]|<[^\\/fpa<])*/\n")
    }

    /// Arguments in this style, as the grammar allows them.
    pub fn text(&self, arguments: &Map<String, Value>) -> String {
        let one = |(name, value): (&String, &Value)| {
            let (middle, value) = match (&self.texts, value) {
                (Texts::Bare, Value::String(text)) => (&self.middle, text.clone()),
                (Texts::BareAfter(middle), Value::String(text)) => (middle, text.clone()),
                (Texts::Between(mark), Value::String(text)) => {
                    (&self.middle, format!("{mark}{text}{mark}"))
                }
                (_, value) => (&self.middle, value.to_string()),
            };
            let close = self.close_of(name);
            format!("{}{name}{middle}{value}{close}", self.open)
        };
        let all: Vec<String> = arguments.iter().map(one).collect();
        all.join(&self.between)
    }
}

fn rule(kind: &str, index: usize, at: usize) -> String {
    format!("{kind}_{index}_{at}")
}

/// The texts of an `enum` of strings.
fn string_choices(schema: &Value) -> Option<Vec<&str>> {
    let choices = schema.get("enum")?.as_array()?;
    choices.iter().map(Value::as_str).collect()
}

fn one_of(rule: &str, before: &str, choices: &[&str], after: &str, literal: &Literal) -> String {
    let texts: Vec<String> = choices
        .iter()
        .map(|choice| literal(&format!("{before}{choice}{after}")))
        .collect();
    format!("{rule}: {}\n", texts.join(" | "))
}

/// The declared types: one, or the members of a list.
fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A property's schema with the definitions that its references lead to.
fn in_context(schema: &Value, whole: &Value) -> Value {
    let mut schema = match schema {
        Value::Object(members) => members.clone(),
        _ => Map::from_iter([("allOf".to_owned(), json!([schema]))]),
    };
    for key in ["$defs", "definitions", "x-guidance"] {
        if let Some(value) = whole.get(key) {
            schema.entry(key).or_insert_with(|| value.clone());
        }
    }
    Value::Object(schema)
}

fn refused(tool: &Callable, name: &str, why: &str) -> Error {
    Error::Tool(format!(
        "argument {} of tool {} {why}: this model's format of tool calls cannot be held to that",
        quoted(name),
        quoted(&tool.name)
    ))
}
