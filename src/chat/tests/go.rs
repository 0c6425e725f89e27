//! Go templates: what they are given, and how it prints.

use super::*;

fn prompt(source: &str, messages: &[Message], tools: &[Tool]) -> String {
    render(&Template::parse_go(source).unwrap(), messages, tools)
}

fn say(role: &str, text: &str) -> Message {
    Message::new(Role::new(role), text)
}

#[test]
fn identifiers_choose_the_mode() {
    let mentions = |source: &str| {
        let template = Template::parse_go(source).unwrap();
        let names = [
            "content", "messages", "prompt", "response", "role", "system", "tools",
        ];
        names
            .into_iter()
            .filter(|name| template.mentions(name))
            .collect::<Vec<_>>()
    };
    assert_eq!(mentions("{{ .Prompt }}"), ["prompt", "response"]);
    assert_eq!(
        mentions("{{ with .Tools }}{{ . }}{{ .System }}{{ end }}{{ .Prompt }}"),
        ["prompt", "response", "system", "tools"]
    );
    assert_eq!(
        mentions("{{ range .Messages }}{{ .Role }}{{ .Content }}{{ end }}"),
        ["content", "messages", "role"]
    );
    for (source, error) in [
        ("{{ .Prompt", "template: :1: unclosed action"),
        ("{{ template \"other\" . }}", "undefined template specified"),
    ] {
        let found = Template::parse_go(source).unwrap_err().to_string();
        assert_eq!(found, error, "{source}");
    }
}

/// A template of before there were messages, and one of messages.
#[test]
fn both_styles_of_mistral_agree() {
    let legacy =
        "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST] {{ .Response }}</s>";
    let modern = "{{- range $i, $m := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 }}{{- if eq .Role \"user\" }}[INST] {{ if and $.System (le $i 1) }}{{ $.System }}\n\n{{ end }}{{ .Content }}[/INST] {{ else if eq .Role \"assistant\" }}{{ .Content }}{{ if not $last }}</s>{{ end }}{{ end }}{{- end }}";
    let conversations: [&[(&str, &str)]; 5] = [
        &[("user", "a")],
        &[("system", "s"), ("user", "a")],
        &[("user", "a"), ("assistant", "b"), ("user", "c")],
        &[("system", "s"), ("user", "a"), ("assistant", "prefill")],
        &[("user", "a"), ("user", "b")],
    ];
    for conversation in conversations {
        let messages: Vec<_> = conversation
            .iter()
            .map(|(role, text)| say(role, text))
            .collect();
        assert_eq!(
            prompt(legacy, &messages, &[]),
            prompt(modern, &messages, &[])
        );
    }
}

#[test]
fn neighbours_of_one_role_are_joined() {
    let source = "{{ range .Messages }}{{ .Role }}:{{ .Content }}:{{ len .Images }}{{ len .ToolCalls }}{{ .Thinking }};{{ end }}{{ .System }}";
    let call = ToolCall {
        id: String::new(),
        index: 0,
        name: "f".into(),
        arguments: serde_json::Map::new(),
    };
    let messages = [
        say("system", "s"),
        say("system", "t"),
        user("a", 0),
        Message {
            n_images: 1,
            ..say("user", "b")
        },
        say("assistant", "c"),
        Message {
            tool_calls: vec![call],
            thinking: "hm".into(),
            ..say("assistant", "d")
        },
        say("tool", "1"),
        say("tool", "2"),
        say("system", "u"),
    ];
    // Of the later one only the content is kept.
    assert_eq!(
        prompt(source, &messages, &[]),
        "system:s\n\nt:00;user:a\n\nb:00;assistant:c\n\nd:00;tool:1:00;tool:2:00;system:u:00;s\n\nt\n\nu"
    );
}

#[test]
fn legacy_templates_leave_tools_out() {
    let source = "{{ if .System }}<{{ .System }}>{{ end }}{{ if .Prompt }}[{{ .Prompt }}]{{ end }}{{ .Response }}|";
    let messages = [
        say("user", "a"),
        say("assistant", "first"),
        say("tool", "t"),
        say("assistant", "second"),
        say("system", "s"),
        say("user", "b"),
    ];
    assert_eq!(prompt(source, &messages, &[]), "[a]second|<s>[b]");
    let tools = "{{ if .Tools }}tools{{ end }}{{ .Prompt }}";
    let tool = Tool::from_json(&json!({"type": "function", "function": {"name": "f"}})).unwrap();
    assert_eq!(prompt(tools, &[user("a", 0)], &[tool]), "a");
}

