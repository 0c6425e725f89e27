//! Equality by the rules of the recordings' README.

use serde_json::Value;

/// Members that this server tells besides: counts in OpenAI's and Anthropic's APIs that Ollama does not fill in.
const TOLD_BESIDES: [&str; 3] = [
    "prompt_tokens_details",
    "completion_tokens_details",
    "cache_read_input_tokens",
];

/// Collects differences between a recorded and an actual answer.
pub struct Comparison {
    /// Below these pointers values differ from run to run: only their kind counts.
    variable: Vec<String>,
    /// Below these they depend on arithmetic: kind, and length of lists, count.
    informative: Vec<String>,
    pub found: Vec<String>,
}

impl Comparison {
    pub fn new(variable: Vec<String>, informative: Vec<String>) -> Self {
        Comparison {
            variable,
            informative,
            found: Vec::new(),
        }
    }

    /// Compares two `response` objects.
    pub fn response(&mut self, expected: &Value, actual: &Value) {
        if actual["status"] != expected["status"] {
            self.found.push(format!(
                "status {} instead of {}: {}",
                actual["status"], expected["status"], actual["body"]
            ));
            return;
        }
        self.value("/response", expected, actual);
    }

    fn value(&mut self, at: &str, expected: &Value, actual: &Value) {
        match (expected, actual) {
            (Value::Object(e), _) if e.contains_key("$array_length") => {
                self.long_array(at, expected, actual)
            }
            (Value::Object(e), Value::Object(a)) => {
                for (name, value) in e {
                    match a.get(name) {
                        Some(other) => self.value(&below(at, name), value, other),
                        None => self.found.push(format!("{at}: {name} is missing")),
                    }
                }
                let extra = a.keys().filter(|name| {
                    !e.contains_key(*name) && !TOLD_BESIDES.contains(&name.as_str())
                });
                self.found
                    .extend(extra.map(|name| format!("{at}: {name} is not in the recording")));
            }
            (Value::Array(e), Value::Array(a)) => self.array(at, e, a),
            _ => self.scalar(at, expected, actual),
        }
    }

    fn array(&mut self, at: &str, expected: &[Value], actual: &[Value]) {
        let is_stream = at == "/response/lines";
        if expected.len() != actual.len()
            && !(is_stream && self.is_informative("/response/n_lines"))
        {
            self.found.push(format!(
                "{at}: {} elements instead of {}",
                actual.len(),
                expected.len()
            ));
            return;
        }
        if expected.len() == actual.len() {
            let (expected, actual) = (by_name(expected), by_name(actual));
            for (i, (e, a)) in expected.iter().zip(&actual).enumerate() {
                self.value(&below(at, &i.to_string()), e, a);
            }
        } else if let (Some(e), Some(a)) = (expected.last(), actual.last()) {
            // Another number of pieces: the last object must still be as recorded.
            self.value(&below(at, &(expected.len() - 1).to_string()), e, a);
        }
    }

    /// A list of which the recording keeps both ends.
    fn long_array(&mut self, at: &str, expected: &Value, actual: &Value) {
        let Some(items) = actual.as_array() else {
            self.found
                .push(format!("{at}: {} instead of a list", kind(actual)));
            return;
        };
        if expected["$array_length"] != items.len() {
            let length = &expected["$array_length"];
            self.found.push(format!(
                "{at}: {} elements instead of {length}",
                items.len()
            ));
            return;
        }
        let part = |name: &str| expected[name].as_array().cloned().unwrap_or_default();
        let (head, tail) = (part("head"), part("tail"));
        let ends = items
            .iter()
            .take(head.len())
            .chain(&items[items.len() - tail.len()..]);
        for (i, (expected, actual)) in head.iter().chain(&tail).zip(ends).enumerate() {
            // Tensors stand in the order of the file, which Ollama changes when it imports one.
            let same_name = |v: &&Value| v.get("name").is_some() && v["name"] == expected["name"];
            let actual = items.iter().find(same_name).unwrap_or(actual);
            self.value(&below(at, &i.to_string()), expected, actual);
        }
    }

