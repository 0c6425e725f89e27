//! The PARAMETER lines of a Modelfile: names and types of the options.

use super::modelfile::Error;
use serde_json::{Number, Value};

const INTEGERS: [&str; 11] = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "draft_num_predict",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
];

const FLOATS: [&str; 7] = [
    "top_p",
    "min_p",
    "typical_p",
    "temperature",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
];

const DEPRECATED: [&str; 9] = [
    "penalize_newline",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mlock",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
];

/// A parameter, typed.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// The option's only value; a later line replaces it.
    Single(Value),
    /// One more value of a list.
    Item(String),
    /// An option of old versions: ignored with a warning.
    Deprecated,
}

/// Types the text of a parameter. Unknown names and texts of the wrong type are errors in Ollama's words.
pub fn parse_parameter(key: &str, text: &str) -> Result<Parameter, Error> {
    if key == "stop" {
        return Ok(Parameter::Item(text.to_owned()));
    }
    if DEPRECATED.contains(&key) {
        return Ok(Parameter::Deprecated);
    }
    let invalid = |kind| Error::InvalidValue {
        kind,
        value: text.to_owned(),
    };
    let value = if INTEGERS.contains(&key) {
        Value::from(integer(text).ok_or_else(|| invalid("int"))?)
    } else if FLOATS.contains(&key) {
        Value::Number(float(text).ok_or_else(|| invalid("float"))?)
    } else if key == "use_mmap" {
        Value::Bool(boolean(text).ok_or_else(|| invalid("bool"))?)
    } else {
        return Err(Error::UnknownParameter(key.to_owned()));
    };
    Ok(Parameter::Single(value))
}

/// Base 10 with an optional sign.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// A finite 32-bit float, in the shortest text that reads back as the same `f32`.
fn float(text: &str) -> Option<Number> {
    let value: f32 = text.parse().ok()?;
    let shortest = value.to_string();
    value.is_finite().then(|| shortest.parse().ok())?
}

/// Go's spellings.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn typed_by_name() {
        for (key, text, value) in [
            ("num_ctx", "4096", json!(4096)),
            ("seed", "-1", json!(-1)),
            ("top_k", "+5", json!(5)),
            ("use_mmap", "T", json!(true)),
        ] {
            assert_eq!(
                parse_parameter(key, text).unwrap(),
                Parameter::Single(value)
            );
        }
        assert_eq!(
            parse_parameter("stop", " x").unwrap(),
            Parameter::Item(" x".into())
        );
        assert_eq!(
            parse_parameter("mirostat", "?").unwrap(),
            Parameter::Deprecated
        );
    }

    #[test]
    fn floats_are_shortest_f32() {
        for (text, shortest) in [
            ("0.7", "0.7"),
            ("1", "1"),
            ("1e-3", "0.001"),
            ("0.1000000001", "0.1"),
        ] {
            let Parameter::Single(value) = parse_parameter("temperature", text).unwrap() else {
                panic!("temperature is a single value");
            };
            assert_eq!(value.to_string(), shortest);
        }
    }

    #[test]
    fn wrong_texts() {
        for (key, text, message) in [
            ("num_ctx", "abc", "invalid int value [abc]"),
            ("num_ctx", "1.5", "invalid int value [1.5]"),
            ("num_ctx", "0x10", "invalid int value [0x10]"),
            ("num_ctx", "1_000", "invalid int value [1_000]"),
            ("num_ctx", "", "invalid int value []"),
            ("temperature", "hot", "invalid float value [hot]"),
            ("temperature", "inf", "invalid float value [inf]"),
            ("temperature", "NaN", "invalid float value [NaN]"),
            ("temperature", "1e99", "invalid float value [1e99]"),
            ("use_mmap", "yes", "invalid bool value [yes]"),
            ("bogus", "1", "unknown parameter 'bogus'"),
            ("Stop", "x", "unknown parameter 'Stop'"),
            ("model", "x", "unknown parameter 'model'"),
        ] {
            assert_eq!(parse_parameter(key, text).unwrap_err().to_string(), message);
        }
    }
}
