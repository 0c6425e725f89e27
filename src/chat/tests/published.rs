//! Chat templates of published models, as llama.cpp keeps them: each parses and renders a conversation.

use super::*;
use std::path::{Path, PathBuf};

/// A folder of the test models.
pub fn folder(name: &str) -> PathBuf {
    let models = std::env::var_os("OLLAMA_WGPU_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-models"),
        PathBuf::from,
    );
    let folder = models.join(name);
    assert!(
        folder.is_dir(),
        "no {}: scripts/test.sh fetches it",
        folder.display()
    );
    folder
}

/// Name and text of every template.
fn published() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder("templates")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "jinja"))
        .collect();
    files.sort();
    let named = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    files.iter().map(named).collect()
}

pub fn weather() -> Vec<Tool> {
    tools(
        &json!([{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city"}},
            "required": ["city"]}}}]),
    )
}

pub fn talk() -> Vec<Message> {
    messages(&json!([
        {"role": "user", "content": "Is it warm in Paris?"},
        {"role": "assistant", "content": "I can look."},
        {"role": "user", "content": "Please do so."},
    ]))
}

/// The talk, with a call of the tool and its answer.
pub fn talk_with_call() -> Vec<Message> {
    let call = json!({"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}});
    let more = messages(&json!([
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "21 degrees", "tool_name": "get_weather", "tool_call_id": "abcdefghi"},
    ]));
    [talk(), more].concat()
}

#[test]
fn every_template_renders_a_conversation_with_and_without_tools() {
    let (mut n_templates, mut n_with_tools) = (0, 0);
    let mut problems = Vec::new();
    for (name, text) in published() {
        n_templates += 1;
        let template = match Template::parse_jinja(&text, "<s>", "</s>") {
            Ok(template) => template,
            Err(e) => {
                problems.push(format!("{name}: {e}"));
                continue;
            }
        };
        let can_call = template.capabilities().contains(&Capability::Tools);
        n_with_tools += usize::from(can_call);
        let mut cases = vec![
            (talk(), Vec::new(), "Please do so."),
            (talk(), weather(), "Please do so."),
        ];
        let reads_tools = text.contains("tools");
        if can_call {
            cases.push((talk_with_call(), weather(), "21 degrees"));
        }
        for (messages, tools, expected) in cases {
            let input = RenderInput {
                messages: &messages,
                tools: &tools,
                think: None,
                now: now(),
            };
            match template.render(&input) {
                Ok(prompt) if !prompt.contains(expected) => {
                    problems.push(format!("{name}: {expected:?} is not in {prompt:?}"));
                }
                Ok(prompt)
                    if can_call
                        && reads_tools
                        && !tools.is_empty()
                        && !prompt.contains("get_weather") =>
                {
                    problems.push(format!("{name}: the tool is not in {prompt:?}"));
                }
                Ok(_) => {}
                Err(e) => problems.push(format!(
                    "{name}, {} tools, {} messages: {e}",
                    tools.len(),
                    messages.len()
                )),
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(
        n_templates >= 69 && n_with_tools >= 50,
        "{n_templates}, {n_with_tools} with tools"
    );
}

/// Steps are counted: a template that took more for a message the longer the conversation is would be refused.
#[test]
fn long_conversations_render_in_linear_time() {
    let turns = |n: usize| -> Vec<Message> {
        let pairs = (0..n).flat_map(|_| talk().into_iter().take(2));
        pairs.chain(talk().into_iter().skip(2)).collect()
    };
    let (short, long) = (turns(1), turns(100));
    for (name, text) in published() {
        let template = Template::parse_jinja(&text, "<s>", "</s>").unwrap();
        let (prompt, longer) = (
            render(&template, &short, &weather()),
            render(&template, &long, &weather()),
        );
        let grown = longer.len().checked_sub(prompt.len());
        assert!(grown.is_some_and(|n| n > 99 * 30), "{name}: {longer}");
    }
}

/// What ends the turn of a call, after which the templates write the tool's answer.
const ENDS: [&str; 11] = [
    "<|im_end|>",
    "<|eot_id|>",
    "</s>",
    "<|call|>",
    "<|end|>",
    "<turn|>",
    "[e~[",
    "<SPECIAL_12>",
    "<|message_sep|>",
    "<|end_of_text|>",
    "<|eot|>",
];

#[test]
fn what_a_template_writes_for_a_call_is_read_as_that_call() {
    let expected = json!({"city": "Paris"});
    let tools = weather();
    let (mut read, mut unread) = (Vec::new(), Vec::new());
    for (name, text) in published() {
        let template = Template::parse_jinja(&text, "<s>", "</s>").unwrap();
        if !template.capabilities().contains(&Capability::Tools) {
            continue;
        }
        let render = |messages: &[Message]| {
            let input = RenderInput {
                messages,
                tools: &tools,
                think: Some(Think::On),
                now: now(),
            };
            template.render(&input).unwrap()
        };
        let (prompt, whole) = (render(&talk()), render(&talk_with_call()));
        // The answer begins where the prompt for it ends, or with the tag at which the two part.
        let pairs = prompt.char_indices().zip(whole.chars());
        let parting = pairs.take_while(|((_, a), b)| a == b).last();
        let parting = parting.map_or(0, |((at, c), _)| at + c.len_utf8());
        let tag = prompt[..parting].rfind('<');
        let begin = tag.filter(|&at| !prompt[at..parting].contains('>'));
        let (prompt, answer) = whole.split_at(begin.unwrap_or(parting));
        let call = answer.find("get_weather").unwrap_or_default();
        let ends = ENDS.iter().filter_map(|end| answer[call..].find(end));
        let answer = &answer[..ends.min().map_or(answer.len(), |end| call + end)];
        let mut parser = template.output_parser(prompt, &tools, Some(Think::On));
        let deltas = [parser.push(answer), parser.finish()];
        let calls = deltas.map(|delta| delta.tool_calls).concat();
        let is_read = matches!(calls.as_slice(), [call]
            if call.name == "get_weather" && json!(call.arguments) == expected);
        match is_read {
            true => read.push(name),
            false => unread.push(name),
        }
    }
    assert!(unread.is_empty(), "{}", unread.join(" "));
    assert!(read.len() >= 66, "{}", read.join(" "));
}

/// MiniMax M3 writes lists and objects element by element, down to their texts.
#[test]
fn nested_values_are_read_as_they_are_declared() {
    let tools = tools(
        &json!([{"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {
            "days": {"type": "array", "items": {"type": "integer"}},
            "place": {"type": "object", "properties": {"city": {"type": "string"}, "lat": {"type": "number"},
                "tags": {"type": "array", "items": {"type": "string"}}, "place": {"type": "object"}}},
            "rows": {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}},
            "free": {"type": ["object", "null"]}, "text": {"type": "string"}}}}}]),
    );
    let arguments = json!({"days": [1, 2], "place": {"city": "7", "lat": 1.5, "tags": ["a", "b"], "place": {"x": "y"}},
        "rows": [[true, false], [true]], "free": {"k": "v"}, "text": "a < b"});
    let call =
        json!({"id": "abcdefghi", "function": {"name": "get_weather", "arguments": arguments}});
    let answer = messages(&json!([{"role": "assistant", "content": "", "tool_calls": [call]}]));
    let (_, text) = published()
        .into_iter()
        .find(|(name, _)| name == "MiniMax-M3")
        .unwrap();
    let template = Template::parse_jinja(&text, "", "").unwrap();
    let whole = render(&template, &[talk(), answer].concat(), &tools);
    let at = whole.rfind("]<]minimax[>[<tool_call>").unwrap();
    let mut parser = template.output_parser("", &tools, Some(Think::On));
    let deltas = [parser.push(&whole[at..]), parser.finish()];
    let calls = deltas.map(|delta| delta.tool_calls).concat();
    assert_eq!(json!(calls[0].arguments), arguments);
}

/// Most of these formats are known; that they can be read off shows that an unknown one can.
#[test]
fn a_template_that_nobody_knows_shows_its_format() {
    let mut hidden = Vec::new();
    let mut n_shown = 0;
    for (name, text) in published() {
        let template = jinja::JinjaTemplate::parse(&text, "<s>", "</s>").unwrap();
        match calls::inferred(&template) {
            Some(_) => n_shown += 1,
            None if text.contains("tool_calls") => hidden.push(name),
            None => {}
        }
    }
    assert!(n_shown >= 48, "{n_shown}; hidden: {}", hidden.join(" "));
    // What the text tells is believed as long as it reads what the template writes.
    let others = published().into_iter().filter(|(_, text)| {
        let template = jinja::JinjaTemplate::parse(text, "<s>", "</s>").unwrap();
        !matches!(template.call_format(), parser::CallFormat::Known(_))
            && calls::inferred(&template).is_some_and(|form| form.open() != "{")
    });
    let others: Vec<String> = others.map(|(name, _)| name).collect();
    for name in ["Kimi-K3", "MiniMax-M3", "tencent-Hy3"] {
        assert!(others.iter().any(|other| other == name), "{others:?}");
    }
}
