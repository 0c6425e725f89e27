//! Formats of calls between tags.

use super::splits::both_ways;
use super::tagged::TaggedParser;
use super::*;
use serde_json::{Value, json};

pub fn tool() -> Tool {
    Tool::from_json(
        &json!({"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"},
        "deep": {"type": ["boolean", "null"]}, "list": {"type": "array"}}}}}),
    )
    .unwrap()
}

/// The calls and the content of a text.
pub fn parsed(mark: &str, text: &str) -> (Value, String) {
    let format = *FORMATS.iter().find(|format| format.mark == mark).unwrap();
    both_ways(text, |pieces| {
        let mut parser = TaggedParser::new(format, &[tool()]);
        let mut out: Vec<_> = pieces.iter().map(|piece| parser.push(piece)).collect();
        out.push(parser.finish());
        let calls = out.iter().flat_map(|(calls, _)| calls);
        let calls = calls.map(|c| json!([c.index, c.name, c.arguments]));
        let content = out.iter().map(|(_, content)| content.as_str());
        (calls.collect::<Value>(), content.collect::<String>())
    })
}

#[test]
fn calls_are_read_in_each_format() {
    let paris = json!([[0, "f", {"city": "Paris"}]]);
    let cases = [
        (
            "<tool_call>",
            "a \n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n b ",
            "ab ",
        ),
        (
            "<tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"city\\\": \\\"Paris\\\"}\"}",
            "",
        ),
        (
            "<function=",
            "<tool_call>\n<function=f>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
            "",
        ),
        (
            "<arg_key>",
            "<tool_call>f\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
            "",
        ),
        (
            "[TOOL_CALLS]",
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\"}}]",
            "",
        ),
        (
            "[TOOL_CALLS]",
            "ok[TOOL_CALLS]f[ARGS]{\"city\": \"Paris\"}",
            "ok",
        ),
        (
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "",
        ),
        (
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "",
        ),
        (
            "<|tool_call_start|>",
            "<|tool_call_start|>[f(city=\"Paris\")]<|tool_call_end|>",
            "",
        ),
        (
            "<function_calls>",
            "<function_calls>f(city=\"Paris\")</function_calls>",
            "",
        ),
        (
            "<start_function_call>",
            "<start_function_call>call:f{city:<escape>Paris<escape>}<end_function_call>",
            "",
        ),
        (
            "<|START_ACTION|>",
            "<|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \"f\", \"parameters\": {\"city\": \"Paris\"}}]<|END_ACTION|>",
            "",
        ),
        (
            "<|/tool_call|>",
            "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\"}}]<|/tool_call|>",
            "",
        ),
        (
            "<|tool_call|>",
            "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\"}}]",
            "",
        ),
        (
            "<TOOLCALL>",
            "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\"}}]</TOOLCALL>",
            "",
        ),
        (
            "<|tool_list_start|>",
            "<|tool_call_start|>[f(city='Paris')]<|tool_call_end|>",
            "",
        ),
        (
            "<seed:tool_call>",
            "<seed:tool_call>\n<function=f>\n<parameter=city>Paris</parameter>\n</function>\n</seed:tool_call>",
            "",
        ),
        (
            "<minimax:tool_call>",
            "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"city\">Paris</parameter>\n</invoke>\n</minimax:tool_call>",
            "",
        ),
        (
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|><|tool_calls_section_end|>",
            "",
        ),
        (
            "<|tool_call>call:",
            "<|tool_call>call:f{city:<|\"|>Paris<|\"|>}<tool_call|>",
            "",
        ),
        (
            "<function=example_function_name>{",
            "ok <function=f>{\"city\": \"Paris\"}</function>",
            "ok",
        ),
        (
            "<tool_calls>",
            "<tool_calls>[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\"}, \"id\": \"0\"}]</tool_calls>",
            "",
        ),
        (
            "'function_calls>",
            "ok\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
            "ok",
        ),
        (
            "'tool_calls>",
            "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
            "",
        ),
        (
            "<function name=\"",
            "<function name=\"f\"><param name=\"city\"><![CDATA[Paris]]></param></function>",
            "",
        ),
        (
            "<|tool_call:begin|>",
            "<|tool_calls|><|tool_call:begin|>x1<|tool_call:name|>f<|tool_call:args|>{\"city\": \"Paris\"}<|tool_call:end|><|calls|>",
            "",
        ),
        (
            "<|tools_prefix|>",
            "<|tools_prefix|>[{\"f\": {\"city\": \"Paris\"}}]<|tools_suffix|>",
            "",
        ),
        (
            "<|function_call|>",
            "<|function_call|>{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\"}}",
            "",
        ),
        (
            "followed by a json-formatted list of actions",
            "Action: ```json\n[{\"tool_name\": \"f\", \"parameters\": {\"city\": \"Paris\"}}]\n```",
            "",
        ),
        (
            "functools[",
            " functools[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\"}}]",
            "",
        ),
        (
            "List of tools: [",
            "<|tool_call_start|>[f(city='Paris')]<|tool_call_end|>",
            "",
        ),
    ];
    for (mark, text, content) in cases {
        assert_eq!(
            parsed(mark, text),
            (paris.clone(), content.to_string()),
            "{text}"
        );
    }
}

