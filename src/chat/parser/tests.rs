//! The generic parser on the cases that Ollama's own tests describe, and whole answers.

use super::*;
use crate::chat::Template;
use serde_json::{Value, json};

fn tool(name: &str) -> Tool {
    Tool::from_json(&json!({"type": "function", "function": {"name": name}})).unwrap()
}

/// Calls as `[index, name, arguments]`, and content, of a text pushed in pieces of `size`.
fn generic(tag: &str, names: &[&str], text: &str, size: usize) -> (Value, String) {
    let tools = names.iter().map(|name| tool(name)).collect::<Vec<_>>();
    let mut parser = GenericParser::new(tag.into(), &tools);
    let chars = text.chars().collect::<Vec<_>>();
    let pieces = chars
        .chunks(size)
        .map(|piece| piece.iter().collect::<String>());
    let mut out = pieces.map(|piece| parser.push(&piece)).collect::<Vec<_>>();
    out.push(parser.finish());
    let calls = out.iter().flat_map(|(calls, _)| calls);
    let calls = calls
        .map(|call| json!([call.index, call.name, call.arguments]))
        .collect();
    (calls, out.iter().map(|(_, content)| &content[..]).collect())
}

#[test]
fn generic_calls_are_found_in_pieces_of_any_size() {
    let names = ["get", "get_weather", "say"];
    let paris = json!([[0, "get_weather", {"city": "Paris"}]]);
    let none = json!([]);
    let cases = [
        (
            "{",
            r#"{"name": "get_weather", "arguments": {"city": "Paris"}}"#,
            &paris,
            "",
        ),
        (
            "{",
            r#"{"name": "get_weather", "parameters": {"city": "Paris"}}"#,
            &paris,
            "",
        ),
        (
            "{",
            r#"{"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"}"#,
            &paris,
            "",
        ),
        (
            "{",
            r#"{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}"#,
            &paris,
            "",
        ),
        ("{", r#"{"get_weather": {"city": "Paris"}}"#, &paris, ""),
        (
            "{",
            "Use this: {\"name\": \"get_weather\", \"arguments\": {}}",
            &none,
            "Use this: {\"name\": \"get_weather\", \"arguments\": {}}",
        ),
        (
            "{",
            r#"{"name": "search", "arguments": {}}"#,
            &none,
            r#"{"name": "search", "arguments": {}}"#,
        ),
        (
            "{",
            r#"{"name": "get_weather", "argum"#,
            &none,
            r#"{"name": "get_weather", "argum"#,
        ),
        (
            "{",
            r#"{"name":"jeff"}{"name":"get_weather","arguments":{"city":"Paris"}}"#,
            &none,
            r#"{"name":"jeff"}{"name":"get_weather","arguments":{"city":"Paris"}}"#,
        ),
        ("[", "[special delivery]", &none, "[special delivery]"),
        (
            "[",
            r#"[{"name": "get_weather", "arguments": {"city": "Paris"}}]]"#,
            &paris,
            "",
        ),
        (
            "<call>",
            "Sure. <call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}</call>",
            &paris,
            "Sure. ",
        ),
        (
            "<call>",
            "<call>get_weather {\"city\": \"Paris\"}",
            &paris,
            "",
        ),
        (
            "<call>",
            "<call>{get_weather} {\"city\": \"Paris\"}",
            &paris,
            "",
        ),
        ("<call>", "<cal is no tag", &none, "<cal is no tag"),
        ("<call>", "it ends in <cal", &none, "it ends in <cal"),
    ];
    for (tag, text, calls, content) in cases {
        // Ollama gives up a bare object as soon as its brackets balance, so in small pieces the
        // object that names no tool is out before the call arrives: the same text either way.
        for size in [1, 3, 1000] {
            let found = generic(tag, &names, text, size);
            assert_eq!(
                found,
                (calls.clone(), content.to_string()),
                "{tag} {text} by {size}"
            );
        }
    }
}

#[test]
fn several_generic_calls_are_counted() {
    let text = r#"[{"name":"say","arguments":{"x":1}},{"name":"get","arguments":{}}]"#;
    let expected = json!([[0, "say", {"x": 1}], [1, "get", {}]]);
    for size in [1, 1000] {
        assert_eq!(
            generic("[", &["get", "say"], text, size),
            (expected.clone(), String::new())
        );
    }
}

fn answer(template: &Template, prompt: &str, tools: &[Tool], think: Think, text: &str) -> Delta {
    let mut parser = template.output_parser(prompt, tools, Some(think));
    let mut whole = Delta::default();
    let mut deltas = text
        .chars()
        .map(|c| parser.push(&c.to_string()))
        .collect::<Vec<_>>();
    deltas.push(parser.finish());
    for delta in deltas {
        whole.thinking += &delta.thinking;
        whole.content += &delta.content;
        whole.tool_calls.extend(delta.tool_calls);
    }
    whole
}

#[test]
fn go_templates_choose_tags_and_formats() {
    let source = "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}{{ if .ToolCalls }}<call>{{ range .ToolCalls }}{{ . }}{{ end }}{{ end }}{{ end }}";
    let template = Template::parse_go(source).unwrap();
    let text = "<think>hm</think>\nok <call>say{\"a\":1}";
    let on = answer(&template, "", &[tool("say")], Think::On, text);
    assert_eq!(
        (&on.thinking[..], &on.content[..], on.tool_calls.len()),
        ("hm", "ok ", 1)
    );
    let off = answer(&template, "", &[], Think::Off, text);
    assert_eq!(off.content, text);
    assert_eq!(
        template.visible_tokens(&[tool("say")]),
        ["<think>", "</think>", "<call>"]
    );
}

#[test]
fn jinja_templates_choose_tags_and_formats() {
    let source = "{% if tools %}<tool_call></tool_call>{% endif %}<think></think>";
    let template = Template::parse_jinja(source, "", "").unwrap();
    let text = "<think>hm<tool_call>{\"name\":\"say\",\"arguments\":{\"a\":1}}</tool_call>";
    let on = answer(&template, "", &[tool("say")], Think::On, text);
    assert_eq!(
        (&on.thinking[..], &on.content[..], on.tool_calls.len()),
        ("hm", "", 1)
    );
    let off = answer(&template, "", &[tool("say")], Think::Off, text);
    assert_eq!((&off.thinking[..], off.tool_calls.len()), ("", 1));
    let opened = answer(&template, "<think>\n", &[], Think::On, "so</think>\n\nyes");
    assert_eq!((&opened.thinking[..], &opened.content[..]), ("so", "yes"));
}

/// However a text is cut into pieces, the same comes out, and nothing of plain text is lost.
#[test]
fn pieces_do_not_change_the_answer() {
    let source = "{% if tools %}<tool_call></tool_call>{% endif %}<think></think>";
    let template = Template::parse_jinja(source, "", "").unwrap();
    let parts = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "{\"name\":\"say\",",
        "\"arguments\":{}}",
        "<",
        "<t",
        "</thi",
        " ",
        "\n",
        "text",
        "é｜",
        "{",
        "}",
        "\"",
    ];
    // A fixed generator: every run tries the same texts.
    let mut state = 7u64;
    let mut next = |n: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for _ in 0..3_000 {
        let text = (0..1 + next(9))
            .map(|_| parts[next(parts.len())])
            .collect::<String>();
        let tools = [tool("say")];
        let cut = answer(&template, "", &tools, Think::On, &text);
        let mut parser = template.output_parser("", &tools, Some(Think::On));
        let (mut whole, rest) = (parser.push(&text), parser.finish());
        whole.thinking += &rest.thinking;
        whole.content += &rest.content;
        whole.tool_calls.extend(rest.tool_calls);
        assert_eq!(cut, whole, "{text:?}");
        let plain = answer(&template, "", &[], Think::On, &text);
        if !text.contains("<think>") {
            assert_eq!(plain.content, text);
        }
    }
}

