//! Calls that are not written quite as they should be, and values that have no quotes.

use super::tagged::TaggedParser;
use super::tagged_tests::{parsed, tool};
use super::*;
use serde_json::{Value, json};

/// Values of unions, of unknown types and in Python's words; the first of the declared types that fits.
#[test]
fn values_become_the_first_type_that_fits() {
    let typed = |value: &str, schema: Value| {
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "properties": {"k": schema}}}});
        let tools = [Tool::from_json(&tool).unwrap()];
        bodies::typed_as(value, bodies::declared(&tools, "f", "k"))
    };
    let union = json!({"anyOf": [{"type": "integer"}, {"type": "string"}]});
    for (value, schema, expected) in [
        ("NULL", json!({"type": "string"}), json!(null)),
        ("null", json!({}), json!("null")),
        ("None", json!({"type": ["string", "null"]}), json!(null)),
        ("None", json!({"type": "string"}), json!("None")),
        ("True", json!({"type": "boolean"}), json!(true)),
        ("maybe", json!({"type": "boolean"}), json!(false)),
        (
            "maybe",
            json!({"type": ["boolean", "string"]}),
            json!("maybe"),
        ),
        ("7", json!({"type": "integer"}), json!(7)),
        ("7.5", json!({"type": "integer"}), json!("7.5")),
        ("7.0", json!({"type": "number"}), json!(7)),
        ("7.5", json!({"type": "number"}), json!(7.5)),
        ("7", json!({"type": "string"}), json!("7")),
        ("7", union.clone(), json!(7)),
        ("x", union, json!("x")),
        (" [1] ", json!({"type": "array"}), json!([1])),
        ("{\"a\": 1}", json!({"type": "object"}), json!({"a": 1})),
        ("[1", json!({"type": "array"}), json!("[1")),
        ("7", json!({}), json!("7")),
    ] {
        assert_eq!(typed(value, schema.clone()), expected, "{value} {schema}");
    }
}

/// What families' models get wrong, and what Ollama's parsers make of it.
#[test]
fn slips_of_the_families_are_mended() {
    let paris = json!([[0, "f", {"city": "Paris"}]]);
    for (mark, text) in [
        // GLM: a tag of the middle is missing.
        (
            "<arg_key>",
            "<tool_call>f<arg_key>city<arg_value>Paris</arg_value></tool_call>",
        ),
        (
            "<arg_key>",
            "<tool_call>f<arg_key>city</arg_key>Paris</arg_value></tool_call>",
        ),
        (
            "<arg_key>",
            "<tool_call>f<arg_key>city</arg_key><arg_value>Paris</tool_call>",
        ),
        // Without its end, but whole.
        (
            "<arg_key>",
            "<tool_call>f<arg_key>city</arg_key><arg_value>Paris</arg_value>",
        ),
        (
            "<function=",
            "<tool_call><function=f><parameter=city>Paris</parameter>",
        ),
        // Gemma 4: no end, no closing quote, an end too many.
        (
            "<|tool_call>call:",
            "<|tool_call>call:f{city:<|\"|>Paris<|\"|>}",
        ),
        (
            "<|tool_call>call:",
            "<|tool_call>call:f{city:<|\"|>Paris}<tool_call|>",
        ),
        (
            "<|tool_call>call:",
            "<|tool_call>call:f{city:<|\"|>Paris<|\"|>}<tool_call|><tool_call|> <|tool_response>",
        ),
    ] {
        assert_eq!(parsed(mark, text), (paris.clone(), String::new()), "{text}");
    }
    let more = "<|tool_call>call:f{city:<|\"|>Paris,n:7}<tool_call|>";
    let expected = json!([[0, "f", {"city": "Paris", "n": 7}]]);
    assert_eq!(parsed("<|tool_call>call:", more).0, expected);
    // One newline on each side is the format's; the others, and what looks like XML, are the value's.
    let lines = "<tool_call>\n<function=f>\n<parameter=city>\n\na < b & c</x>\n\n</parameter>\n</function>\n</tool_call>";
    let expected = json!([[0, "f", {"city": "\na < b & c</x>\n"}]]);
    assert_eq!(parsed("<function=", lines), (expected, String::new()));
}

