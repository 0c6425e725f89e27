//! Grammars over a small vocabulary: every byte, some words, a control token and an end.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;

const WORDS: [&str; 6] = ["{\"", "\":", "true", "name", "}\n", " \n"];
const CONTROLS: [&str; 7] = [
    "</end of thought>",
    "<|start|>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|end|>",
    "<|eom|>",
];
const CONTROL: u32 = 256 + WORDS.len() as u32;
const END: u32 = CONTROL + CONTROLS.len() as u32;

struct Bytes(Vec<Vec<u8>>);

impl Bytes {
    fn new() -> Bytes {
        let mut tokens: Vec<Vec<u8>> = (0..=255).map(|b| vec![b]).collect();
        tokens.extend(WORDS.map(|w| w.as_bytes().to_vec()));
        tokens.extend(CONTROLS.map(|text| text.as_bytes().to_vec()));
        tokens.push(b"<end>".to_vec());
        Bytes(tokens)
    }
}

impl Vocabulary for Bytes {
    fn token_bytes(&self, token: u32) -> &[u8] {
        &self.0[token as usize]
    }

    fn is_control(&self, token: u32) -> bool {
        token >= CONTROL
    }

    fn is_end_of_generation(&self, token: u32) -> bool {
        token == END
    }

    fn adds_bos(&self) -> bool {
        false
    }
}

/// The id of a control token.
pub fn control(text: &str) -> Option<u32> {
    let at = CONTROLS.iter().position(|known| *known == text);
    at.map(|at| CONTROL + at as u32)
}

pub fn grammars() -> Grammars {
    Grammars::new(&Bytes::new(), END as usize + 1, control).expect("a usable vocabulary")
}

fn compiled(constraint: &Constraint) -> Result<Grammar, Error> {
    grammars().compile(constraint, None)
}

fn schema(value: Value) -> Constraint {
    Constraint::Schema(value)
}

/// Whether the grammar accepts the text byte by byte, and the end after it.
pub fn accepts(grammar: Grammar, text: &str) -> bool {
    accepts_tokens(grammar, text.bytes().map(u32::from))
}

/// The bytes of a text, with its control tokens as such.
pub fn with_controls(text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(byte) = rest.bytes().next() {
        match CONTROLS.iter().find(|known| rest.starts_with(**known)) {
            Some(known) => {
                tokens.extend(control(known));
                rest = &rest[known.len()..];
            }
            None => {
                tokens.push(u32::from(byte));
                rest = &rest[1..];
            }
        }
    }
    tokens
}

pub fn accepts_tokens(mut grammar: Grammar, tokens: impl IntoIterator<Item = u32>) -> bool {
    for token in tokens {
        grammar.prepare();
        if !grammar.allowed().expect("within budgets").is_allowed(token) {
            return false;
        }
        grammar.accept(token).expect("an allowed token");
    }
    grammar.prepare();
    grammar.allowed().expect("within budgets").is_allowed(END)
}

#[test]
fn json_is_any_object_and_nothing_else() {
    let grammar = compiled(&Constraint::Json).expect("compiles");
    for text in [
        "{}",
        r#"{"a": [1, -2.5e3, null], "b": {"c": "\u00e4\n"}}"#,
        "{\n  \"a\": true\n}",
    ] {
        assert!(accepts(grammar.clone(), text), "{text}");
    }
    for text in [
        "[]",
        "1",
        "",
        "{",
        "{}}",
        "{a: 1}",
        "{'a': 1}",
        " {}",
        "{\"a\": 01}",
    ] {
        assert!(!accepts(grammar.clone(), text), "{text}");
    }
}

#[test]
fn blanks_are_bounded() {
    let grammar = compiled(&Constraint::Json).expect("compiles");
    assert!(!accepts(grammar.clone(), "{   \"a\": 1}"));
    assert!(!accepts(grammar, "{\n\n\n\"a\": 1}"));
}

#[test]
fn properties_come_in_the_schema_s_order_and_no_others_come() {
    let grammar = compiled(&schema(json!({
        "type": "object",
        "properties": { "z": { "type": "integer" }, "a": { "enum": ["x", 2, null] } },
        "required": ["z"],
    })))
    .expect("compiles");
    for text in [
        r#"{"z": 1}"#,
        r#"{"z": -3, "a": null}"#,
        r#"{"z":0,"a":"x"}"#,
    ] {
        assert!(accepts(grammar.clone(), text), "{text}");
    }
    for text in [
        r#"{"a": 2}"#,
        r#"{"a": 2, "z": 1}"#,
        r#"{"z": 1, "b": 1}"#,
        r#"{"z": 1.5}"#,
        "{}",
    ] {
        assert!(!accepts(grammar.clone(), text), "{text}");
    }
}

