//! Answers of every family that a config may name: nothing of their markup is ever content.

use super::named::NAMED;
use super::splits::both_ways;
use super::*;
use crate::chat::Template;
use crate::chat::calls::written_by_named;
use serde_json::{Value, json};

/// What Ollama's tests of whole models reject in contents, and the other tags of the families.
const NEVER_CONTENT: [&str; 20] = [
    "<|channel>",
    "<channel|>",
    "<think>",
    "</think>",
    "<assistant>",
    "</assistant>",
    "<tool_call>",
    "</tool_call>",
    "[THINK]",
    "[/THINK]",
    "[TOOL_CALLS]",
    "<|START_",
    "<|END_",
    "<｜tool",
    "<|tool_call",
    "<function",
    "<start_function_call>",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
];

const WORDS: &str = "Let me see, a < b.";

fn tool() -> Tool {
    let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}});
    Tool::from_json(&tool).unwrap()
}

/// Two calls with arguments.
fn calls() -> Vec<ToolCall> {
    let call = |index: usize, arguments: Value| ToolCall {
        id: String::new(),
        index,
        name: "get_weather".into(),
        arguments: arguments.as_object().unwrap().clone(),
    };
    vec![
        call(0, json!({"city": "Paris", "days": 2})),
        call(1, json!({"city": "Rome"})),
    ]
}

/// A template whose answers this parser reads.
fn template(named: &Named) -> Template {
    let template = Template::parse_go("{{ range .Messages }}{{ .Content }}{{ end }}");
    template.unwrap().read_by(named.name)
}

/// An answer in the family's own form: reasoning, unless the prompt has begun it, words, calls.
fn answer(named: &Named, is_begun: bool, calls: &[ToolCall]) -> String {
    if let Some(dialect) = dialect_of(named.marks) {
        let ReasoningTags {
            open,
            close: next,
            answer,
            ..
        } = dialect.reasoning;
        let mut text = format!("{}why?{next}{answer}{WORDS}", open.unwrap());
        for call in calls {
            let call = written_by_named(named)
                .unwrap()
                .text(std::slice::from_ref(call));
            text += &format!("{next}{call}");
        }
        return text;
    }
    let reasoning = match tags_of(named.marks) {
        None => String::new(),
        Some((_, close)) if is_begun => format!("why?\n{close}\n\n"),
        Some((open, close)) => format!("{open}\nwhy?\n{close}\n\n"),
    };
    let called = match (written_by_named(named), calls) {
        (None, _) | (_, []) => String::new(),
        (Some(written), calls) => format!("\n{}", written.text(calls)),
    };
    format!("{reasoning}{WORDS}{called}")
}

fn read(named: &Named, prompt: &str, tools: &[Tool], think: Option<Think>, text: &str) -> Delta {
    both_ways(text, |pieces| {
        let mut parser = template(named).output_parser(prompt, tools, think);
        let mut whole = Delta::default();
        let mut add = |delta: Delta| {
            whole.thinking += &delta.thinking;
            whole.content += &delta.content;
            whole.tool_calls.extend(delta.tool_calls);
        };
        pieces.iter().for_each(|piece| add(parser.push(piece)));
        add(parser.finish());
        whole
    })
}

#[test]
fn no_markup_of_a_family_is_content() {
    let thinks = [None, Some(Think::Off), Some(Think::On), Some(Think::Low)];
    for named in &NAMED {
        let tags = tags_of(named.marks);
        let prompts = match tags {
            Some((open, _)) => vec![String::new(), format!("<assistant>{open}\n")],
            None => vec![String::new()],
        };
        let reads_calls = written_by_named(named).is_some();
        for (prompt, think) in prompts.iter().flat_map(|p| thinks.map(|think| (p, think))) {
            for tools in [&[][..], &[tool()]] {
                let sent = match (tools, reads_calls) {
                    ([], _) | (_, false) => Vec::new(),
                    _ => calls(),
                };
                let text = answer(named, !prompt.is_empty(), &sent);
                let found = read(named, prompt, tools, think, &text);
                let name = format!("{} {think:?} {text}", named.name);
                assert_eq!(found.content.trim_end(), WORDS, "{name}");
                for tag in NEVER_CONTENT {
                    assert!(!found.content.contains(tag), "{name}: {tag}");
                }
                let reasons = tags.is_some() || dialect_of(named.marks).is_some();
                let expected = match think {
                    Some(Think::Off) => "",
                    _ if reasons => "why?",
                    _ => "",
                };
                assert_eq!(found.thinking.trim_end(), expected, "{name}");
                assert_eq!(found.tool_calls, sent, "{name}");
            }
        }
    }
}