#[test]
fn arguments_and_properties_print_and_range() {
    let tool = Tool::from_json(
        &json!({"type": "function", "function": {"name": "f", "description": "d",
        "parameters": {"type": "object", "required": ["z"], "properties": {
            "z": {"type": "string", "description": "<Z>", "enum": ["x", "y"]},
            "a": {"type": ["integer", "null"]},
            "l": {"type": "array", "items": {"type": "string"}},
            "o": {"anyOf": [{"type": "object"}, {"type": "boolean"}]}}}}}),
    )
    .unwrap();
    let call = json!([{"role": "assistant", "tool_calls": [
        {"id": "1", "function": {"name": "f", "arguments": {"z": "<&>", "a": 1.5, "n": 10, "b": null, "deep": {"y": 1, "x": [true]}}}},
        {"function": {"name": "g", "arguments": {}}},
    ]}]);
    let print = |source: &str| {
        let source = source.replace("CALLS", "{{ range .Messages }}{{ range .ToolCalls }}");
        let source = source.replace(
            "TOOLS",
            "{{ range .Messages }}{{ end }}{{ range .Tools }}{{ with .Function.Parameters }}",
        );
        prompt(
            &source.replace("ENDS", "{{ end }}{{ end }}"),
            &messages(&call),
            std::slice::from_ref(&tool),
        )
    };
    let cases = [
        (
            "CALLS{{ .Function.Arguments }}ENDS",
            r#"{"a":1.5,"b":null,"deep":{"x":[true],"y":1},"n":10,"z":"\u003c\u0026\u003e"}{}"#,
        ),
        (
            "CALLS{{ json .Function.Name }}{{ .ID }};ENDS",
            "\"f\"1;\"g\";",
        ),
        (
            "CALLS{{ range $k, $v := .Function.Arguments }}{{ $k }}={{ $v }},{{ end }}ENDS",
            "a=1.5,b=<no value>,deep=map[x:[true] y:1],n=10,z=<&>,",
        ),
        ("CALLS{{ .Function.Index }}ENDS", "01"),
        (
            "TOOLS{{ range $k, $v := .Properties }}{{ $k }}:{{ .Type }}:{{ $v.Type }}:{{ toTypeScriptType $v }}:{{ $v.Description }};{{ end }}ENDS",
            "a:[integer null]:[integer null]:number | null:;l:array:array:any[]:;o:::Record<string, any> | boolean:;z:string:string:string:<Z>;",
        ),
        (
            "TOOLS{{ range .Required }}{{ . }}{{ end }}{{ .Type }}ENDS",
            "zobject",
        ),
        (
            "TOOLS{{ len .Properties }}{{ (index .Properties \"z\").Enum }}{{ json (index .Properties \"z\").Enum }}ENDS",
            "4[x y][\"x\",\"y\"]",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(print(source), expected, "{source}");
    }
}

/// What published templates are written with.
#[test]
fn constructs_of_published_templates() {
    let turns = [
        say("system", "s"),
        user("a", 0),
        say("assistant", "b"),
        user("c", 0),
    ];
    let cases = [
        (
            "{{- $last := \"\" }}{{ range .Messages }}{{ if eq .Role \"user\" }}{{ $last = .Content }}{{ end }}{{ end }}{{ $last }}",
            "c",
        ),
        (
            "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ if $last }}<{{ .Content }}>{{ end }}{{ end }}",
            "<c>",
        ),
        (
            "{{ (index .Messages 1).Content }}{{ with index .Messages 2 }}{{ .Role }}{{ end }}",
            "aassistant",
        ),
        ("{{ range slice .Messages 2 }}{{ .Content }}{{ end }}", "bc"),
        (
            "{{ printf \"%s-%d-%v-%q\" .System (len .Messages) true \"x\\\"\" }}{{ range .Messages }}{{ end }}",
            "s-4-true-\"x\\\"\"",
        ),
        (
            "{{ range .Messages }}{{ with .ToolCalls }}calls{{ else with .Content }}{{ . }}{{ else }}none{{ end }}{{ end }}",
            "sabc",
        ),
        (
            "a {{- /* said\nby no one */ -}} b{{ range .Messages }}{{ end }}",
            "ab",
        ),
        (
            "{{ range .Messages -}}\n\t {{ .Content }}\n{{- end }}\n{{- \"!\" }}",
            "sabc!",
        ),
        (
            "{{ define \"turn\" }}[{{ .Content }}]{{ end }}{{ range .Messages }}{{ template \"turn\" . }}{{ end }}",
            "[s][a][b][c]",
        ),
        (
            "{{ if and (gt (len .Messages) 3) (not .Tools) (ne .System \"\") }}yes{{ end }}",
            "yes",
        ),
        (
            "{{ range .Messages }}{{ if or (eq .Role \"user\" \"system\") false }}{{ continue }}{{ end }}{{ .Content }}{{ break }}{{ end }}",
            "b",
        ),
        (
            "{{ currentDate }} {{ currentDate \"ignored\" }} {{ yesterdayDate }}{{ range .Messages }}{{ end }}",
            "2026-11-22 2026-11-22 2026-11-21",
        ),
        (
            "{{ `raw\\n` }}{{ \"\\u00e9\\n\" }}{{ 'x' }}{{ 0x10 }}{{ range .Messages }}{{ end }}",
            "raw\\né\n12016",
        ),
        (
            "{{ .Think }}{{ .ThinkLevel }}{{ .IsThinkSet }}{{ .Response }}{{ range .Messages }}{{ end }}",
            "falsefalse",
        ),
        (
            "{{ .Nothing }}{{ if .Nothing }}x{{ end }}{{ range .Messages }}{{ end }}",
            "<no value>",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(prompt(source, &turns, &[]), expected, "{source}");
    }
    let template = Template::parse_go("{{ range .Messages }}{{ .Nothing }}{{ end }}").unwrap();
    let input = RenderInput {
        messages: &turns,
        tools: &[],
        think: None,
        now: now(),
    };
    assert!(
        template
            .render(&input)
            .unwrap_err()
            .to_string()
            .contains("can't evaluate field Nothing")
    );
}

#[test]
fn the_branch_of_a_suffix_renders() {
    let source = "{{- if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{ else }}{{ range .Messages }}{{ .Content }}{{ end }}{{ end }}{{ .ThinkLevel }}";
    let template = Template::parse_go(source).unwrap();
    let turns = [user("chat", 0)];
    let input = RenderInput {
        messages: &turns,
        tools: &[],
        think: Some(Think::On),
        now: now(),
    };
    assert_eq!(
        template.render_insert("a", "b", &input).unwrap(),
        "<PRE> a <SUF>b <MID>medium"
    );
    assert_eq!(template.render(&input).unwrap(), "chatmedium");
}