#[test]
fn properties_merged_from_several_schemas_stay_allowed() {
    let part =
        |name: &str| json!({ "properties": { name: { "type": "integer" } }, "required": [name] });
    let merged = json!({ "type": "object", "allOf": [part("a"), part("b")] });
    let grammar = compiled(&schema(merged)).expect("compiles");
    assert!(accepts(grammar.clone(), r#"{"a": 1, "b": 2}"#));
    assert!(!accepts(grammar, r#"{"a": 1}"#));
}

#[test]
fn an_empty_schema_is_any_object() {
    let grammar = compiled(&schema(json!({}))).expect("compiles");
    assert!(accepts(grammar.clone(), r#"{"x": []}"#));
    assert!(!accepts(grammar, "[]"));
}

#[test]
fn recursion_references_bounds_and_patterns_hold() {
    let tree = json!({
        "$defs": { "node": {
            "type": "object",
            "properties": {
                "id": { "type": "string", "pattern": "^[a-c]{2}$" },
                "children": { "type": "array", "items": { "$ref": "#/$defs/node" }, "maxItems": 2 },
            },
            "required": ["id"],
        } },
        "$ref": "#/$defs/node",
    });
    let grammar = compiled(&schema(tree)).expect("compiles");
    assert!(accepts(
        grammar.clone(),
        r#"{"id": "ab", "children": [{"id": "cc"}]}"#
    ));
    assert!(!accepts(grammar.clone(), r#"{"id": "ad"}"#));
    let three = r#"{"id": "ab", "children": [{"id": "cc"}, {"id": "cc"}, {"id": "cc"}]}"#;
    assert!(!accepts(grammar, three));
}

#[test]
fn lark_and_regexes_are_grammars_too() {
    let regex = compiled(&Constraint::Grammar("/(yes|no)[.!]/".into())).expect("compiles");
    assert!(accepts(regex.clone(), "yes!"));
    assert!(!accepts(regex, "maybe."));
    let lark = "start: \"a\" (\",\" NUMBER)+\nNUMBER: /[0-9]{1,3}/\n";
    let lark = compiled(&Constraint::Grammar(lark.into())).expect("compiles");
    assert!(accepts(lark.clone(), "a,1,22"));
    assert!(!accepts(lark, "a,"));
}

#[test]
fn reasoning_is_free_and_the_answer_is_not() {
    let tags = |open: Option<&str>, close: &str| Reasoning {
        open: open.map(str::to_owned),
        close: close.into(),
        answer: String::new(),
    };
    let grammars = grammars();
    let compile = |reasoning| {
        grammars
            .compile(&Constraint::Json, Some(&reasoning))
            .expect("compiles")
    };
    let grammar = compile(tags(Some("<think>"), "</think>"));
    for text in [
        "{\"a\": 1}",
        "<think>\nwell { ...</think>\n\n{\"a\": 1}",
        "\n<think></think>{}",
    ] {
        assert!(accepts(grammar.clone(), text), "{text}");
    }
    for text in ["well {}", "<think>well", "<think>x</think>well"] {
        assert!(!accepts(grammar.clone(), text), "{text}");
    }
    let begun = compile(tags(None, "</think>"));
    assert!(accepts(begun.clone(), "x < y</think>{}"));
    assert!(!accepts(begun, "{}"));
    let headed = compile(Reasoning {
        answer: "<final>".into(),
        ..tags(Some("<think>"), "</think>")
    });
    for text in ["<final>{}", "<think>hm</think><final>{\"a\": 1}"] {
        assert!(accepts(headed.clone(), text), "{text}");
    }
    for text in ["{}", "<think>hm</think>{}", "<final>well"] {
        assert!(!accepts(headed.clone(), text), "{text}");
    }
}

#[test]
fn a_tag_that_is_a_control_token_is_that_token() {
    let reasoning = Reasoning {
        open: None,
        close: "</end of thought>so".into(),
        answer: String::new(),
    };
    let mut grammar = grammars()
        .compile(&Constraint::Json, Some(&reasoning))
        .expect("compiles");
    for token in [u32::from(b'x'), CONTROL] {
        grammar.prepare();
        assert!(grammar.allowed().expect("within budgets").is_allowed(token));
        grammar.accept(token).expect("allowed");
    }
    assert!(accepts(grammar.clone(), "so{}"));
    assert!(!accepts(grammar, "{}"));
}

#[test]
fn words_are_allowed_where_all_their_bytes_are() {
    let word = |text: &str| 256 + WORDS.iter().position(|w| *w == text).expect("a word") as u32;
    let mut grammar = compiled(&schema(json!({
        "type": "object", "properties": { "name": { "type": "boolean" } }, "required": ["name"],
    })))
    .expect("compiles");
    for text in ["{\"", "name", "\":", "true"] {
        grammar.prepare();
        let allowed = grammar.allowed().expect("within budgets");
        assert!(allowed.is_allowed(word(text)), "{text}");
        assert!(!allowed.is_allowed(END) && !allowed.is_allowed(CONTROL));
        grammar.accept(word(text)).expect("allowed");
    }
    assert!(accepts(grammar, "}"));
}

/// Sources that are refused, each with a part of the message.
fn refused_sources() -> Vec<(Constraint, &'static str)> {
    let mut deep = json!({});
    for _ in 0..70 {
        deep = json!({ "type": "array", "items": deep });
    }
    let many: serde_json::Map<String, Value> =
        (0..100_000).map(|i| (format!("p{i}"), json!({}))).collect();
    vec![
        (schema(json!({ "type": "nonsense" })), "nonsense"),
        (schema(json!({ "not": { "type": "string" } })), "not"),
        (schema(json!({ "if": {}, "then": {} })), "if"),
        (
            schema(json!({ "uniqueItems": true, "type": "array" })),
            "uniqueItems",
        ),
        (
            schema(json!({ "$ref": "https://example.com/schema" })),
            "example.com",
        ),
        (schema(json!({ "$ref": "#/$defs/missing" })), "missing"),
        (schema(deep), "nested more than 64"),
        (
            schema(json!({ "type": "object", "properties": many })),
            "more than 50000",
        ),
        (
            schema(json!({ "type": "array", "minItems": 1_000_000_000 })),
            "minItems",
        ),
        (
            schema(json!({ "type": "string", "maxLength": 1_000_000_000 })),
            "maxLength",
        ),
        (schema(json!({ "type": "string", "pattern": "*" })), ""),
        (
            schema(json!({ "type": "string", "pattern": "(?<=a)b" })),
            "",
        ),
        (
            schema(json!({ "type": "string", "pattern": "x".repeat(2 << 20) })),
            "1048576 bytes",
        ),
        (schema(json!({ "enum": [] })), ""),
        (
            schema(json!({ "type": "integer", "minimum": 3, "maximum": 2 })),
            "",
        ),
        (Constraint::Grammar("start: nothing".into()), "nothing"),
        (Constraint::Grammar("((((".repeat(100_000)), ""),
        (Constraint::Grammar("/(/".into()), ""),
        (Constraint::Grammar("x".repeat(2 << 20)), "1048576 bytes"),
    ]
}

#[test]
fn what_cannot_be_compiled_is_named_in_bounded_time() {
    let grammars = grammars();
    for (source, part) in refused_sources() {
        let text: String = format!("{source:?}").chars().take(80).collect();
        let start = Instant::now();
        let error = grammars.compile(&source, None).err();
        let error = error
            .unwrap_or_else(|| panic!("{text} was compiled"))
            .to_string();
        assert!(error.starts_with("invalid format: "), "{text}: {error}");
        assert!(error.contains(part) && error.len() > 18, "{text}: {error}");
        assert!(start.elapsed() < 2 * MAX_COMPILE_TIME, "{text}");
    }
}

/// Keywords of the standard, and of its earlier drafts, that no automaton holds.
fn unsupported() -> Vec<(&'static str, Value)> {
    let any = || json!({ "type": "string" });
    let object = |name: &str, value: Value| json!({ "type": "object", name: value });
    let array = |name: &str, value: Value| json!({ "type": "array", name: value });
    let format = |name: &str| json!({ "type": "string", "format": name });
    vec![
        ("not", json!({ "type": "string", "not": { "const": "a" } })),
        ("if", object("if", json!({ "required": ["a"] }))),
        ("then", object("then", json!({ "required": ["a"] }))),
        ("else", object("else", json!({ "required": ["a"] }))),
        ("propertyNames", object("propertyNames", any())),
        (
            "dependentRequired",
            object("dependentRequired", json!({ "a": ["b"] })),
        ),
        (
            "dependentSchemas",
            object("dependentSchemas", json!({ "a": {} })),
        ),
        (
            "dependencies",
            object("dependencies", json!({ "a": ["b"] })),
        ),
        (
            "unevaluatedProperties",
            object("unevaluatedProperties", json!(false)),
        ),
        ("uniqueItems", array("uniqueItems", json!(true))),
        ("contains", array("contains", any())),
        ("minContains", array("minContains", json!(1))),
        ("maxContains", array("maxContains", json!(1))),
        ("unevaluatedItems", array("unevaluatedItems", json!(false))),
        ("$dynamicRef", json!({ "$dynamicRef": "#node" })),
        ("$recursiveRef", json!({ "$recursiveRef": "#" })),
        (
            "example.com",
            json!({ "$ref": "https://example.com/schema" }),
        ),
        (
            "#node",
            json!({ "$ref": "#node", "$defs": { "n": { "$anchor": "node" } } }),
        ),
        ("no-such-format", format("no-such-format")),
        ("idn-email", format("idn-email")),
        ("uri-reference", format("uri-reference")),
        ("regex", format("regex")),
        ("json-pointer", format("json-pointer")),
    ]
}

#[test]
fn unsupported_keywords_are_named_wherever_they_stand() {
    let grammars = grammars();
    let places: [fn(Value) -> Value; 5] = [
        |schema| schema,
        |schema| json!({ "type": "object", "properties": { "x": schema }, "required": ["x"] }),
        |schema| json!({ "type": "array", "items": schema, "minItems": 1 }),
        |schema| json!({ "anyOf": [{ "type": "null" }, schema] }),
        |schema| json!({ "$defs": { "d": schema }, "type": "array", "items": { "$ref": "#/$defs/d" } }),
    ];
    let mut problems = Vec::new();
    for (name, source) in unsupported() {
        for (i, place) in places.iter().enumerate() {
            match grammars.compile(&schema(place(source.clone())), None) {
                Ok(_) => problems.push(format!("{name} at {i}: compiled")),
                Err(error) if error.to_string().contains(name) => {}
                Err(error) => problems.push(format!("{name} at {i}: {error}")),
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What earlier drafts call `prefixItems` and `items`.
#[test]
fn lists_of_the_older_form_are_understood() {
    let items = json!([{ "type": "boolean" }, { "type": "null" }]);
    let source =
        json!({ "type": "array", "items": items, "additionalItems": false, "minItems": 2 });
    match compiled(&schema(source)) {
        Ok(grammar) => {
            assert!(accepts(grammar.clone(), "[true, null]"));
            assert!(!accepts(grammar.clone(), "[true, null, 1]"));
            assert!(!accepts(grammar, "[null, true]"));
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn annotations_are_no_constraints() {
    let source = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a", "$comment": "c",
        "title": "t", "description": "d", "default": true, "examples": [1], "deprecated": true, "readOnly": true,
        "writeOnly": false, "type": "boolean",
    });
    let grammar = compiled(&schema(source)).expect("compiles");
    assert!(accepts(grammar, "false"));
}

/// Sources that are odd, and answer in bounded time whatever they answer.
#[test]
fn hostile_sources_end_in_bounded_time() {
    let grammars = grammars();
    let choices = |n: usize| -> Vec<Value> {
        (0..n)
            .map(|i| json!({ "properties": { format!("k{i}"): {} } }))
            .collect()
    };
    let values: Vec<Value> = (0..40_000).map(|i| json!(format!("value {i}"))).collect();
    let hostile = [
        json!({ "$defs": { "a": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" }),
        json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" }),
        json!({ "type": "string", "pattern": "^(a+)+$" }),
        json!({ "type": "string", "pattern": "^(([a-z]{0,99}){0,99}){0,99}$" }),
        json!({ "anyOf": choices(10_000) }),
        json!({ "enum": values }),
        json!({ "type": "string", "format": "no-such-format" }),
        json!({ "properties": { "ä".repeat(200): { "type": "ö".repeat(99) } } }),
    ];
    for source in hostile {
        let text: String = source.to_string().chars().take(60).collect();
        let start = Instant::now();
        if let Ok(mut grammar) = grammars.compile(&schema(source), None) {
            grammar.prepare();
            let _ = grammar.allowed();
        }
        assert!(start.elapsed() < 2 * MAX_COMPILE_TIME, "{text}");
    }
}