/// A call within reasoning that was never closed ends it; reasoning that was cut off is no content.
#[test]
fn reasoning_that_is_not_closed_is_no_content() {
    for named in &NAMED {
        let Some((open, _)) = tags_of(named.marks) else {
            continue;
        };
        let cut = read(
            named,
            "",
            &[tool()],
            Some(Think::On),
            &format!("{open}why? <"),
        );
        assert_eq!(
            (cut.thinking.as_str(), cut.content.as_str()),
            ("why? <", "")
        );
        let Some(written) = written_by_named(named) else {
            continue;
        };
        let text = format!("{open}why?{}", written.text(&calls()));
        let called = read(named, "", &[tool()], Some(Think::On), &text);
        assert_eq!(called.tool_calls, calls(), "{}", named.name);
        assert_eq!(called.content.trim(), "", "{}", named.name);
        assert_eq!(called.thinking, "why?", "{}", named.name);
    }
}

/// A client that leaves a tool out for a turn still gets its calls as calls, in every family.
#[test]
fn calls_of_undeclared_tools_are_calls() {
    let other = Tool::from_json(&json!({"type": "function", "function": {"name": "other"}}));
    let tools = [other.unwrap()];
    let mut n_read = 0;
    for named in NAMED
        .iter()
        .filter(|named| written_by_named(named).is_some())
    {
        let sent = calls();
        let text = answer(named, false, &sent[1..]);
        let found = read(named, "", &tools, Some(Think::On), &text);
        assert_eq!(found.tool_calls.len(), 1, "{} {text}", named.name);
        let call = &found.tool_calls[0];
        assert_eq!(
            (&call.name, &call.arguments),
            (&sent[1].name, &sent[1].arguments),
            "{}",
            named.name
        );
        n_read += 1;
    }
    assert!(n_read > 20);
}

/// What a parser looks for must not be hidden, and no name is there twice.
#[test]
fn what_each_parser_looks_for_stays_visible() {
    let visible = |name: &str| {
        let template = Template::parse_go("{{ .Prompt }}").unwrap();
        template.read_by(name).visible_tokens(&[tool()]).join(" ")
    };
    for (name, expected) in [
        ("qwen3", "<think> </think> <tool_call> </tool_call>"),
        ("qwen3-coder", "<tool_call> </tool_call>"),
        (
            "ministral",
            "[THINK] [/THINK] [TOOL_CALLS] [ARGS] [CALL_ID]",
        ),
        ("passthrough", ""),
        (
            "harmony",
            "<|start|> <|channel|> <|constrain|> <|message|> <|end|>",
        ),
        ("glimmer", "<|start|> <|message|> <|eom|> <|eot|>"),
        (
            "deepseek3",
            "<think> </think> <｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁sep｜> <｜tool▁call▁end｜>",
        ),
        ("olmo3", "<function_calls> </function_calls>"),
        (
            "functiongemma",
            "<start_function_call> <end_function_call> <escape>",
        ),
        (
            "glm-4.7",
            "<think> </think> <tool_call> </tool_call> <arg_key> </arg_key> <arg_value> </arg_value>",
        ),
        (
            "gemma4",
            "<|channel> <channel|> <|tool_call> <tool_call|> <|\"|>",
        ),
        ("lfm2", "<|tool_call_start|> <|tool_call_end|>"),
        (
            "cohere",
            "<|START_THINKING|> <|END_THINKING|> <|START_ACTION|> <|END_ACTION|>",
        ),
    ] {
        assert_eq!(visible(name), expected, "{name}");
    }
    for (at, known) in NAMED.iter().enumerate() {
        assert!(NAMED[..at].iter().all(|other| other.name != known.name));
    }
    assert!(named("nosuch").is_none() && !is_renderer("nosuch"));
    assert!(is_renderer("qwen3-coder") && !is_renderer("qwen3"));
}
