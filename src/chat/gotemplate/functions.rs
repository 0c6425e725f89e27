//! The functions of Go templates: Go's own, and those that Ollama adds.

use super::{printf::printf, value::Value};
use chrono::{Days, NaiveDateTime};
use std::cmp::Ordering;

/// Longest text that one call may make, in bytes.
pub const MAX_TEXT_BYTES: usize = 64 << 20;

const NAMES: [&str; 23] = [
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "html",
    "js",
    "urlquery",
    "call",
    "json",
    "currentDate",
    "yesterdayDate",
    "toTypeScriptType",
];

/// Whether a template may call this function.
pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function; `and` and `or`, which stop early, are the executor's. The error is what Go
/// says after `error calling NAME: `.
pub fn call(name: &str, args: &[Value], now: NaiveDateTime) -> Result<Value, String> {
    match name {
        "not" => Ok(Value::Bool(!one(args)?.is_true())),
        "eq" => equals_any(args).map(Value::Bool),
        "ne" => equals(two(args)?).map(|equal| Value::Bool(!equal)),
        "lt" => compare(two(args)?).map(|order| Value::Bool(order.is_lt())),
        "le" => compare(two(args)?).map(|order| Value::Bool(order.is_le())),
        "gt" => compare(two(args)?).map(|order| Value::Bool(order.is_gt())),
        "ge" => compare(two(args)?).map(|order| Value::Bool(order.is_ge())),
        "len" => length(one(args)?),
        "index" => index(args),
        "slice" => slice(args),
        "print" => print(args),
        "println" => println(args),
        "printf" => printf(args),
        "html" => Ok(escape_html(&text_of(args)?).into()),
        "js" => Ok(escape_js(&text_of(args)?).into()),
        "urlquery" => Ok(escape_query(&text_of(args)?).into()),
        "json" => {
            let mut out = String::new();
            one(args)?.print_json(&mut out);
            Ok(out.into())
        }
        "currentDate" => Ok(now.format("%Y-%m-%d").to_string().into()),
        "yesterdayDate" => {
            let yesterday = now.checked_sub_days(Days::new(1)).unwrap_or(now);
            Ok(yesterday.format("%Y-%m-%d").to_string().into())
        }
        "toTypeScriptType" => Ok(typescript_type(one(args)?).into()),
        _ => Err(format!("{name} of a value that is no function")),
    }
}

fn one(args: &[Value]) -> Result<&Value, String> {
    match args {
        [value] => Ok(value),
        _ => Err(format!("wrong number of args: want 1 got {}", args.len())),
    }
}

fn two(args: &[Value]) -> Result<(&Value, &Value), String> {
    match args {
        [a, b] => Ok((a, b)),
        _ => Err(format!("wrong number of args: want 2 got {}", args.len())),
    }
}

/// Whether the first argument equals one of the others.
fn equals_any(args: &[Value]) -> Result<bool, String> {
    let Some((first, others)) = args.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err("missing argument for comparison".into());
    };
    for other in others {
        if equals((first, other))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equals((a, b): (&Value, &Value)) -> Result<bool, String> {
    match (a, b) {
        (Value::Missing | Value::Nil, Value::Missing | Value::Nil) => Ok(true),
        (Value::Missing | Value::Nil, _) | (_, Value::Missing | Value::Nil) => Ok(false),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Int(a), Value::Int(b)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::Str(a), Value::Str(b)) => Ok(a == b),
        (a, b) if a.type_name() == b.type_name() => {
            Err(format!("non-comparable type {}", a.type_name()))
        }
        _ => Err("incompatible types for comparison".into()),
    }
}

fn compare((a, b): (&Value, &Value)) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a
            .partial_cmp(b)
            .ok_or_else(|| "NaN has no order".to_string()),
        (Value::Str(a), Value::Str(b)) => Ok(a.cmp(b)),
        (Value::Int(_) | Value::Float(_) | Value::Str(_), _)
        | (_, Value::Int(_) | Value::Float(_) | Value::Str(_)) => {
            Err("incompatible types for comparison".into())
        }
        _ => Err("invalid type for comparison".into()),
    }
}

fn length(value: &Value) -> Result<Value, String> {
    let n = match value {
        Value::Str(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        Value::Missing | Value::Nil => return Err("len of untyped nil".into()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(n as i64))
}

/// `index x 1 "a"` is `x[1]["a"]`.
fn index(args: &[Value]) -> Result<Value, String> {
    let Some((collection, keys)) = args.split_first() else {
        return Err("wrong number of args: want at least 1 got 0".into());
    };
    keys.iter()
        .try_fold(collection.clone(), |value, key| match (&value, key) {
            (Value::List(list), Value::Int(i)) => {
                item_at(*i, list.items.len()).map(|i| list.items[i].clone())
            }
            (Value::Str(text), Value::Int(i)) => {
                item_at(*i, text.len()).map(|i| Value::Int(i64::from(text.as_bytes()[i])))
            }
            (Value::Map(map), Value::Str(key)) => {
                Ok(map.entries.get(&**key).cloned().unwrap_or(Value::Missing))
            }
            (Value::List(_) | Value::Str(_) | Value::Map(_), key) => Err(format!(
                "cannot index with a value of type {}",
                key.type_name()
            )),
            (Value::Missing | Value::Nil, _) => Err("index of untyped nil".into()),
            (value, _) => Err(format!("can't index item of type {}", value.type_name())),
        })
}

fn item_at(i: i64, n_items: usize) -> Result<usize, String> {
    let in_range = usize::try_from(i).ok().filter(|&i| i < n_items);
    in_range.ok_or_else(|| format!("index out of range: {i}"))
}

/// `slice x 1 2` is `x[1:2]`.
fn slice(args: &[Value]) -> Result<Value, String> {
    let Some((collection, bounds)) = args.split_first() else {
        return Err("wrong number of args: want at least 1 got 0".into());
    };
    let n_items = match collection {
        Value::List(list) => list.items.len(),
        Value::Str(text) => text.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Int(i)) => item_at(*i, n_items + 1),
        Some(other) => Err(format!(
            "cannot index slice with type {}",
            other.type_name()
        )),
    };
    let (start, end) = (bound(0, 0)?, bound(1, n_items)?);
    if start > end || bounds.len() > 2 {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    match collection {
        Value::Str(text) => text
            .get(start..end)
            .map(Value::from)
            .ok_or_else(|| format!("slice {start}:{end} cuts a character")),
        Value::List(list) => Ok(Value::list(list.items[start..end].to_vec(), list.form)),
        _ => Ok(Value::Nil),
    }
}

/// The text as a value, if it is not too long.
pub fn checked(text: String) -> Result<Value, String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("text is longer than {MAX_TEXT_BYTES} bytes"));
    }
    Ok(text.into())
}

