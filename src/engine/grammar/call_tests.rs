//! Calls that a model must make: what the grammar of each format allows, the parser of that format reads.

use serde_json::{Value, json};

use super::tests::{accepts, accepts_tokens, control, grammars, with_controls};
use super::*;
use crate::chat::{Callable, Rules, Template, Tool};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "city": {"type": "string"}, "n": {"type": "integer", "minimum": 1, "maximum": 9}, "unit": {"type": "string", "enum": ["C", "F"]},
        },
        "required": ["city"],
    })
}

/// The same tool as a request declares it and as the grammar takes it.
fn tool(name: &str, schema: &Value) -> (Tool, Callable) {
    let declared = json!({"type": "function", "function": {"name": name, "parameters": schema}});
    let callable = Callable {
        name: name.into(),
        schema: prepared_schema(schema).expect("a small schema"),
    };
    (Tool::from_json(&declared).expect("a tool"), callable)
}

pub fn grammar(template: &Template, rules: Rules) -> Grammar {
    let tools = [
        tool("f", &schema()).1,
        tool("g", &json!({"type": "object", "properties": {}})).1,
    ];
    let source = template
        .call_grammar(&tools, rules, &|_| None)
        .expect("a format for these tools");
    let constraint = Constraint::Grammar(source.clone());
    grammars()
        .compile(&constraint, None)
        .unwrap_or_else(|e| panic!("{e}:\n{source}"))
}

pub const REQUIRED: Rules = Rules {
    required: true,
    several: true,
};