#[test]
fn several_calls_are_counted() {
    let two = json!([[0, "f", {}], [1, "g", {"x": [1, {"y": null}]}]]);
    let json_calls = "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call> <tool_call>{\"name\":\"g\",\"arguments\":{\"x\":[1,{\"y\":null}]}}</tool_call>";
    assert_eq!(
        parsed("<tool_call>", json_calls),
        (two.clone(), String::new())
    );
    let mistral = "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{\"x\": [1, {\"y\": null}]}";
    assert_eq!(
        parsed("[TOOL_CALLS]", mistral),
        (two.clone(), String::new())
    );
    let python = "<|tool_call_start|>[f(), g(x=[1, {'y': None}])]<|tool_call_end|>";
    assert_eq!(
        parsed("<|tool_call_start|>", python),
        (two.clone(), String::new())
    );
    let lines = "<function_calls>f()\ng(x=[1, {\"y\": null}])</function_calls>";
    assert_eq!(
        parsed("<function_calls>", lines),
        (two.clone(), String::new())
    );
    let escaped = "<start_function_call>call:f{}<end_function_call><start_function_call>call:g{x:[1,{y:null}]}<end_function_call>";
    assert_eq!(
        parsed("<start_function_call>", escaped),
        (two.clone(), String::new())
    );
    let quoted = "<|tool_call>call:f{}<tool_call|><|tool_call>call:g{x:[1,{y:null}]}<tool_call|>";
    assert_eq!(
        parsed("<|tool_call>call:", quoted),
        (two.clone(), String::new())
    );
    let lines = "<tool_calls>\n{\"name\": \"f\", \"arguments\": {}}\n{\"name\": \"g\", \"arguments\": {\"x\": [1, {\"y\": null}]}}\n</tool_calls>";
    assert_eq!(parsed("<tool_calls>", lines), (two.clone(), String::new()));
    let keyed =
        "<|tools_prefix|>[{\"f\": {}}, {\"g\": {\"x\": [1, {\"y\": null}]}}]<|tools_suffix|>";
    assert_eq!(
        parsed("<|tools_prefix|>", keyed),
        (two.clone(), String::new())
    );
    let dsml = "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"></｜DSML｜invoke><｜DSML｜invoke name=\"g\"><｜DSML｜parameter name=\"x\" string=\"false\">[1, {\"y\": null}]</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜tool_calls>";
    assert_eq!(parsed("'tool_calls>", dsml), (two.clone(), String::new()));
    let kimi = "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_call_begin|>g:1<|tool_call_argument_begin|>{\"x\": [1, {\"y\": null}]}<|tool_call_end|><|tool_calls_section_end|>";
    assert_eq!(
        parsed("<|tool_calls_section_begin|>", kimi),
        (two, String::new())
    );
    // A value that looks like markup of the call.
    let minimax = "<minimax:tool_call><invoke name=\"f\"><parameter name=\"city\"><invoke name=\"x\"></parameter><parameter name=\"n\">7</parameter></invoke><invoke name=\"g\"></invoke></minimax:tool_call>";
    let expected = json!([[0, "f", {"city": "<invoke name=\"x\">", "n": 7}], [1, "g", {}]]);
    assert_eq!(
        parsed("<minimax:tool_call>", minimax),
        (expected, String::new())
    );
}

#[test]
fn values_without_quotes_get_their_declared_types() {
    let text = "<tool_call><function=f><parameter=city>7</parameter><parameter=n>7</parameter><parameter=deep>True</parameter><parameter=list>[1]</parameter><parameter=other>7</parameter></function></tool_call>";
    let expected =
        json!([[0, "f", {"city": "7", "n": 7, "deep": true, "list": [1], "other": "7"}]]);
    assert_eq!(parsed("<function=", text).0, expected);
}

#[test]
fn what_is_no_call_is_text() {
    let cases = [
        ("<tool_call>not json</tool_call>", "not json"),
        ("a < b, <tool_c", "a < b, <tool_c"),
        ("plain \n", "plain \n"),
    ];
    for (text, content) in cases {
        assert_eq!(
            parsed("<tool_call>", text),
            (json!([]), content.to_string()),
            "{text}"
        );
    }
    // A tag that is a word stays.
    let prose = "Action: none. Use functools[0].";
    for mark in ["followed by a json-formatted list of actions", "functools["] {
        assert_eq!(parsed(mark, prose), (json!([]), prose.to_string()));
    }
}

#[test]
fn any_body_is_a_call_or_text() {
    let parts = [
        "f",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        "=",
        "\"",
        "'",
        "\\",
        "1",
        "é",
        "<escape>",
        "call:",
        "[ARGS]",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "<function=",
        ">",
        "<parameter=",
        "<invoke name=\"",
        "<parameter name=\"",
        "\">",
        "</parameter>",
        "<｜tool▁sep｜>",
        "<|tool_call_argument_begin|>",
        "<|\"|>",
        "\n",
    ];
    // A fixed generator: every run tries the same bodies.
    let mut state = 11u64;
    let mut next = |n: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for round in 0..6_000 {
        let format = FORMATS[round % FORMATS.len()];
        let body = (0..next(10))
            .map(|_| parts[next(parts.len())])
            .collect::<String>();
        let text = format!("{}{body}{}", format.open, format.close);
        let (calls, content) = parsed(format.mark, &text);
        let is_call = calls.as_array().is_some_and(|calls| !calls.is_empty());
        let content = content.strip_prefix("Action:").unwrap_or(&content);
        let content = content.strip_prefix("functools[").unwrap_or(content);
        assert!(
            is_call || content.trim() == body.trim() || body.trim().is_empty(),
            "{text}: {content}"
        );
    }
}
