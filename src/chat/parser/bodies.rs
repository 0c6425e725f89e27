//! What stands between the tags of a tool call, format by format.

use super::{Tool, generic::as_arguments};
use crate::chat::tool::Property;
use serde_json::{Map, Value};

/// A tool's name and its arguments.
pub type Call = (String, Map<String, Value>);

/// `{"name", "arguments"}`, an array of such objects, or several one after the other.
pub fn json_calls(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    let mut calls = Vec::new();
    for value in serde_json::Deserializer::from_str(body).into_iter::<Value>() {
        match value.ok()? {
            Value::Array(items) => {
                for item in &items {
                    calls.push(json_call(item)?);
                }
            }
            object => calls.push(json_call(&object)?),
        }
    }
    Some(calls)
}

/// [`json_calls`] in an array whose first bracket belongs to the tag.
pub fn open_list(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    json_calls(&format!("[{body}"), tools)
}

/// [`json_calls`] between fences.
pub fn fenced_calls(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let body = body.strip_prefix("```json").unwrap_or(body);
    json_calls(body.split("```").next()?, tools)
}

/// An array of objects whose keys are names and whose values are arguments.
pub fn keyed_calls(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    let calls: Vec<Map<String, Value>> = serde_json::from_str(body).ok()?;
    let calls = calls.into_iter().flatten();
    calls
        .map(|(name, arguments)| Some((name, as_arguments(&arguments)?)))
        .collect()
}

/// `NAME>{...}`, the rest of `<function=NAME>{...}`.
pub fn named_object(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    let (name, arguments) = body.split_once('>')?;
    let arguments = as_arguments(&Value::String(arguments.trim().to_string()))?;
    Some(vec![(name.trim().to_string(), arguments)])
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
        let value = typed_as_declared(value, tools, &name, key.trim());
        arguments.insert(key.trim().to_string(), value);
    }
    Some((name, arguments))
}

/// `NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>`; one of the middle tags may be missing.
pub fn key_value_pairs(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let mut parts = body.split("<arg_key>");
    let name = parts.next()?.trim().to_string();
    let mut arguments = Map::new();
    for pair in parts {
        let (key, value) = pair
            .split_once("<arg_value>")
            .or_else(|| pair.split_once("</arg_key>"))?;
        let key = key.trim().trim_end_matches("</arg_key>");
        let value = value
            .rsplit_once("</arg_value>")
            .map_or(value, |(value, _)| value);
        let value = typed_as_declared(value, tools, &name, key.trim());
        arguments.insert(key.trim().to_string(), value);
    }
    (!name.is_empty()).then(|| vec![(name, arguments)])
}

/// Whether the last argument of such a call, or of one of [`xml_functions`], has no end: the answer was cut off in it.
pub fn is_cut(body: &str) -> bool {
    let pairs = [
        ("<parameter=", "</parameter>"),
        ("<arg_key>", "</arg_value>"),
    ];
    let mut pairs = pairs.into_iter();
    pairs.any(|(open, close)| body.rfind(open) > body.rfind(close))
}

/// How calls and arguments in elements with names are written.
struct Elements {
    call: &'static str,
    call_end: &'static str,
    argument: &'static str,
    argument_end: &'static str,
}

/// `<invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>`, one or several.
pub fn invocations(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let elements = Elements {
        call: "<invoke name=\"",
        call_end: "</invoke>",
        argument: "<parameter name=\"",
        argument_end: "</parameter>",
    };
    elements.calls(body, tools)
}

/// [`invocations`] in Glimmer's own markup, in a message to the tool that is called.
pub fn atem_calls(_: &str, body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let elements = Elements {
        call: "<atem:invoke name=\"",
        call_end: "</atem:invoke>",
        argument: "<atem:parameter name=\"",
        argument_end: "</atem:parameter>",
    };
    let body = body.trim().strip_prefix("<atem:function_calls>")?.trim();
    let body = body.strip_suffix("</atem:function_calls>").unwrap_or(body);
    elements.calls(body.trim(), tools)
}

/// [`invocations`] in DeepSeek's own markup, with `string="true"` after the name of an argument that is a string and
/// `string="false"` where the value is JSON.
pub fn dsml_invocations(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let elements = Elements {
        call: "<｜DSML｜invoke name=\"",
        call_end: "</｜DSML｜invoke>",
        argument: "<｜DSML｜parameter name=\"",
        argument_end: "</｜DSML｜parameter>",
    };
    elements.calls(body, tools)
}