/// Templates with the marks of each format, and a text of a call of `f` and one of `g` in it; the second part is the
/// argument whose value is changed to one that is not allowed.
fn formats() -> Vec<(Template, String)> {
    let jinja = |text: &str| Template::parse_jinja(text, "", "").expect("a template");
    let go = |text: &str| Template::parse_go(text).expect("a template");
    let cases: Vec<(Template, &str)> = vec![
        (
            jinja("<tool_call>"),
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>",
        ),
        (
            jinja("<function=<tool_call>"),
            "<tool_call>\n<function=f>\n<parameter=city>\nParis\n</parameter>\n<parameter=n>\n7\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
        ),
        (
            jinja("<arg_key><tool_call>"),
            "<tool_call>f\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>n</arg_key>\n<arg_value>7</arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>",
        ),
        (
            jinja("[TOOL_CALLS]"),
            "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}, {\"name\": \"g\", \"arguments\": {}}]",
        ),
        (
            jinja("[TOOL_CALLS][ARGS]"),
            "[TOOL_CALLS]f[ARGS]{\"city\": \"Paris\", \"n\": 7}[TOOL_CALLS]g[ARGS]{}",
        ),
        (
            jinja("<｜tool▁calls▁begin｜>"),
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"city\": \"Paris\", \"n\": 7}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            jinja("<｜tool▁calls▁begin｜>```json"),
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"city\": \"Paris\", \"n\": 7}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            jinja("<|tool_call_start|>"),
            "<|tool_call_start|>[f(city=\"Paris\", n=7), g()]<|tool_call_end|>",
        ),
        (
            jinja("<function_calls>"),
            "<function_calls>f(city=\"Paris\", n=7)\ng()</function_calls>",
        ),
        (
            jinja("<start_function_call>"),
            "<start_function_call>call:f{city:<escape>Paris<escape>,n:7}<end_function_call><start_function_call>call:g{}<end_function_call>",
        ),
        (
            jinja("<|START_ACTION|>"),
            "<|START_ACTION|>[{\"tool_name\": \"f\", \"parameters\": {\"city\": \"Paris\", \"n\": 7}}, {\"tool_name\": \"g\", \"parameters\": {}}]<|END_ACTION|>",
        ),
        (
            jinja("<|tool_call|><|/tool_call|>"),
            "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}, {\"name\": \"g\", \"arguments\": {}}]<|/tool_call|>",
        ),
        (
            jinja("<|tool_call|>"),
            "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}, {\"name\": \"g\", \"arguments\": {}}]",
        ),
        (
            jinja("<|tool_list_start|>"),
            "<|tool_call_start|>[f(city=\"Paris\", n=7), g()]<|tool_call_end|>",
        ),
        (
            jinja("<seed:tool_call>"),
            "<seed:tool_call>\n<function=f>\n<parameter=city>\nParis\n</parameter>\n<parameter=n>\n7\n</parameter>\n</function>\n</seed:tool_call>\n<seed:tool_call>\n<function=g>\n</function>\n</seed:tool_call>",
        ),
        (
            jinja("<minimax:tool_call>"),
            "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"city\">Paris</parameter>\n<parameter name=\"n\">7</parameter>\n</invoke>\n<invoke name=\"g\">\n</invoke>\n</minimax:tool_call>",
        ),
        (
            jinja("<|tool_calls_section_begin|>"),
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"city\": \"Paris\", \"n\": 7}<|tool_call_end|><|tool_call_begin|>functions.g:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        ),
        (
            jinja("<|tool_call>call:"),
            "<|tool_call>call:f{city:<|\"|>Paris<|\"|>,n:7}<tool_call|><|tool_call>call:g{}<tool_call|>",
        ),
        (
            jinja("<function=example_function_name>{"),
            "<function=f>{\"city\": \"Paris\", \"n\": 7}</function><function=g>{}</function>",
        ),
        (
            jinja("'function_calls>"),
            "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Paris</｜DSML｜parameter>\n<｜DSML｜parameter name=\"n\" string=\"false\">7</｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        ),
        (
            jinja("'tool_calls>"),
            "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Paris</｜DSML｜parameter>\n<｜DSML｜parameter name=\"n\" string=\"false\">7</｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
        ),
        (
            jinja("<function name=\""),
            "<function name=\"f\"><param name=\"city\">Paris</param><param name=\"n\">7</param></function><function name=\"g\"></function>",
        ),
        (
            jinja("<|tool_call:begin|>"),
            "<|tool_calls|><|tool_call:begin|>0<|tool_call:name|>f<|tool_call:args|>{\"city\": \"Paris\", \"n\": 7}<|tool_call:end|><|tool_call:begin|>0<|tool_call:name|>g<|tool_call:args|>{}<|tool_call:end|><|calls|>",
        ),
        (
            jinja("<|tools_prefix|>"),
            "<|tools_prefix|>[{\"f\": {\"city\": \"Paris\", \"n\": 7}}, {\"g\": {}}]<|tools_suffix|>",
        ),
        (
            jinja("<tool_calls>"),
            "<tool_calls>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}\n{\"name\": \"g\", \"arguments\": {}}\n</tool_calls>",
        ),
        (
            jinja("<tool_calls>["),
            "<tool_calls>[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}, {\"name\": \"g\", \"arguments\": {}}]</tool_calls>",
        ),
        (
            jinja("followed by a json-formatted list of actions"),
            "Action:\n```json\n[\n    {\n        \"tool_name\": \"f\",\n        \"parameters\": {\"city\": \"Paris\", \"n\": 7}\n    },\n    {\n        \"tool_name\": \"g\",\n        \"parameters\": {}\n    }\n]```",
        ),
        (
            jinja("functools["),
            "functools[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}, {\"name\": \"g\", \"arguments\": {}}]",
        ),
        (
            jinja("<TOOLCALL>"),
            "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}, {\"name\": \"g\", \"arguments\": {}}]</TOOLCALL>",
        ),
        (
            go(
                "{{ range .Messages }}{{ if .ToolCalls }}<tool_call>\n{{ range .ToolCalls }}{\"name\": \"{{ .Function.Name }}\", \"arguments\": {{ .Function.Arguments }}}{{ end }}\n</tool_call>{{ end }}{{ .Content }}{{ end }}",
            ),
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>",
        ),
        (
            go(
                "{{ range .Messages }}{{ if .ToolCalls }}[TOOL_CALLS] [{{ range .ToolCalls }}{\"name\": \"{{ .Function.Name }}\", \"arguments\": {{ .Function.Arguments }}}{{ end }}]{{ end }}{{ .Content }}{{ end }}",
            ),
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"n\": 7}}, {\"name\": \"g\", \"arguments\": {}}]",
        ),
    ];
    cases
        .into_iter()
        .map(|(template, text)| (template, text.to_owned()))
        .collect()
}

/// The calls of a text, read by the template's own parser, and the text that is no call.
pub fn parsed(template: &Template, text: &str) -> (Vec<(String, Value)>, String) {
    let tools = [
        tool("f", &schema()).0,
        tool("g", &json!({"type": "object"})).0,
    ];
    let mut parser = template.output_parser("", &tools, None);
    let deltas = [parser.push(text), parser.finish()];
    let calls = deltas.iter().flat_map(|d| &d.tool_calls);
    (
        calls
            .map(|c| (c.name.clone(), Value::Object(c.arguments.clone())))
            .collect(),
        deltas.iter().map(|d| d.content.as_str()).collect(),
    )
}

#[test]
fn required_calls_are_written_and_read_in_each_format() {
    let expected = [
        ("f".to_owned(), json!({"city": "Paris", "n": 7})),
        ("g".to_owned(), json!({})),
    ];
    for (template, text) in formats() {
        let grammar = grammar(&template, REQUIRED);
        assert!(accepts(grammar.clone(), &text), "{text}");
        assert_eq!(
            parsed(&template, &text),
            (expected.to_vec(), String::new()),
            "{text}"
        );
        for wrong in [
            String::new(),
            "Paris".to_owned(),
            format!("Well: {text}"),
            format!("{text}, so"),
            text.replace('7', "70"),
            text.replace("f", "h"),
            text.replace("city", "town"),
        ] {
            assert!(!accepts(grammar.clone(), &wrong), "{wrong}");
        }
    }
}

#[test]
fn calls_in_a_row_have_a_bound() {
    let template = Template::parse_jinja("functools[", "", "").expect("a template");
    let text = |n: usize| {
        let calls = vec!["{\"name\": \"g\", \"arguments\": {}}"; n];
        format!("functools[{}]", calls.join(", "))
    };
    for (n, is_allowed) in [(32, true), (33, false)] {
        let grammar = grammar(&template, REQUIRED);
        assert_eq!(accepts(grammar, &text(n)), is_allowed, "{n}");
    }
}

#[test]
fn one_call_alone_where_only_one_is_allowed() {
    let rules = Rules {
        required: true,
        several: false,
    };
    for (template, text) in formats() {
        let grammar = grammar(&template, rules);
        assert!(!accepts(grammar, &text), "{text}");
    }
    let llama =
        Template::parse_jinja("{\"name\": x, \"parameters\": y}", "", "").expect("a template");
    let text = "{\"name\": \"f\", \"parameters\": {\"city\": \"Rom\", \"unit\": \"C\"}}";
    assert!(accepts(grammar(&llama, REQUIRED), text));
    let expected = vec![("f".to_owned(), json!({"city": "Rom", "unit": "C"}))];
    assert_eq!(parsed(&llama, text), (expected, String::new()));
}

#[test]
fn words_are_free_until_a_call_begins() {
    let free = Rules {
        required: false,
        several: true,
    };
    for (template, text) in formats() {
        let grammar = grammar(&template, free);
        for right in ["", "Hello <you> [all]", &text, &format!("Well: {text}")] {
            assert!(accepts(grammar.clone(), right), "{right}");
        }
        assert!(
            !accepts(grammar.clone(), &text.replace('7', "70")),
            "{text}"
        );
    }
    let plain = Template::parse_jinja("x", "", "").expect("a template");
    let grammar = grammar(&plain, free);
    for right in ["", "Hello {you}", "{\"name\": \"g\", \"arguments\": {}}"] {
        assert!(accepts(grammar.clone(), right), "{right}");
    }
    assert!(!accepts(grammar, "{\"name\": \"h\"}"));
}

/// Whether an answer is allowed in which control tokens are such.
fn allows(template: &Template, required: bool, text: &str) -> bool {
    let rules = Rules {
        required,
        several: true,
    };
    let nothing = json!({"type": "object", "properties": {}});
    let tools = [tool("f", &schema()).1, tool("g", &nothing).1];
    let source = template.call_grammar(&tools, rules, &control);
    let source = Constraint::Grammar(source.expect("a format for the tools"));
    let grammar = grammars().compile(&source, None).expect("compiles");
    accepts_tokens(grammar, with_controls(text))
}

#[test]
fn a_call_of_gpt_oss_is_a_message_of_its_own() {
    let template =
        Template::parse_jinja("<|start|><|channel|><|message|>", "", "").expect("a template");
    let allows = |required, text: &str| allows(&template, required, text);
    let call = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"city\": \"Paris\", \"n\": 7}";
    let thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant";
    let words = "<|channel|>final<|message|>Paris < Rome";
    let both = format!("{thought}{call}");
    assert!(allows(true, call));
    for text in [call, words, &both] {
        assert!(allows(false, text), "{text}");
    }
    for wrong in [
        words.to_owned(),
        format!("{call}, so"),
        call.replace('7', "70"),
        call.replace("functions.f", "functions.h"),
    ] {
        assert!(!allows(true, &wrong), "{wrong}");
    }
    assert!(!allows(false, &both.replace('7', "70")));
    let expected = vec![("f".to_owned(), json!({"city": "Paris", "n": 7}))];
    assert_eq!(parsed(&template, &both), (expected, String::new()));
}

#[test]
fn calls_of_glimmer_are_messages_with_their_tool_named_twice() {
    let template = "<|start|><|message|><atem:function_calls>";
    let template = Template::parse_jinja(template, "", "").expect("a template");
    let call = " to=f<|message|><atem:function_calls>\n<atem:invoke name=\"f\">\n<atem:parameter name=\"city\">Paris</atem:parameter>\n<atem:parameter name=\"n\">7</atem:parameter>\n</atem:invoke>\n</atem:function_calls>";
    let other = " to=g<|message|><atem:function_calls>\n<atem:invoke name=\"g\">\n</atem:invoke>\n</atem:function_calls>";
    let next = "<|eom|><|start|>assistant";
    let two = format!("{call}{next}{other}");
    let thought = format!(" to=self<|message|>hm{next}");
    let words = " to=user<|message|>Paris < Rome";
    let allows = |required, text: &str| allows(&template, required, text);
    for text in [call, &two] {
        assert!(allows(true, text) && allows(false, text), "{text}");
    }
    for text in [
        words.to_owned(),
        format!("{thought}{words}"),
        format!("{thought}{two}"),
    ] {
        assert!(allows(false, &text) && !allows(true, &text), "{text}");
    }
    for wrong in [
        call.replace("name=\"f\"", "name=\"g\""),
        call.replace('7', "70"),
    ] {
        assert!(!allows(true, &wrong), "{wrong}");
    }
    let expected = [
        ("f".to_owned(), json!({"city": "Paris", "n": 7})),
        ("g".to_owned(), json!({})),
    ];
    assert_eq!(parsed(&template, &two), (expected.to_vec(), String::new()));
}

#[test]
fn control_tokens_are_tokens_in_a_call() {
    let template = Template::parse_jinja("<tool_call>", "", "").expect("a template");
    let source = |rules| {
        let tools = [tool("f", &schema()).1];
        let control = |text: &str| (text == "</tool_call>").then_some(7);
        template
            .call_grammar(&tools, rules, &control)
            .expect("a format for the tool")
    };
    let text = source(REQUIRED);
    assert!(
        text.contains("\"\\n\" <[7]> \"\\n<tool_call>\\n\""),
        "{text}"
    );
    assert!(!text.contains("</tool_call>"), "{text}");
}

#[test]
fn what_a_format_cannot_hold_is_named() {
    let template = Template::parse_jinja("<function=<tool_call>", "", "").expect("a template");
    for property in [
        json!({"type": "string", "pattern": "^a+$"}),
        json!({"type": ["string", "integer"]}),
        json!({"anyOf": [{"type": "string"}]}),
    ] {
        let schema = json!({"type": "object", "properties": {"odd": property}});
        let tools = [tool("f", &schema).1];
        let refused = template
            .call_grammar(&tools, REQUIRED, &|_| None)
            .expect_err("a refusal")
            .to_string();
        assert!(
            refused.contains("\"odd\"") && refused.contains("\"f\""),
            "{refused}"
        );
    }
}

#[test]
fn names_are_data() {
    let odd = "f\"\\\n<tool_call> | x: \"y\"";
    let template = Template::parse_jinja("<tool_call>", "", "").expect("a template");
    let tools = [tool(odd, &schema()).1];
    let source = template
        .call_grammar(&tools, REQUIRED, &|_| None)
        .expect("a format for the tool");
    let grammar = grammars()
        .compile(&Constraint::Grammar(source), None)
        .expect("compiles");
    let call = json!({"name": odd, "arguments": {"city": "Rome"}});
    let text = format!(
        "<tool_call>\n{}\n</tool_call>",
        call.to_string()
            .replace("\":", "\": ")
            .replace(",\"a", ", \"a")
    );
    assert!(accepts(grammar, &text), "{text}");
}
