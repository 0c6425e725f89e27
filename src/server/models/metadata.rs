//! GGUF metadata as JSON.

use crate::api::Object;
use crate::gguf::{Gguf, Value as Meta};
use crate::store::n_parameters;
use serde_json::Value;

/// Left out: shown elsewhere.
const HIDDEN: [&str; 2] = ["general.name", "tokenizer.chat_template"];

/// All keys in order, with the number of parameters; arrays are null unless `verbose`.
pub fn model_info(gguf: &Gguf, verbose: bool) -> Object {
    let shown = gguf
        .metadata()
        .iter()
        .filter(|(key, _)| !HIDDEN.contains(&key.as_str()));
    let mut pairs: Vec<(String, Value)> = shown
        .map(|(key, value)| (key.clone(), json(gguf, key, value, verbose)))
        .collect();
    pairs.push(("general.parameter_count".into(), n_parameters(gguf).into()));
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.into_iter().collect()
}

fn json(gguf: &Gguf, key: &str, value: &Meta, verbose: bool) -> Value {
    match value {
        Meta::U64(n) => (*n).into(),
        Meta::I64(n) => (*n).into(),
        Meta::F32(x) => (*x).into(),
        Meta::F64(x) => (*x).into(),
        Meta::Bool(b) => (*b).into(),
        Meta::String(s) => s.as_str().into(),
        Meta::Array(_) => elements(gguf, key, verbose),
    }
}

fn elements(gguf: &Gguf, key: &str, verbose: bool) -> Value {
    if gguf.n_items(key) == Some(0) {
        return Value::Array(Vec::new());
    }
    if !verbose {
        return Value::Null;
    }
    if let Some(strings) = gguf.strings(key) {
        return strings
            .map(|bytes| Value::from(String::from_utf8_lossy(bytes)))
            .collect();
    }
    let integers = gguf
        .i32s(key)
        .map(|v| v.into_iter().map(Value::from).collect());
    let unsigned = || {
        gguf.u32s(key)
            .map(|v| v.into_iter().map(Value::from).collect())
    };
    let floats = || {
        gguf.f32s(key)
            .map(|v| v.into_iter().map(Value::from).collect())
    };
    let booleans = || {
        gguf.bools(key)
            .map(|v| v.into_iter().map(Value::from).collect())
    };
    integers
        .or_else(unsigned)
        .or_else(floats)
        .or_else(booleans)
        .unwrap_or(Value::Null)
}