/// `NAME"><param name="KEY">VALUE</param>`, the inside of a `function` element.
pub fn param_function(body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let elements = Elements {
        call: "",
        call_end: "",
        argument: "<param name=\"",
        argument_end: "</param>",
    };
    let (call, rest) = elements.call(body, tools)?;
    rest.is_empty().then(|| vec![call])
}

impl Elements {
    fn calls(&self, body: &str, tools: &[Tool]) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let (call, after) = self.call(rest, tools)?;
            calls.push(call);
            rest = after;
        }
        Some(calls)
    }

    /// The call that `text` begins with, and what follows it.
    fn call<'t>(&self, text: &'t str, tools: &[Tool]) -> Option<(Call, &'t str)> {
        let (name, mut inside) = text.strip_prefix(self.call)?.split_once("\">")?;
        let mut arguments = Map::new();
        loop {
            inside = inside.trim_start();
            let Some(argument) = inside.strip_prefix(self.argument) else {
                break;
            };
            let (head, value) = argument.split_once("\">")?;
            let (key, is_string) = match head.split_once("\" string=\"") {
                Some((key, is_string)) => (key, Some(is_string == "true")),
                None => (head, None),
            };
            let (value, is_string, after) = match value.strip_prefix("<![CDATA[") {
                Some(text) => {
                    let (text, after) = text.split_once("]]>")?;
                    (text, Some(true), after.strip_prefix(self.argument_end)?)
                }
                None => {
                    let (value, after) = value.split_once(self.argument_end)?;
                    (value, is_string, after)
                }
            };
            let value = match is_string {
                Some(true) => value.into(),
                Some(false) => serde_json::from_str(value).ok()?,
                None => typed_as_declared(value, tools, name, key),
            };
            arguments.insert(key.to_string(), value);
            inside = after;
        }
        let after = inside.strip_prefix(self.call_end)?.trim_start();
        Some(((name.to_string(), arguments), after))
    }
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

/// `<|tool_call:begin|>ID<|tool_call:name|>NAME<|tool_call:args|>{...}<|tool_call:end|>`, one or several.
pub fn solar_calls(body: &str, _: &[Tool]) -> Option<Vec<Call>> {
    let calls = body.split("<|tool_call:begin|>").skip(1);
    calls
        .map(|call| {
            let (_, call) = call.split_once("<|tool_call:name|>")?;
            let (name, arguments) = call.split_once("<|tool_call:args|>")?;
            let arguments = arguments.split("<|tool_call:end|>").next()?;
            let arguments = as_arguments(&Value::String(arguments.trim().to_string()))?;
            Some((name.trim().to_string(), arguments))
        })
        .collect()
}

/// What a tool declares for an argument.
pub fn declared<'t>(tools: &'t [Tool], name: &str, key: &str) -> Option<&'t Property> {
    let tool = tools.iter().find(|tool| tool.name == name)?;
    member(tool.parameters.properties.as_deref()?, key)
}

/// The property of this name.
pub fn member<'p>(properties: &'p [(String, Property)], key: &str) -> Option<&'p Property> {
    let found = properties.iter().find(|(known, _)| known == key);
    found.map(|(_, property)| property)
}

/// A value written without quotes, as the type that a tool declares for its argument.
pub fn typed_as_declared(text: &str, tools: &[Tool], name: &str, key: &str) -> Value {
    typed_as(text, declared(tools, name, key))
}

/// The same of one property, or of none.
pub fn typed_as(text: &str, property: Option<&Property>) -> Value {
    typed(text, &property.map(Property::types).unwrap_or_default())
}

/// A value written without quotes, as the first of its declared types that it fits; a string else.
fn typed(text: &str, types: &[String]) -> Value {
    let has = |name: &str| types.iter().any(|known| known == name);
    let trimmed = text.trim();
    let is_null = trimmed.eq_ignore_ascii_case("null") || trimmed == "None" && has("null");
    if !types.is_empty() && is_null {
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
        Value::Number(n) => has("number") || has("integer") && (n.is_i64() || n.is_u64()),
        Value::Array(_) => has("array"),
        Value::Object(_) => has("object"),
        _ => false,
    };
    json.filter(fits).map_or_else(|| text.into(), as_integer)
}

/// A number that has a fraction of zero, as the whole number that it is.
fn as_integer(value: Value) -> Value {
    let whole = value
        .as_f64()
        .filter(|n| n.fract() == 0.0 && n.abs() < 1e15);
    match whole {
        Some(n) if value.as_i64().is_none() => (n as i64).into(),
        _ => value,
    }
}
