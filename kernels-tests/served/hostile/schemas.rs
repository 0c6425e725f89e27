//! Formats of answers: what cannot be compiled is a 400 within seconds, and what leads nowhere ends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{TINY, Target};

/// To compile, and to send a megabyte.
const MAX_TIME: Duration = Duration::from_secs(4);

fn nested(depth: usize) -> Value {
    (0..depth).fold(
        json!({ "type": "string" }),
        |items, _| json!({ "type": "array", "items": items }),
    )
}

fn properties(n: usize) -> Value {
    let named = (0..n).map(|i| (format!("p{i}"), json!({ "type": "string" })));
    json!({ "type": "object", "properties": Value::Object(named.collect()) })
}

fn pattern(text: &str) -> Value {
    json!({ "type": "string", "pattern": text })
}

#[test]
fn schemas_that_cannot_be_held_are_refused() {
    let target = Target::new(&[]);
    let cycle = json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } });
    let many: Vec<String> = (0..1_000_000).map(|i| format!("v{i}")).collect();
    for (schema, text) in [
        (json!({ "type": "strang" }), "strang"),
        (json!({ "type": 5 }), "type"),
        (cycle, "no text satisfies it"),
        (json!({ "$ref": "#/nope" }), "nope"),
        (json!({ "$ref": "http://127.0.0.1:1/s.json" }), "$ref"),
        (json!({ "$ref": "file:///etc/passwd" }), "$ref"),
        (nested(70), "64 deep"),
        (properties(100_000), "50000 values"),
        (json!({ "enum": many }), "50000 values"),
        (json!({ "enum": [] }), "empty"),
        (json!({ "anyOf": [] }), "empty"),
        (
            json!({ "type": "array", "minItems": 1_000_000_000 }),
            "minItems",
        ),
        (json!({ "type": "string", "maxLength": 1e30 }), "maxLength"),
        (json!({ "type": "string", "minLength": -1 }), "minLength"),
        (
            json!({ "type": "integer", "minimum": 5, "maximum": 1 }),
            "minimum",
        ),
        (
            json!({ "allOf": [{ "type": "string" }, { "type": "integer" }] }),
            "incompatible types",
        ),
        (json!({ "type": "number", "multipleOf": 0 }), "multiple of"),
        (json!({ "not": {} }), "not"),
        (pattern("*a"), "repetition operator missing expression"),
        (pattern("(?<=a)b"), "look-around"),
        (pattern(r"(a)\1"), "backreferences"),
        (pattern(&"a".repeat(2 << 20)), "1048576 bytes"),
        (
            pattern(&format!("^(a|b|c|dd)*{}$", "a?".repeat(7000))),
            "expressions",
        ),
    ] {
        let start = Instant::now();
        let answer = target.generate(json!({ "format": schema }));
        let name: String = schema.to_string().chars().take(80).collect();
        assert_eq!(answer.status, 400, "{name}: {}", answer.text);
        let error = answer.error();
        assert!(
            error.starts_with("invalid format: ") && error.contains(text),
            "{name}: {error}"
        );
        assert!(start.elapsed() < MAX_TIME, "{name}: {:?}", start.elapsed());
    }
    let deep = "{\"type\":\"array\",\"items\":".repeat(10_000) + "{}" + &"}".repeat(10_000);
    let body = format!(r#"{{"model":"{TINY}","prompt":"x","stream":false,"format":{deep}}}"#);
    assert_eq!(target.post("/api/generate", body.as_bytes()).status, 400);
    for (grammar, text) in [
        (
            "start: ".to_owned() + &"(".repeat(60_000) + "\"a\"" + &")".repeat(60_000),
            "nested",
        ),
        ("\0((".to_owned(), "lexer error"),
        (String::new(), "start"),
        ("a".repeat(2 << 20), "1048576 bytes"),
    ] {
        let answer = target.generate(json!({ "options": { "grammar": grammar } }));
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.error().contains(text), "{}", answer.text);
    }
    target.is_well();
}

#[test]
fn schemas_that_lead_on_and_on_end() {
    let target = Target::new(&[]);
    let rows = json!({ "type": "array", "minItems": 5000, "items": { "type": "array", "minItems": 5000 } });
    let one_of_many: Vec<Value> = (0..10_000)
        .map(|i| json!({ "const": format!("a{i}") }))
        .collect();
    let itself = json!({ "$ref": "#/$defs/a", "$defs": { "a": { "type": "object", "properties": { "n": { "$ref": "#/$defs/a" } } } } });
    for schema in [
        json!({}),
        nested(50),
        rows,
        itself,
        json!({ "anyOf": one_of_many }),
        properties(400),
        pattern("^(a+)+$"),
        pattern("^((a{1,1000}){1,1000}){1,1000}$"),
        json!({ "type": "string", "minLength": 10_000 }),
        json!({ "type": "number", "minimum": 0.1, "maximum": 0.100_000_000_01 }),
    ] {
        let options = json!({ "num_predict": 40, "num_ctx": 256 });
        let answer = target.generate(json!({ "format": schema, "options": options }));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let reply: Value = serde_json::from_str(&answer.text).expect("JSON");
        let reason = reply["done_reason"].as_str().unwrap_or_default();
        assert!(["stop", "length"].contains(&reason), "{reply}");
        assert!(
            reply["eval_count"].as_u64().is_some_and(|n| n <= 40),
            "{reply}"
        );
    }
    // The model may never close what it opened: the budget ends it.
    let endless = json!({ "format": { "type": "string" }, "options": { "num_predict": -1, "num_ctx": 32, "temperature": 0 } });
    assert_eq!(target.generate(endless).status, 200);
    target.is_well();
}