/// What a model writes is as little to be trusted as what a client sends: no nesting is too deep, no length takes for ever.
#[test]
fn hostile_answers_end() {
    let tools = [tool("f")];
    let fillers = [
        "{",
        "[",
        "(",
        "<",
        "\"",
        "\\",
        "{}",
        "}",
        "]}",
        "{\"a\":",
        "f(a=[",
        "f[",
        "call:f{a:",
        "<parameter=a>",
        "<arg_key>",
    ];
    for filler in fillers {
        let long = filler.repeat(100_000 / filler.len());
        for format in FORMATS {
            for start in [
                "",
                "f",
                "f{",
                "{\"name\":\"f\",\"arguments\":",
                "call:f{a:",
                "<function=f><parameter=a>",
                "[f(a=",
            ] {
                let text = format!("{}{start}{long}{}", format.open, format.close);
                let mut parser = TaggedParser::new(format, &tools);
                let begun = std::time::Instant::now();
                parser.push(&text);
                parser.finish();
                let taken = begun.elapsed();
                assert!(
                    taken.as_secs() < 2,
                    "{} {start} {filler}: {taken:?}",
                    format.open
                );
            }
        }
        let parsers = [
            ToolParser::Generic(GenericParser::new("{".into(), &tools)),
            ToolParser::Generic(GenericParser::new("<call>".into(), &tools)),
            ToolParser::Recipients(RecipientParser::new("", &tools)),
        ];
        for tools in parsers {
            let mut parser = OutputParser::of_sections(None, tools);
            let begun = std::time::Instant::now();
            for piece in ["{\"f\":", "<call>f", &long, &long, "<|"] {
                parser.push(piece);
            }
            parser.finish();
            assert!(
                begun.elapsed().as_secs() < 2,
                "{filler}: {:?}",
                begun.elapsed()
            );
        }
        let mut harmony = HarmonyParser::new(
            dialect_of("<|start|><|channel|><|message|>").unwrap(),
            "",
            &[],
            true,
        );
        for piece in [
            "<|channel|>commentary to=functions.f<|message|>",
            &long,
            "<|call|>",
        ] {
            harmony.push(piece);
        }
        harmony.finish();
    }
}

/// The README names how many there are: those by a mark, three layouts of messages, and no form twice.
#[test]
fn the_readme_counts_the_formats() {
    let forms = formats::FORMATS.iter().map(|format| {
        let is_lfm2 = format.open == "<|tool_call_start|>";
        if is_lfm2 { "LFM2" } else { format.mark }
    });
    let forms: std::collections::BTreeSet<_> = forms.collect();
    let n_layouts = ["harmony", "glimmer", "functionary"].len();
    let text = format!("calls of {} formats read", forms.len() + n_layouts);
    assert!(include_str!("../../../README.md").contains(&text), "{text}");
}
