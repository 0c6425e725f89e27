//! The values that a Go template works on, and how Go prints them.

use crate::chat::go_json;
use std::{collections::BTreeMap, fmt::Write, sync::Arc};

/// A value; cheap to clone.
#[derive(Debug, Clone)]
pub enum Value {
    /// What an absent key of a map gives, and every field of that: prints `<no value>`.
    Missing,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    List(Arc<List>),
    Map(Arc<Map>),
    Record(Arc<Record>),
}

/// How a value of a composite type prints: whether its Go type has a text form of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As `%v` prints any list, map or struct.
    Plain,
    /// As JSON.
    Json,
    /// A map that is absent: `{}` where it is printed, null inside JSON.
    Absent,
    /// A list of one as its item, in JSON too, and an empty one as nothing: a property's type.
    Single,
}

/// A list.
#[derive(Debug)]
pub struct List {
    pub items: Vec<Value>,
    pub form: Form,
}

/// A map, in the order that Go ranges over it.
#[derive(Debug)]
pub struct Map {
    pub entries: BTreeMap<String, Value>,
    pub form: Form,
}

/// A struct: asking for a field that it has not is an error.
#[derive(Debug)]
pub struct Record {
    /// Go's name of the type, for errors.
    pub name: &'static str,
    pub fields: Vec<Field>,
    pub form: Form,
}

/// A field of a struct, with its key in JSON.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub key: &'static str,
    pub omit_empty: bool,
    pub value: Value,
}

impl List {
    fn is_single(&self) -> bool {
        self.form == Form::Single && self.items.len() == 1
    }
}

impl Record {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields
            .iter()
            .find(|field| field.name == name)
            .map(|field| &field.value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Str(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Str(text.into())
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Bool(b)
    }
}

impl Value {
    pub fn list(items: Vec<Value>, form: Form) -> Value {
        Value::List(Arc::new(List { items, form }))
    }

    pub fn map(entries: impl IntoIterator<Item = (String, Value)>, form: Form) -> Value {
        Value::Map(Arc::new(Map {
            entries: entries.into_iter().collect(),
            form,
        }))
    }

    pub fn record(name: &'static str, form: Form, fields: Vec<Field>) -> Value {
        Value::Record(Arc::new(Record { name, fields, form }))
    }

    /// JSON as Go decodes it: every number is a float.
    pub fn from_json(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Nil,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => Value::Float(n.as_f64().unwrap_or(0.0)),
            serde_json::Value::String(text) => text.as_str().into(),
            serde_json::Value::Array(items) => {
                Value::list(items.iter().map(Value::from_json).collect(), Form::Plain)
            }
            serde_json::Value::Object(members) => {
                let members = members
                    .iter()
                    .map(|(k, v)| (k.clone(), Value::from_json(v)));
                Value::map(members, Form::Plain)
            }
        }
    }

