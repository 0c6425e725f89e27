//! Templates against recorded prompts, and conversations fitted into a context.

mod assembly;
mod go;
mod library;
mod published;

use super::*;
use chrono::NaiveDateTime;
use serde_json::{Value, json};

const TEMPLATES: &str = include_str!("../../kernels-tests/golden/chat_templates.json");
const TOKENIZERS: &str = include_str!("../../kernels-tests/golden/tokenizers.json");
const SMOLLM2: &str = include_str!("../../kernels-tests/golden/smollm2-135m-instruct-q4_1.json");
const QWEN_CODER: &str =
    include_str!("../../kernels-tests/golden/qwen2.5-coder-0.5b-instruct-q4_k_m.json");
const TRANSCRIPTS: &str = include_str!("../../kernels-tests/golden/ollama/transcripts.jsonl");

fn now() -> NaiveDateTime {
    NaiveDateTime::parse_from_str("2026-11-22 21:00", "%Y-%m-%d %H:%M").unwrap()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The template of a model or tokenizer, and whether its tokenizer adds BOS.
fn template(name: &str) -> (Template, bool) {
    let entry = &parse(TEMPLATES)[name];
    let text = |key: &str| entry[key].as_str().unwrap().to_string();
    let template = Template::parse_jinja(&text("template"), &text("bos"), &text("eos")).unwrap();
    (template, entry["adds_bos"].as_bool().unwrap())
}

fn message(json: &Value) -> Message {
    let text = |key: &str| json[key].as_str().unwrap_or("").to_string();
    let calls = json["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
    let calls = calls.iter().enumerate().map(|(index, call)| ToolCall {
        id: call["id"].as_str().unwrap_or("").to_string(),
        index,
        name: call["function"]["name"].as_str().unwrap().to_string(),
        arguments: call["function"]["arguments"].as_object().unwrap().clone(),
    });
    Message {
        tool_calls: calls.collect(),
        tool_name: text("tool_name"),
        tool_call_id: text("tool_call_id"),
        ..Message::new(Role::new(&text("role")), text("content"))
    }
}

fn messages(json: &Value) -> Vec<Message> {
    json.as_array().unwrap().iter().map(message).collect()
}

fn tools(json: &Value) -> Vec<Tool> {
    let tools = json.as_array().map_or(&[][..], Vec::as_slice);
    tools
        .iter()
        .map(|tool| Tool::from_json(tool).unwrap())
        .collect()
}

fn render(template: &Template, messages: &[Message], tools: &[Tool]) -> String {
    template
        .render(&RenderInput {
            messages,
            tools,
            think: None,
            now: now(),
        })
        .unwrap()
}

#[test]
fn templates_of_all_tokenizers_render_the_recorded_prompts() {
    let recorded = parse(TOKENIZERS);
    let mut n_prompts = 0;
    for (name, tokenizer) in recorded["tokenizers"].as_object().unwrap() {
        let Some(chats) = tokenizer["chat"].as_array() else {
            continue;
        };
        let (template, adds_bos) = template(name);
        for (chat, sent) in chats.iter().zip(recorded["messages"].as_array().unwrap()) {
            let prompt = render(&template, &messages(sent), &[]);
            let prompt = if adds_bos {
                template.without_bos(&prompt)
            } else {
                &prompt
            };
            assert_eq!(prompt, chat["prompt"].as_str().unwrap(), "{name}");
            n_prompts += 1;
        }
    }
    assert_eq!(n_prompts, 51);
}

#[test]
fn templates_of_real_models_render_the_recorded_prompts() {
    let models = [
        ("smollm2-135m-instruct-q4_1", SMOLLM2),
        ("qwen2.5-coder-0.5b-instruct-q4_k_m", QWEN_CODER),
    ];
    for (name, recorded) in models {
        let entry = &parse(TEMPLATES)[name];
        let text = |key: &str| entry[key].as_str().unwrap();
        let template =
            jinja::JinjaTemplate::parse(text("template"), text("bos"), text("eos")).unwrap();
        for chat in parse(recorded)["chat"].as_array().unwrap() {
            let messages = messages(&chat["messages"]);
            // The reference passed tools on as they came, before Ollama's order of members.
            let tools = chat["tools"].as_array().cloned().unwrap_or_default();
            let input = RenderInput {
                messages: &messages,
                tools: &[],
                think: None,
                now: now(),
            };
            let prompt = template.render_with(&tools, &input).unwrap();
            assert_eq!(prompt, chat["prompt"].as_str().unwrap(), "{name}");
        }
    }
}

/// The template that a recorded case's model has.
fn template_of_case(case: &Value) -> Template {
    let model = case["request"]["body"]["model"].as_str().unwrap();
    let setup = case["setup_requests"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let created = setup
        .iter()
        .find(|request| request["body"]["model"] == model);
    if let Some(source) = created.and_then(|request| request["body"]["template"].as_str()) {
        return Template::parse_go(source).unwrap();
    }
    match model {
        "qwen-coder" => template("qwen2.5-coder-0.5b-instruct-q4_k_m").0,
        _ => Template::parse_go(shipped::chatml().template).unwrap(),
    }
}

#[test]
fn recorded_prompts_of_a_real_ollama_are_equal() {
    let cases = [
        "chat/role-upper-case",
        "chat/ignored-fields",
        "chat/debug-render-native-tool-turns",
        "chat/debug-render-go-template-tools",
        "chat/debug-render-go-template-tool-turns",
    ];
    for name in cases {
        let case = TRANSCRIPTS
            .lines()
            .map(parse)
            .find(|case| case["name"] == name)
            .unwrap();
        let body = &case["request"]["body"];
        let prompt = render(
            &template_of_case(&case),
            &messages(&body["messages"]),
            &tools(&body["tools"]),
        );
        let recorded = &case["response"]["body"]["_debug_info"]["rendered_template"];
        assert_eq!(prompt, recorded.as_str().unwrap(), "{name}");
    }
}

#[test]
fn a_recorded_conversation_that_is_too_long_loses_its_oldest_messages() {
    let name = "chat/prompt-too-long-drops-messages";
    let case = TRANSCRIPTS
        .lines()
        .map(parse)
        .find(|case| case["name"] == name)
        .unwrap();
    let messages = messages(&case["request"]["body"]["messages"]);
    let recorded = &case["response"]["body"]["_debug_info"]["rendered_template"];
    let input = RenderInput {
        messages: &messages,
        tools: &[],
        think: None,
        now: now(),
    };
    // Words stand for tokens: the recorded prompt is the longest that fits.
    let n_words = |text: &str| text.split_whitespace().count();
    let limit = n_words(recorded.as_str().unwrap());
    let prompt = fit(&template_of_case(&case), &input, Some(limit), n_words).unwrap();
    assert_eq!(prompt.text, recorded.as_str().unwrap());
    assert_eq!(prompt.n_dropped, 2);
}

fn user(content: &str, n_images: usize) -> Message {
    Message {
        n_images,
        ..Message::new(Role::User, content)
    }
}

#[test]
fn templates_without_messages_run_once_a_turn() {
    let legacy = "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n{{ .Response }}<|im_end|>\n";
    let modern = "{{ range $i, $_ := .Messages }}{{ if eq .Role \"assistant\" }}<|im_start|>assistant\n{{ .Content }}{{ if ne (len (slice $.Messages $i)) 1 }}<|im_end|>\n{{ end }}{{ else }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ if eq (len (slice $.Messages $i)) 1 }}<|im_start|>assistant\n{{ end }}{{ end }}{{ end }}";
    let (legacy, modern) = (
        Template::parse_go(legacy).unwrap(),
        Template::parse_go(modern).unwrap(),
    );
    let say = |role: Role, text: &str| Message::new(role, text);
    let conversations = [
        vec![say(Role::User, "Hi")],
        vec![say(Role::System, "S"), say(Role::User, "Hi")],
        vec![
            say(Role::User, "a"),
            say(Role::Assistant, "b"),
            say(Role::User, "c"),
        ],
        vec![say(Role::User, "a"), say(Role::Assistant, "prefill")],
        vec![say(Role::User, "a"), say(Role::User, "b")],
    ];
    for conversation in &conversations {
        assert_eq!(
            render(&legacy, conversation, &[]),
            render(&modern, conversation, &[])
        );
    }
}

#[test]
fn templates_without_a_response_get_one() {
    let template = Template::parse_go("{{ .Prompt }}").unwrap();
    assert!(template.mentions("response"));
    let turns = [
        user("a", 0),
        Message::new(Role::Assistant, "b"),
        user("c", 0),
    ];
    assert_eq!(render(&template, &turns, &[]), "abc");
}

#[test]
fn insert_templates_fill_in_between() {
    let source = "{{ if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{ else }}{{ .Prompt }}{{ end }}";
    let template = Template::parse_go(source).unwrap();
    let input = RenderInput {
        messages: &[],
        tools: &[],
        think: None,
        now: now(),
    };
    assert_eq!(
        template.render_insert("a", "b", &input).unwrap(),
        "<PRE> a <SUF>b <MID>"
    );
    assert_eq!(template.capabilities(), [Capability::Insert]);
}

#[test]
fn tools_print_as_in_a_real_ollama() {
    let bare = Tool::from_json(&json!({"type": "function", "function": {
        "name": "get_weather", "description": "Get weather <b>"}}))
    .unwrap();
    let print = |source: &str| {
        let source = format!("{{{{ range .Messages }}}}{{{{ end }}}}{source}");
        render(
            &Template::parse_go(&source).unwrap(),
            &[user("x", 0)],
            std::slice::from_ref(&bare),
        )
    };
    let json = r#"{"type":"function","function":{"name":"get_weather","description":"Get weather \u003cb\u003e","parameters":{"type":"","properties":null}}}"#;
    assert_eq!(print("{{ .Tools }}"), format!("[{json}]"));
    assert_eq!(
        print("{{ range .Tools }}{{ . }}{{ json .Function.Name }}{{ end }}"),
        format!("{json}\"get_weather\"")
    );
    assert_eq!(
        print("{{ range .Tools }}{{ .Function.Parameters.Properties }}{{ end }}"),
        "{}"
    );
}

#[test]
fn jinja_templates_have_the_reference_environment() {
    let input = |think| RenderInput {
        messages: &[],
        tools: &[],
        think,
        now: now(),
    };
    let print = |source: &str, think| {
        let result =
            Template::parse_jinja(source, "<s>", "</s>").and_then(|t| t.render(&input(think)));
        result.unwrap_or_else(|error| error.to_string())
    };
    let cases = [
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("{{ strftime_now('%d %b %Y') }}", "22 Nov 2026"),
        (
            "{{ strftime_now('%Q') }}",
            "chat template: strftime_now does not know the format \"%Q\" (line 1)",
        ),
        ("{% generation %}x{% endgeneration %}y", "xy"),
        ("a\n{%- generation -%}\n x {%- endgeneration %}", "ax"),
        (
            "{{ {'a': [1, 2.5, none, true], 'b': 'é<\"'} | tojson }}",
            "{\"a\": [1, 2.5, null, true], \"b\": \"é<\\\"\"}",
        ),
        (
            "{{ {'b': 1, 'a': {}} | tojson(indent=2) }}",
            "{\n  \"b\": 1,\n  \"a\": {}\n}",
        ),
        (
            "{{ 'é😀' | tojson(ensure_ascii=true) }}",
            "\"\\u00e9\\ud83d\\ude00\"",
        ),
        (
            "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=[',', ':']) }}",
            "{\"a\":2,\"b\":1}",
        ),
        (
            "{{ [true, none, 'it\\'s', {'a': 1}] }}{{ true }}{{ none }}",
            "[True, None, \"it's\", {'a': 1}]TrueNone",
        ),
        (
            "{{ ' a,b '.strip().split(',')[-1] }}{{ 'x'.startswith('x') }}",
            "bTrue",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
            "3",
        ),
        ("{% for m in [1, 2, 3][::-1] %}{{ m }}{% endfor %}", "321"),
        (
            "{{ raise_exception('no tools here') }}",
            "chat template: no tools here (line 1)",
        ),
        (
            "{% if tools is defined and tools is none %}no tools{% endif %}",
            "no tools",
        ),
        (
            "{{ 'abc'[1:] }}{{ 'a' in 'abc' }}{{ {'a': 1}.get('b', 'd') }}",
            "bcTrued",
        ),
        (
            "{{ none is iterable }}{{ 'a' is iterable }}{{ {} is sequence }}",
            "FalseTrueTrue",
        ),
        ("  {% if true %}\n  x\n  {% endif %}\ny", "  x\ny"),
    ];
    for (source, expected) in cases {
        assert_eq!(print(source, None), expected, "{source}");
    }
    let think = "{{ enable_thinking }}{{ reasoning_effort }}";
    assert_eq!(print(think, None), "");
    assert_eq!(print(think, Some(Think::Off)), "False");
    assert_eq!(print(think, Some(Think::On)), "True");
    assert_eq!(print(think, Some(Think::Max)), "Truemax");
    assert_eq!(print(think, Some(Think::High)), "Truehigh");
}

#[test]
fn arguments_are_text_for_templates_that_join_them() {
    let source = "{% for m in messages %}{% for c in m.tool_calls %}{{ '<' + c.function.arguments + '>' }}{% endfor %}{% endfor %}";
    let template = Template::parse_jinja(source, "", "").unwrap();
    let call = json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}]);
    assert_eq!(render(&template, &messages(&call), &[]), "<{\"a\":1}>");
}

