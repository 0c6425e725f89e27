//! JSON Schemas as clients send them, made ready for the compiler.
//!
//! What the compiler does not support it refuses by name. Here: bounds, and the two places where
//! Ollama reads a schema more strictly than the standard, so that answers end.

use serde_json::{Map, Value, json};

use super::MAX_SOURCE_BYTES;

/// Depth of a schema.
const MAX_DEPTH: usize = 64;
/// Values in a schema, keys not counted.
const MAX_VALUES: usize = 50_000;
/// Largest bound of a repetition, such as `maxItems` or `minLength`.
const MAX_REPETITION: u64 = 10_000;

/// Blanks between the parts of a value: none, a space, or line feeds with an indent. Models that
/// may write any number of blanks sometimes write nothing else.
const BLANKS: &str = r" |\n{1,2}[ \t]{0,20}";

const REPETITIONS: [&str; 6] = [
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
];

/// The schema of `format: "json"`.
pub fn any_object() -> Value {
    with_options(Map::from_iter([("type".into(), json!("object"))]))
}

/// Checks the bounds and writes down what is implied: an empty schema is any object, and an object
/// with named properties has no others unless the schema says so.
///
/// # Errors
/// Names the bound that is exceeded.
pub fn prepared(source: &Value) -> Result<Value, String> {
    let merges = check(source)?;
    let Value::Object(schema) = source else {
        return Err("a JSON Schema must be an object".into());
    };
    if schema.is_empty() {
        return Ok(any_object());
    }
    let mut schema = schema.clone();
    if !merges {
        close_object(&mut schema);
    }
    Ok(with_options(schema))
}

/// Sets the compiler's options, whatever the client wrote there.
fn with_options(mut schema: Map<String, Value>) -> Value {
    // A choice of exactly one is taken as a choice of any, as llama.cpp does; and any character may
    // be written as an escape, since some models do.
    let options = json!({
        "whitespace_pattern": BLANKS,
        "coerce_one_of": true,
        "json_allow_general_unicode_escapes": true,
    });
    schema.insert("x-guidance".into(), options);
    Value::Object(schema)
}

/// Walks without recursion, so that no depth is too much for it. Whether properties are merged
/// from several schemas somewhere, so that none of these may rule out the others'.
fn check(source: &Value) -> Result<bool, String> {
    let (mut n_values, mut n_bytes, mut merges) = (0, 0, false);
    let mut open = vec![(source, 1)];
    while let Some((value, depth)) = open.pop() {
        n_values += 1;
        if depth > MAX_DEPTH {
            return Err(format!("a schema nested more than {MAX_DEPTH} deep"));
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|v| (v, depth + 1))),
            Value::Object(members) => {
                n_bytes += members.keys().map(String::len).sum::<usize>();
                check_repetitions(members)?;
                merges |= members.contains_key("allOf");
                open.extend(members.values().map(|v| (v, depth + 1)));
            }
            Value::String(text) => n_bytes += text.len(),
            Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
        if n_values + open.len() > MAX_VALUES || n_bytes > MAX_SOURCE_BYTES {
            return Err(format!(
                "a schema of more than {MAX_VALUES} values or {MAX_SOURCE_BYTES} bytes"
            ));
        }
    }
    Ok(merges)
}

fn check_repetitions(members: &Map<String, Value>) -> Result<(), String> {
    let too_large = |name: &&&str| {
        let bound = members.get(**name).and_then(Value::as_f64);
        bound.is_some_and(|n| n > MAX_REPETITION as f64)
    };
    match REPETITIONS.iter().find(too_large) {
        None => Ok(()),
        Some(name) => Err(format!("{name} of more than {MAX_REPETITION}")),
    }
}

/// Keywords that bring in other schemas, whose properties must not be ruled out.
const COMBINED: [&str; 3] = ["anyOf", "oneOf", "$ref"];

fn close_object(schema: &mut Map<String, Value>) {
    let combined = COMBINED.iter().any(|key| schema.contains_key(*key));
    if schema.contains_key("properties")
        && !combined
        && !schema.contains_key("additionalProperties")
        && !schema.contains_key("patternProperties")
    {
        schema.insert("additionalProperties".into(), false.into());
    }
    for (key, value) in schema.iter_mut() {
        match (key.as_str(), value) {
            // Data, not schemas.
            ("const" | "enum" | "default" | "examples", _) => {}
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(map)) => {
                map.values_mut().for_each(close_value);
            }
            (_, Value::Array(items)) => items.iter_mut().for_each(close_value),
            (_, value) => close_value(value),
        }
    }
}

fn close_value(value: &mut Value) {
    if let Value::Object(schema) = value {
        close_object(schema);
    }
}