    /// What conditions make of it.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Missing | Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(n) => *n != 0,
            Value::Float(n) => *n != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Map(map) => !map.entries.is_empty(),
            Value::Record(_) => true,
        }
    }

    /// The name of its type in Go.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Missing | Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Str(_) => "string",
            Value::List(_) => "[]interface {}",
            Value::Map(_) => "map[string]interface {}",
            Value::Record(record) => record.name,
        }
    }

    /// Writes it as an action does.
    pub fn print(&self, out: &mut String) {
        match self {
            Value::Missing | Value::Nil => out.push_str("<no value>"),
            value => value.print_inner(out),
        }
    }

    /// Writes it as `%v` does inside another value.
    pub fn print_inner(&self, out: &mut String) {
        match self {
            Value::Missing | Value::Nil => out.push_str("<nil>"),
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Int(n) => push_display(out, n),
            Value::Float(n) => out.push_str(&shortest_float(*n)),
            Value::Str(text) => out.push_str(text),
            Value::List(list) if list.form == Form::Json => self.print_json(out),
            Value::Map(map) if map.form == Form::Json => self.print_json(out),
            Value::Map(map) if map.form == Form::Absent => out.push_str("{}"),
            Value::Record(record) if record.form == Form::Json => self.print_json(out),
            Value::List(list) if list.is_single() => list.items[0].print_inner(out),
            Value::List(list) if list.form == Form::Single && list.items.is_empty() => {}
            Value::List(list) => {
                out.push('[');
                print_joined(out, list.items.iter(), |out, item| item.print_inner(out));
                out.push(']');
            }
            Value::Map(map) => {
                out.push_str("map[");
                print_joined(out, map.entries.iter(), |out, (key, value)| {
                    out.push_str(key);
                    out.push(':');
                    value.print_inner(out);
                });
                out.push(']');
            }
            Value::Record(record) => {
                out.push('{');
                print_joined(out, record.fields.iter(), |out, f| f.value.print_inner(out));
                out.push('}');
            }
        }
    }

    /// Writes it as Go's `json.Marshal`: compact, keys of maps sorted, HTML characters escaped.
    pub fn print_json(&self, out: &mut String) {
        match self {
            Value::Missing | Value::Nil => out.push_str("null"),
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Int(n) => push_display(out, n),
            Value::Float(n) => out.push_str(&go_json::float(*n)),
            Value::Str(text) => go_json::push_string(out, text),
            Value::List(list) if list.is_single() => list.items[0].print_json(out),
            Value::List(list) => {
                out.push('[');
                print_separated(out, ',', list.items.iter(), |out, item| {
                    item.print_json(out)
                });
                out.push(']');
            }
            Value::Map(map) if map.form == Form::Absent => out.push_str("null"),
            Value::Map(map) => print_members(out, map.entries.iter().map(|(k, v)| (&k[..], v))),
            Value::Record(record) => {
                let written = record
                    .fields
                    .iter()
                    .filter(|f| !f.omit_empty || f.value.is_true());
                print_members(out, written.map(|f| (f.key, &f.value)));
            }
        }
    }
}

fn print_members<'v>(out: &mut String, members: impl Iterator<Item = (&'v str, &'v Value)>) {
    out.push('{');
    print_separated(out, ',', members, |out, (key, value)| {
        go_json::push_string(out, key);
        out.push(':');
        value.print_json(out);
    });
    out.push('}');
}

fn print_joined<T>(
    out: &mut String,
    items: impl Iterator<Item = T>,
    print: impl Fn(&mut String, T),
) {
    print_separated(out, ' ', items, print);
}

fn print_separated<T>(
    out: &mut String,
    separator: char,
    items: impl Iterator<Item = T>,
    print: impl Fn(&mut String, T),
) {
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(separator);
        }
        print(out, item);
    }
}

fn push_display(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("writing to a string");
}

/// The shortest digits of a float, with an exponent of at least two digits where it is below -4 or
/// at least 6.
fn shortest_float(n: f64) -> String {
    if n.is_nan() || n.is_infinite() {
        return if n.is_nan() {
            "NaN".into()
        } else if n > 0.0 {
            "+Inf".into()
        } else {
            "-Inf".into()
        };
    }
    let scientific = format!("{n:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent = exponent.parse::<i32>().unwrap_or(0);
    if n != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{n}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: &str) -> (String, String) {
        let value = Value::from_json(&serde_json::from_str(json).unwrap());
        let (mut plain, mut json) = (String::new(), String::new());
        value.print(&mut plain);
        value.print_json(&mut json);
        (plain, json)
    }

    #[test]
    fn values_print_as_in_go() {
        let cases = [
            ("null", "<no value>", "null"),
            ("[null,true]", "[<nil> true]", "[null,true]"),
            (
                r#"{"b":"x y","a":[1,2]}"#,
                "map[a:[1 2] b:x y]",
                r#"{"a":[1,2],"b":"x y"}"#,
            ),
            (
                r#""a<b>&\"\u2028""#,
                "a<b>&\"\u{2028}",
                r#""a\u003cb\u003e\u0026\"\u2028""#,
            ),
            ("22", "22", "22"),
            ("1000000", "1e+06", "1000000"),
            ("123456789.5", "1.234567895e+08", "123456789.5"),
            ("0.00001", "1e-05", "0.00001"),
            ("1e-9", "1e-09", "1e-9"),
            ("1e21", "1e+21", "1e+21"),
            ("-0.5", "-0.5", "-0.5"),
        ];
        for (json, plain, encoded) in cases {
            assert_eq!(printed(json), (plain.into(), encoded.into()), "{json}");
        }
    }
}
