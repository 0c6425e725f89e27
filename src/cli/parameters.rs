//! Values of PARAMETER lines and of `/set parameter`, typed by name.

use crate::api::Object;
use anyhow::{Result, bail};
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
const SWITCHES: [&str; 1] = ["use_mmap"];
const LISTS: [&str; 1] = ["stop"];
/// Once options, now ignored with a warning.
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

/// Is `name` an option that is ignored nowadays?
pub fn is_deprecated(name: &str) -> bool {
    DEPRECATED.contains(&name)
}

/// Adds `name` with the value that `text` spells to `parameters`; a list (`stop`) grows by it.
pub fn add(parameters: &mut Object, name: &str, text: &str) -> Result<()> {
    let value = match name {
        _ if INTEGERS.contains(&name) => integer(text)?,
        _ if FLOATS.contains(&name) => float(text)?,
        _ if SWITCHES.contains(&name) => switch(text)?,
        _ if LISTS.contains(&name) => {
            let list = parameters.entry(name).or_insert_with(|| Value::Array(vec![]));
            if let Value::Array(items) = list {
                items.push(text.into());
            }
            return Ok(());
        }
        _ => bail!("unknown parameter '{name}'"),
    };
    parameters.insert(name.to_owned(), value);
    Ok(())
}

fn integer(text: &str) -> Result<Value> {
    match text.parse::<i64>() {
        Ok(n) => Ok(n.into()),
        Err(_) => bail!("invalid int value [{text}]"),
    }
}

/// A finite 32-bit number; a whole one is written without a fraction, as Ollama stores it.
fn float(text: &str) -> Result<Value> {
    let number = text.parse::<f64>().ok();
    let Some(number) = number.filter(|n| (*n as f32).is_finite()) else {
        bail!("invalid float value [{text}]");
    };
    let whole = number.fract() == 0.0 && number.abs() < 1e15;
    let number = if whole {
        Some(Number::from(number as i64))
    } else {
        Number::from_f64(number)
    };
    Ok(number.map_or(Value::Null, Value::Number))
}

fn switch(text: &str) -> Result<Value> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true.into()),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false.into()),
        _ => bail!("invalid bool value [{text}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_have_the_type_of_their_name() {
        let mut parameters = Object::new();
        for (name, text) in [
            ("num_ctx", "+4096"),
            ("temperature", "0"),
            ("top_p", "0.95"),
            ("min_p", "1e-2"),
            ("use_mmap", "T"),
            ("stop", "<|im_start|>"),
            ("stop", "a b"),
            ("seed", "-1"),
            ("num_ctx", "2048"),
        ] {
            add(&mut parameters, name, text).unwrap();
        }
        assert_eq!(
            serde_json::to_string(&parameters).unwrap(),
            json!({"num_ctx": 2048, "temperature": 0, "top_p": 0.95, "min_p": 0.01, "use_mmap": true,
                   "stop": ["<|im_start|>", "a b"], "seed": -1})
            .to_string()
        );
    }

    #[test]
    fn refusals_have_ollamas_texts() {
        for (name, text, error) in [
            ("bogus", "1", "unknown parameter 'bogus'"),
            ("Temperature", "1", "unknown parameter 'Temperature'"),
            ("num_ctx", "abc", "invalid int value [abc]"),
            ("num_ctx", "1.5", "invalid int value [1.5]"),
            ("temperature", "hot", "invalid float value [hot]"),
            ("temperature", "inf", "invalid float value [inf]"),
            ("temperature", "1e300", "invalid float value [1e300]"),
            ("use_mmap", "yes", "invalid bool value [yes]"),
        ] {
            let refusal = add(&mut Object::new(), name, text).unwrap_err();
            assert_eq!(refusal.to_string(), error);
        }
    }
}