/// An answer may be cut off anywhere; half a value is no value.
#[test]
fn calls_that_were_cut_off_are_text() {
    for (mark, text, content) in [
        (
            "<arg_key>",
            "<tool_call>f<arg_key>city</arg_key><arg_value>Par",
            "f<arg_key>city</arg_key><arg_value>Par",
        ),
        ("<arg_key>", "<tool_call>f<arg_key>ci", "f<arg_key>ci"),
        ("<arg_key>", "<tool_call>get_wea", "get_wea"),
        (
            "<function=",
            "<tool_call><function=f><parameter=city>Par",
            "<function=f><parameter=city>Par",
        ),
        (
            "<function=",
            "<tool_call><function=get_wea>",
            "<function=get_wea>",
        ),
        (
            "<tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"city\": \"Par",
            "{\"name\": \"f\", \"arguments\": {\"city\": \"Par",
        ),
    ] {
        assert_eq!(
            parsed(mark, text),
            (json!([]), content.to_owned()),
            "{text}"
        );
    }
    let required = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a", "b"]}}});
    let format = *FORMATS.iter().find(|f| f.mark == "<arg_key>").unwrap();
    let calls = |text: &str| {
        let mut parser = TaggedParser::new(format, &[Tool::from_json(&required).unwrap()]);
        parser.push(text);
        parser.finish().0.len()
    };
    let one = "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value>";
    let both = format!("{one}<arg_key>b</arg_key><arg_value>2</arg_value>");
    assert_eq!([calls(one), calls(&both)], [0, 1]);
}

/// Small models forget the tags; an answer that is calls of declared tools and nothing else is those calls.
#[test]
fn calls_without_tags_are_read() {
    let call = r#"{"name": "f", "arguments": {"city": "P}\"{"}}"#;
    let one = json!([[0, "f", {"city": "P}\"{"}]]);
    let two = json!([[0, "f", {"city": "P}\"{"}], [1, "f", {"city": "P}\"{"}]]);
    for text in [call.to_owned(), format!("\n {call}\n")] {
        assert_eq!(parsed("<tool_call>", &text), (one.clone(), String::new()));
    }
    let both = format!("{call}\n{call}");
    assert_eq!(parsed("<tool_call>", &both), (two, String::new()));
    let llama = r#"{ "name" : "f", "parameters": {}}"#;
    let none = json!([[0, "f", {}]]);
    assert_eq!(parsed("<tool_call>", llama), (none, String::new()));
    for text in [
        r#"{"name": "g", "arguments": {}}"#,
        r#"{"name": "f", "price": 3}"#,
        r#"{"name": "f"}"#,
        r#"{"name": "f", "arguments": {}} is a call"#,
        r#"{"name": "f", "arguments": {"#,
        r#"{"names": []}"#,
        r#"So: {"name": "f", "arguments": {}}"#,
        "```json\n{\"name\": \"f\", \"arguments\": {}}\n```",
        "{",
        " ",
    ] {
        let expected = (json!([]), text.to_owned());
        assert_eq!(parsed("<tool_call>", text), expected);
    }
    let tagged = format!("{{}} <tool_call>{call}</tool_call>");
    assert_eq!(parsed("<tool_call>", &tagged), (one, "{}".into()));
    for text in [
        "[f(city='P)\\'', n=[1, 2])]",
        "f(city='P)\\'', n=[1, 2])",
        "\nf(city='P)\\'',\n n=[1, 2])\n",
    ] {
        let expected = json!([[0, "f", {"city": "P)'", "n": [1, 2]}]]);
        assert_eq!(
            parsed("<|tool_call_start|>", text),
            (expected, String::new())
        );
    }
    let two = json!([[0, "f", {}], [1, "f", {"n": 1}]]);
    for text in ["[f(), f(n=1)]", "f()\nf(n=1)"] {
        let expected = (two.clone(), String::new());
        assert_eq!(parsed("<|tool_call_start|>", text), expected, "{text}");
    }
    for text in [
        "f(x) isn't linear",
        "g()",
        "[1] is",
        "f",
        "[",
        "[f(n=1), g()]",
    ] {
        let expected = (json!([]), text.to_owned());
        assert_eq!(parsed("<|tool_call_start|>", text), expected);
    }
}

/// Text is not kept from those who wait for it longer than it may be a call.
#[test]
fn text_that_can_be_no_call_is_given_out_at_once() {
    let format = *FORMATS.iter().find(|f| f.mark == "<tool_call>").unwrap();
    for (pieces, content) in [
        (&["{\"na", "mes\": "][..], "{\"names\":"),
        (&["{\"name\": \"", "x"], "{\"name\": \"x"),
        (&["Hello"], "Hello"),
    ] {
        let mut parser = TaggedParser::new(format, &[tool()]);
        let out: String = pieces.iter().map(|piece| parser.push(piece).1).collect();
        assert_eq!(out, content);
    }
}