/// Values one after another, with a blank between two that are no strings.
fn print(args: &[Value]) -> Result<Value, String> {
    let mut out = String::new();
    let is_text = |value: &Value| matches!(value, Value::Str(_));
    for (i, value) in args.iter().enumerate() {
        if i > 0 && !is_text(value) && !is_text(&args[i - 1]) {
            out.push(' ');
        }
        value.print_inner(&mut out);
        if out.len() > MAX_TEXT_BYTES {
            break;
        }
    }
    checked(out)
}

fn println(args: &[Value]) -> Result<Value, String> {
    let mut out = String::new();
    for (i, value) in args.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        value.print_inner(&mut out);
        if out.len() > MAX_TEXT_BYTES {
            break;
        }
    }
    out.push('\n');
    checked(out)
}

/// What the escaping functions work on: a missing value is written out.
fn text_of(args: &[Value]) -> Result<String, String> {
    let args = args.iter().map(|value| match value {
        Value::Missing | Value::Nil => "<no value>".into(),
        value => value.clone(),
    });
    match print(&args.collect::<Vec<_>>())? {
        Value::Str(text) => Ok(text.to_string()),
        _ => Ok(String::new()),
    }
}

fn escape_html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\0'..='\x1f' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b if b.is_ascii_alphanumeric() => out.push(b as char),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// The TypeScript type of a tool's property; `any` for everything else.
fn typescript_type(value: &Value) -> String {
    let Value::Record(property) = value else {
        return "any".into();
    };
    let items = |name| match property.get(name) {
        Some(Value::List(list)) => &list.items[..],
        _ => &[],
    };
    let names = match (items("AnyOf"), items("Type")) {
        ([], types) => types
            .iter()
            .map(|t| simple_type(t).to_string())
            .collect::<Vec<_>>(),
        (members, _) => members.iter().map(typescript_type).collect(),
    };
    if names.is_empty() {
        "any".into()
    } else {
        names.join(" | ")
    }
}

fn simple_type(name: &Value) -> &'static str {
    let Value::Str(name) = name else { return "any" };
    match &**name {
        "string" => "string",
        "integer" | "number" => "number",
        "boolean" => "boolean",
        "array" => "any[]",
        "object" => "Record<string, any>",
        "null" => "null",
        _ => "any",
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Form;
    use super::*;

    fn text(name: &str, args: &[Value]) -> String {
        let now = NaiveDateTime::parse_from_str("2026-03-01 10:00", "%Y-%m-%d %H:%M").unwrap();
        let mut out = String::new();
        match call(name, args, now) {
            Ok(value) => value.print(&mut out),
            Err(message) => out = format!("error: {message}"),
        }
        out
    }

    #[test]
    fn functions_work_as_in_go() {
        let list = || Value::list(vec![Value::Int(1), "b".into()], Form::Plain);
        let cases: &[(&str, &[Value], &str)] = &[
            ("eq", &["a".into(), "b".into(), "a".into()], "true"),
            (
                "eq",
                &[Value::Int(1), "a".into()],
                "error: incompatible types for comparison",
            ),
            ("eq", &[Value::Missing, "a".into()], "false"),
            ("ne", &["a".into(), "b".into()], "true"),
            ("gt", &[Value::Int(2), Value::Int(1)], "true"),
            ("len", &["é".into()], "2"),
            ("len", &[Value::Int(1)], "error: len of type int"),
            ("index", &[list(), Value::Int(1)], "b"),
            (
                "index",
                &[list(), Value::Int(2)],
                "error: index out of range: 2",
            ),
            ("slice", &[list(), Value::Int(1)], "[b]"),
            ("slice", &["abc".into(), Value::Int(1), Value::Int(2)], "b"),
            (
                "slice",
                &["é".into(), Value::Int(1)],
                "error: slice 1:2 cuts a character",
            ),
            (
                "print",
                &["a".into(), Value::Int(1), Value::Int(2), "b".into()],
                "a1 2b",
            ),
            ("println", &["a".into(), Value::Int(1)], "a 1\n"),
            (
                "html",
                &["<a href='x'>".into()],
                "&lt;a href=&#39;x&#39;&gt;",
            ),
            ("urlquery", &["a b&é".into()], "a+b%26%C3%A9"),
            ("js", &["'<\n".into()], "\\'\\u003C\\u000A"),
            ("json", &["<".into()], "\"\\u003c\""),
            ("currentDate", &["ignored".into()], "2026-03-01"),
            ("yesterdayDate", &[], "2026-02-28"),
            ("toTypeScriptType", &["x".into()], "any"),
        ];
        for (name, args, expected) in cases {
            assert_eq!(text(name, args), *expected, "{name} {args:?}");
        }
    }
}
