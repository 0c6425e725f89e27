//! Answers in every format, cut in every way: what comes out does not depend on the pieces.

use super::*;
use crate::chat::Template;
use serde_json::json;

fn tool() -> Tool {
    Tool::from_json(
        &json!({"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}}}}}),
    )
    .unwrap()
}

/// What `run` makes of a text, whole and character by character: the same.
pub fn both_ways<T: PartialEq + std::fmt::Debug>(text: &str, run: impl Fn(&[&str]) -> T) -> T {
    let whole = run(&[text]);
    let characters: Vec<&str> = text.split_inclusive(|_: char| true).collect();
    assert_eq!(whole, run(&characters), "{text:?} in pieces");
    whole
}

/// A template of each format, and an answer to its prompt: reasoning, words, two calls where the format has several.
fn answers() -> Vec<(Template, String)> {
    let jinja = |marks: &str| {
        let text = format!("{marks}<think></think>");
        Template::parse_jinja(&text, "", "").unwrap()
    };
    let go = |text: &str| Template::parse_go(text).unwrap();
    let thinking_go = "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}{{ if .ToolCalls }}TAG{{ range .ToolCalls }}{{ . }}{{ end }}{{ end }}{{ end }}";
    let json = r#"{"name": "f", "arguments": {"city": "P\"}é", "n": 7}}"#;
    let cases = [
        (jinja("<tool_call>"), format!("<tool_call>\n{json}\n</tool_call>\n<tool_call>{json}</tool_call>\n bye <")),
        (
            jinja("<function="),
            "<tool_call>\n<function=f>\n<parameter=city>\na < b\n</parameter>\n</function>\n</tool_call> <tool_call><function=f></function></tool_call>".into(),
        ),
        (
            jinja("<arg_key>"),
            "<tool_call>f\n<arg_key>city</arg_key>\n<arg_value>é</arg_value>\n</tool_call><tool_call>f</tool_call> bye".into(),
        ),
        (jinja("[TOOL_CALLS]"), format!("[TOOL_CALLS][{json}, {json}]")),
        (jinja("[TOOL_CALLS]"), "[TOOL_CALLS]f[ARGS]{\"n\": 7}[TOOL_CALLS]f[ARGS]{}".into()),
        (
            jinja("<｜tool▁calls▁begin｜>"),
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"n\": 7}<｜tool▁call▁end｜><｜tool▁calls▁end｜> bye<｜tool".into(),
        ),
        (jinja("<|tool_call_start|>"), "<|tool_call_start|>[f(city=\"\\u00e9\\n\", n=7), f()]<|tool_call_end|>bye".into()),
        (jinja("<function_calls>"), "<function_calls>f(city='P')\nf()</function_calls>".into()),
        (
            jinja("<start_function_call>"),
            "<start_function_call>call:f{city:<escape>P}<escape>,n:7}<end_function_call><start_function_call>call:f{}<end_function_call>".into(),
        ),
        (jinja("<|START_ACTION|>"), format!("<|START_ACTION|>[{json}]<|END_ACTION|>")),
        (jinja("<|tool_call|><|/tool_call|>"), format!("<|tool_call|>[{json}]<|/tool_call|> bye")),
        (jinja("<|tool_call|>"), format!("<|tool_call|>[{json}]")),
        (jinja("<TOOLCALL>"), format!("<TOOLCALL>[{json}]</TOOLCALL>")),
        (jinja("<TOOLCALL>"), "<TOOLCALL>no call</TOOLCALL>".into()),
        (jinja("<|tool_list_start|>"), "<|tool_call_start|>[f(n=7)]<|tool_call_end|>bye".into()),
        (
            jinja("<seed:tool_call>"),
            "<seed:tool_call><function=f><parameter=city>a < b</parameter></function></seed:tool_call> bye </seed".into(),
        ),
        (
            jinja("<minimax:tool_call>"),
            "<minimax:tool_call>\n<invoke name=\"f\"><parameter name=\"n\">7</parameter></invoke><invoke name=\"f\"></invoke></minimax:tool_call> bye".into(),
        ),
        (
            jinja("<|tool_calls_section_begin|>"),
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"n\": 7}<|tool_call_end|><|tool_calls_section_end|>".into(),
        ),
        (
            jinja("<|tool_call>call:"),
            "<|tool_call>call:f{city:<|\"|>P}<|\"|>,n:7}<tool_call|><|tool_call>call:f{}<tool_call|>".into(),
        ),
        (jinja("<tool_calls>"), format!("<tool_calls>\n{json}\n{json}\n</tool_calls> bye")),
        (jinja("<|tools_prefix|>"), "<|tools_prefix|>[{\"f\": {\"n\": 7}}]<|tools_suffix|> bye".into()),
        (jinja("<function=example_function_name>{"), "<function=f>{\"n\": 7}</function><function=f>{}</function> bye</fun".into()),
        (
            jinja("'function_calls>"),
            "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"city\" string=\"true\">a < é</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls> bye".into(),
        ),
        (jinja("'tool_calls>"), "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"></｜DSML｜invoke></｜DSML｜tool_calls>".into()),
        (
            jinja("<function name=\""),
            "<function name=\"f\"><param name=\"city\"><![CDATA[</param>]]></param></function> <function name=\"f\"></function>".into(),
        ),
        (
            jinja("<|tool_call:begin|>"),
            "<|tool_calls|><|tool_call:begin|>x<|tool_call:name|>f<|tool_call:args|>{\"n\": 7}<|tool_call:end|><|calls|>".into(),
        ),
        (jinja("<|function_call|>"), format!("<|function_call|>{json}")),
        (jinja("followed by a json-formatted list of actions"), format!("Action:\n```json\n[\n{json}\n]```")),
        (jinja("functools["), format!("functools[{json}, {json}]")),
        (jinja("functools["), "functools is a module; Action: none".into()),
        (jinja("List of tools: ["), "<|tool_call_start|>[f(n=7)]<|tool_call_end|>bye".into()),
        (jinja(">>>${recipient}"), ">>>all\nSo >> é>>>f\n{\"n\": 7}>>>f\n{}>>>g\nwho>>>f\nno".into()),
        (jinja("<tool_call>"), format!("\n{json}\n{json}\n")),
        (jinja("<tool_call>"), format!("{json} bye <")),
        (jinja("<|tool_call_start|>"), "[f(city='P\\'', n=7), f()]".into()),
        (
            jinja("<|tool_call>call:"),
            "<|tool_call>call:f{n:7}<tool_call|><tool_call|> <|tool_response>bye<tool".into(),
        ),
        (jinja("x"), json.to_owned()),
        (jinja("x"), "{\"other\": 1} {".into()),
        (go(&thinking_go.replace("TAG", "<call>")), format!("<call>{json}<call>{json}")),
        (go(&thinking_go.replace("TAG", "[")), format!("[{json}, {json}] bye")),
        (go(&thinking_go.replace("TAG", "")), json.to_owned()),
    ];
    let with_words = cases.into_iter().flat_map(|(template, text)| {
        let again = match template.is_jinja() {
            true => Template::parse_jinja(template.text(), "", "").unwrap(),
            false => Template::parse_go(template.text()).unwrap(),
        };
        let long = format!("<think>\nwhy </thin é</think>\n\nSo < it [is] {text}");
        [(template, text), (again, long)]
    });
    with_words.collect()
}

/// Answers of gpt-oss and Glimmer, whose templates begin a message.
fn harmony_answers() -> Vec<(Template, String)> {
    let texts = [
        "<|channel|>analysis<|message|>why < é<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"n\": 7}<|call|>",
        "<|channel|>commentary<|message|>So <|end|><|start|>assistant to=functions.f<|channel|>commentary<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>bye <|",
        "no header <|",
    ];
    let glimmer = " to=self<|message|>why < é<|eom|><|start|>assistant to=f<|message|><atem:function_calls>\n<atem:invoke name=\"f\">\n<atem:parameter name=\"n\">7</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|><|start|>assistant to=user<|message|>bye <|eot";
    let template = |marks: &str| Template::parse_jinja(marks, "", "").unwrap();
    let harmony = texts.map(|text| (template("<|start|><|channel|><|message|>"), text.to_owned()));
    let glimmer = (
        template("<|start|><|message|><atem:function_calls>"),
        glimmer.to_owned(),
    );
    harmony.into_iter().chain([glimmer]).collect()
}

/// What comes out of these pieces, joined.
fn joined(template: &Template, pieces: &[&str]) -> Delta {
    let mut parser = template.output_parser("<|start|>assistant", &[tool()], Some(Think::On));
    let mut whole = Delta::default();
    let mut add = |delta: Delta| {
        whole.thinking += &delta.thinking;
        whole.content += &delta.content;
        whole.tool_calls.extend(delta.tool_calls);
    };
    for piece in pieces {
        add(parser.push(piece));
    }
    add(parser.finish());
    whole
}

#[test]
fn no_cut_changes_an_answer() {
    let mut n_calls = 0;
    for (template, text) in answers().into_iter().chain(harmony_answers()) {
        let whole = joined(&template, &[&text]);
        n_calls += whole.tool_calls.len();
        let cuts: Vec<usize> = text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect();
        for (i, &first) in cuts.iter().enumerate() {
            for &second in &cuts[i..] {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(joined(&template, &pieces), whole, "{pieces:?}");
            }
        }
        for size in [1, 2, 3, 5, 7] {
            let mut pieces: Vec<&str> = Vec::new();
            for chunk in cuts.chunks(size) {
                let end = cuts.iter().find(|&&at| at > *chunk.last().unwrap());
                pieces.push(&text[chunk[0]..*end.unwrap_or(&text.len())]);
            }
            assert_eq!(joined(&template, &pieces), whole, "{pieces:?}");
        }
    }
    assert!(n_calls > 40, "{n_calls}");
}

/// What a model writes may be anything: brackets without end, tags that never close, one long line.
#[test]
fn hostile_answers_are_text_in_bounded_time() {
    let start = std::time::Instant::now();
    for (template, text) in answers() {
        let tag: String = text.chars().take(24).collect();
        for part in ["{", "[", "f(x=[", "\"", "<", "é ", "</tool_call>\n"] {
            let text = format!("{tag}{}", part.repeat(100_000 / part.len()));
            let pieces: Vec<&str> = text.split_inclusive(part).collect();
            let pieces: Vec<String> = pieces.chunks(50).map(<[&str]>::concat).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = joined(&template, &pieces);
            assert!(whole.content.len() + whole.thinking.len() <= text.len());
        }
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