    fn scalar(&mut self, at: &str, expected: &Value, actual: &Value) {
        if kind(expected) != kind(actual) {
            self.found
                .push(format!("{at}: {actual} instead of {expected}"));
            return;
        }
        if self.is_variable(at) || self.is_informative(at) || equal(at, expected, actual) {
            return;
        }
        self.found.push(format!(
            "{at}: {} instead of {}",
            short(actual),
            short(expected)
        ));
    }

    fn is_variable(&self, at: &str) -> bool {
        self.variable.iter().any(|p| is_below(at, p))
    }

    fn is_informative(&self, at: &str) -> bool {
        self.informative.iter().any(|p| is_below(at, p))
    }
}

fn is_below(at: &str, pointer: &str) -> bool {
    at.strip_prefix(pointer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Models of one second have no fixed order in lists; lists of named things are compared by name.
fn by_name(items: &[Value]) -> Vec<&Value> {
    let mut sorted: Vec<&Value> = items.iter().collect();
    let name = |v: &Value| {
        v.get("name")
            .or(v.get("id"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    if items.iter().all(|v| name(v).is_some()) {
        sorted.sort_by_key(|v| name(v));
    }
    sorted
}

fn equal(at: &str, expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Number(e), Value::Number(a)) => e.as_f64() == a.as_f64(),
        (Value::String(e), Value::String(a)) if is_foreign_text(at, e) => !a.is_empty(),
        (Value::String(e), Value::String(a)) if at.ends_with("/parameters") => lines(e) == lines(a),
        _ => expected == actual,
    }
}

/// Texts of Go's decoder and of llama.cpp: that there is one suffices.
fn is_foreign_text(at: &str, text: &str) -> bool {
    let is_error = at.ends_with("/error") || at.ends_with("/error/message");
    let foreign = ["json:", "invalid character", "{\"error\":{\"code\""];
    is_error && foreign.iter().any(|part| text.contains(part))
}

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(300) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(expected: Value, actual: Value) -> Vec<String> {
        let mut comparison = Comparison::new(
            vec!["/response/body/at".into()],
            vec!["/response/body/text".into()],
        );
        comparison.response(
            &json!({"status": 200, "body": expected}),
            &json!({"status": 200, "body": actual}),
        );
        comparison.found
    }

    #[test]
    fn differences_are_reported() {
        let recorded = json!({"a": 1, "at": "x", "text": "t", "list": [1, 2]});
        assert!(found(recorded.clone(), recorded.clone()).is_empty());
        for (name, value) in [
            ("a", json!(2)),
            ("a", json!("1")),
            ("at", json!(5)),
            ("text", json!(null)),
            ("list", json!([1])),
        ] {
            let mut actual = recorded.clone();
            actual[name] = value;
            assert_eq!(found(recorded.clone(), actual).len(), 1, "{name}");
        }
        assert_eq!(found(recorded.clone(), json!({"a": 1})).len(), 3);
        assert_eq!(found(json!({}), json!({"more": 1})).len(), 1);
    }

    #[test]
    fn tolerated_values_are_not() {
        let recorded = json!({"at": "x", "text": "t", "a": 1.0});
        assert!(found(recorded, json!({"at": "y", "text": "u", "a": 1})).is_empty());
        assert!(found(json!({"error": "json: cannot"}), json!({"error": "other"})).is_empty());
        assert_eq!(
            found(json!({"error": "json: cannot"}), json!({"error": ""})).len(),
            1
        );
        assert_eq!(
            found(json!({"error": "exact"}), json!({"error": "other"})).len(),
            1
        );
        let named = json!({"v": {"$array_length": 2, "head": [{"name": "a", "n": 1}], "tail": []}});
        let other_order = json!({"v": [{"name": "b", "n": 2}, {"name": "a", "n": 1}]});
        assert!(found(named.clone(), other_order).is_empty());
        let absent = json!({"v": [{"name": "b", "n": 2}, {"name": "c", "n": 1}]});
        assert_eq!(found(named, absent).len(), 2);
        let long = json!({"v": {"$array_length": 3, "head": [1], "tail": [3]}});
        assert!(found(long.clone(), json!({"v": [1, 2, 3]})).is_empty());
        assert_eq!(found(long, json!({"v": [1, 2, 4]})).len(), 1);
    }
}