#[test]
fn contents_are_parts_for_templates_that_read_no_texts() {
    let fails = "{% for m in messages %}{{ '<' + m.content[0]['text'] + '>' }}{% endfor %}";
    let leaves_out = "{% for m in messages %}<{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}>{% endfor %}";
    let takes_both = "{% for m in messages %}<{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text + '!' }}{% endif %}>{% endfor %}";
    for source in [fails, leaves_out, takes_both] {
        let template = Template::parse_jinja(source, "", "").unwrap();
        let turns = [Message::new(Role::System, "s"), user("a", 0)];
        assert_eq!(render(&template, &turns, &[]), "<s><a>", "{source}");
    }
}

#[test]
fn an_open_turn_of_the_assistant_is_continued() {
    let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let template = Template::parse_jinja(source, "", "").unwrap();
    let turns = [user("a", 0), Message::new(Role::Assistant, "Sure, ")];
    assert_eq!(
        render(&template, &turns, &[]),
        "<user>a</><assistant>Sure, "
    );
}

/// A template comes with a model file: what it costs is bounded.
#[test]
fn hostile_jinja_templates_end_in_an_error() {
    let nested = format!(
        "{}{}",
        "{% if true %}".repeat(5_500),
        "{% endif %}".repeat(5_500)
    );
    let sources = [
        &nested[..],
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 1000000000 }}",
        "{% set ns = namespace(x='x') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% include 'other' %}",
        "{{ messages.__class__.__mro__ }}",
    ];
    for source in sources {
        let input = RenderInput {
            messages: &[],
            tools: &[],
            think: None,
            now: now(),
        };
        let result = Template::parse_jinja(source, "", "").and_then(|t| t.render(&input));
        assert!(
            result.is_err(),
            "{}: {result:?}",
            &source[..40.min(source.len())]
        );
    }
    assert!(Template::parse_go(&"x".repeat(template::MAX_SOURCE_BYTES + 1)).is_err());
}
