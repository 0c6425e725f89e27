//! The shipped templates against the formats as their models were published with them, and what is recognised.

use super::*;
use crate::chat::{Message, RenderInput, Role, Template, Tool, ToolCall};
use chrono::NaiveDateTime;
use serde_json::json;

/// Name, prompt of a user's turn, of one after an answer, and of the same behind a system text. Turns are `U` and `V`,
/// the answer is `A`, the system text `S`.
const FORMATS: [[&str; 4]; 20] = [
    [
        "alfred",
        "<start_user>U<end_message><start_assistant>",
        "<start_user>U<end_message><start_assistant>A<end_message><start_user>V<end_message><start_assistant>",
        "<start_system>S<end_message><start_user>U<end_message><start_assistant>A<end_message><start_user>V<end_message><start_assistant>",
    ],
    [
        "alpaca",
        "### Instruction:\nU\n\n### Response:\n",
        "### Instruction:\nU\n\n### Response:\nA\n\n### Instruction:\nV\n\n### Response:\n",
        "S\n\n### Instruction:\nU\n\n### Response:\nA\n\n### Instruction:\nV\n\n### Response:\n",
    ],
    [
        "chatml",
        "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
    ],
    [
        "chatqa",
        "User: U\n\nAssistant:",
        "User: U\n\nAssistant: A\n\nUser: V\n\nAssistant:",
        "System: S\n\nUser: U\n\nAssistant: A\n\nUser: V\n\nAssistant:",
    ],
    [
        "codellama-70b-instruct",
        "Source: user\n\n U <step> Source: assistant\nDestination: user\n\n ",
        "Source: user\n\n U <step> Source: assistant\n\n A <step> Source: user\n\n V <step> Source: assistant\nDestination: user\n\n ",
        "Source: system\n\n S <step> Source: user\n\n U <step> Source: assistant\n\n A <step> Source: user\n\n V <step> Source: assistant\nDestination: user\n\n ",
    ],
    [
        "command-r",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>V<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>V<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ],
    [
        "falcon-instruct",
        "User: \nU\nFalcon:\n",
        "User: \nU\nFalcon:\nA\nUser: \nV\nFalcon:\n",
        "System: S\nUser: \nU\nFalcon:\nA\nUser: \nV\nFalcon:\n",
    ],
    [
        "gemma-instruct",
        "<start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\n",
        "<start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
        "<start_of_turn>user\nS\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
    ],
    [
        "gemma3-instruct",
        "<start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\n",
        "<start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
        "<start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
    ],
    [
        "granite-instruct",
        "Question:\nU\n\nAnswer:\n",
        "Question:\nU\n\nAnswer:\nA\n\nQuestion:\nV\n\nAnswer:\n",
        "System:\nS\n\nQuestion:\nU\n\nAnswer:\nA\n\nQuestion:\nV\n\nAnswer:\n",
    ],
    [
        "llama2-chat",
        "[INST] U [/INST]",
        "[INST] U [/INST] A </s><s>[INST] V [/INST]",
        "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]",
    ],
    [
        "llama3-instruct",
        "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ],
    [
        "magicoder",
        "@@ Instruction\nU\n\n@@ Response\n",
        "@@ Instruction\nU\n\n@@ Response\nA\n\n@@ Instruction\nV\n\n@@ Response\n",
        "S\n\n@@ Instruction\nU\n\n@@ Response\nA\n\n@@ Instruction\nV\n\n@@ Response\n",
    ],
    [
        "mistral-instruct",
        "[INST] U[/INST]",
        "[INST] U[/INST] A</s>[INST] V[/INST]",
        "[INST] S\n\nU[/INST] A</s>[INST] V[/INST]",
    ],
    [
        "openchat",
        "GPT4 Correct User: U<|end_of_turn|>GPT4 Correct Assistant:",
        "GPT4 Correct User: U<|end_of_turn|>GPT4 Correct Assistant: A<|end_of_turn|>GPT4 Correct User: V<|end_of_turn|>GPT4 Correct Assistant:",
        "GPT4 Correct System: S<|end_of_turn|>GPT4 Correct User: U<|end_of_turn|>GPT4 Correct Assistant: A<|end_of_turn|>GPT4 Correct User: V<|end_of_turn|>GPT4 Correct Assistant:",
    ],
    [
        "phi-3",
        "<|user|>\nU<|end|>\n<|assistant|>\n",
        "<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
        "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
    ],
    [
        "solar-instruct",
        "### User:\nU\n\n### Assistant:\n",
        "### User:\nU\n\n### Assistant:\nA\n\n### User:\nV\n\n### Assistant:\n",
        "### System:\nS\n\n### User:\nU\n\n### Assistant:\nA\n\n### User:\nV\n\n### Assistant:\n",
    ],
    [
        "starcoder2-instruct",
        "### Instruction\nU\n\n### Response\n",
        "### Instruction\nU\n\n### Response\nA<|endoftext|>\n\n### Instruction\nV\n\n### Response\n",
        "S\n\n### Instruction\nU\n\n### Response\nA<|endoftext|>\n\n### Instruction\nV\n\n### Response\n",
    ],
    [
        "vicuna",
        "USER: U\nASSISTANT:",
        "USER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:",
        "S\n\nUSER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:",
    ],
    [
        "zephyr",
        "<|user|>\nU</s>\n<|assistant|>\n",
        "<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n<|assistant|>\n",
        "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n<|assistant|>\n",
    ],
];

/// The other wordings: template, then as above.
const WORDINGS: [[&str; 4]; 3] = [
    [
        "mistral-instruct.v0.1",
        "[INST] U [/INST]",
        "[INST] U [/INST]A</s> [INST] V [/INST]",
        "[INST] S\n\nU [/INST]A</s> [INST] V [/INST]",
    ],
    [
        "mistral-instruct.v0.2",
        "[INST] U [/INST]",
        "[INST] U [/INST]A</s>[INST] V [/INST]",
        "[INST] S\n\nU [/INST]A</s>[INST] V [/INST]",
    ],
    [
        "solar-instruct.v1",
        "### User:\nU\n\n### Assistant:\n",
        "### User:\nU\n\n### Assistant:\nA### User:\nV\n\n### Assistant:\n",
        "### System:\nS\n\n### User:\nU\n\n### Assistant:\nA### User:\nV\n\n### Assistant:\n",
    ],
];

fn say(role: Role, text: &str) -> Message {
    Message::new(role, text)
}

fn render(shipped: &Shipped, messages: &[Message], tools: &[Tool]) -> String {
    let input = RenderInput {
        messages,
        tools,
        think: None,
        now: NaiveDateTime::default(),
    };
    let template = Template::parse_go(shipped.template).unwrap();
    template.render(&input).unwrap()
}

/// The three conversations of the tables.
fn prompts(shipped: &Shipped) -> [String; 3] {
    let all = [
        say(Role::System, "S"),
        say(Role::User, "U"),
        say(Role::Assistant, "A"),
        say(Role::User, "V"),
    ];
    [&all[1..2], &all[1..], &all[..]].map(|messages| render(shipped, messages, &[]))
}

#[test]
fn every_template_writes_its_format() {
    let mut names: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
    names.dedup();
    assert_eq!(names, FORMATS.map(|format| format[0]));
    for [name, expected @ ..] in FORMATS {
        let shipped = SHIPPED.iter().find(|s| s.name == name).unwrap();
        assert_eq!(prompts(shipped), expected, "{name}");
    }
    let others: Vec<&Shipped> = names
        .iter()
        .flat_map(|name| SHIPPED.iter().filter(move |s| s.name == *name).skip(1))
        .collect();
    assert_eq!(others.len(), WORDINGS.len());
    for ([file, expected @ ..], shipped) in WORDINGS.into_iter().zip(others) {
        assert!(file.starts_with(shipped.name), "{file}");
        assert_eq!(prompts(shipped), expected, "{file}");
    }
}

/// A Jinja template that writes a turn a message; `%` stands for its content.
fn turns(system: &str, user: &str, assistant: &str, start: &str) -> String {
    let text = |written: &str| {
        let parts: Vec<String> = written.split('%').map(|part| json!(part).to_string()).collect();
        format!("{{{{ {} }}}}", parts.join(" + m['content'] | trim + "))
    };
    format!(
        "{{{{ bos_token }}}}{{% for m in messages %}}{{% if m['role'] == 'system' %}}{}{{% elif m['role'] == 'user' %}}{}{{% else %}}{}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{}{{% endif %}}",
        text(system),
        text(user),
        text(assistant),
        text(start)
    )
}

/// The same, with the system text in front of the first user's; `%` of `system` stands for that text.
fn folded(system: &str, user: &str, assistant: &str, start: &str) -> String {
    let (before, after) = system.split_once('%').unwrap();
    let loop_text = turns("", &user.replace('%', "$%"), assistant, start);
    let [before, after] = [before, after].map(|part| json!(part).to_string());
    let rest = loop_text.replace("$\" + ", "\" + (first if loop.first else '') + ");
    format!(
        "{{% set first = '' %}}{{% if messages[0]['role'] == 'system' %}}{{% set first = {before} + messages[0]['content'] + {after} %}}{{% set messages = messages[1:] %}}{{% endif %}}{rest}"
    )
}

/// One that refuses system texts.
fn refusing(rest: &str) -> String {
    format!(
        "{{% if messages[0]['role'] == 'system' %}}{{{{ raise_exception('no system texts') }}}}{{% endif %}}{rest}"
    )
}

/// A Jinja template of each format, with the text of EOS, as models bring them.
fn of_models() -> Vec<(&'static str, &'static str, String)> {
    let gemma = |system: &str| {
        folded(
            system,
            "<start_of_turn>user\n%<end_of_turn>\n",
            "<start_of_turn>model\n%<end_of_turn>\n",
            "<start_of_turn>model\n",
        )
    };
    let command = |role: &str| {
        format!("<|START_OF_TURN_TOKEN|><|{role}_TOKEN|>%<|END_OF_TURN_TOKEN|>")
    };
    let solar = |end: &str| {
        turns("### System:\n%\n\n", "### User:\n%\n\n", &format!("### Assistant:\n%{end}"), "### Assistant:\n")
    };
    let instruct = |mark: &str, end: &str| {
        turns(
            "%\n\n",
            &format!("{mark} Instruction\n%\n\n"),
            &format!("{mark} Response\n%{end}\n\n"),
            &format!("{mark} Response\n"),
        )
    };
    let say = |open: &str, close: &str| {
        let turn = |role: &str| format!("{}%{close}", open.replace('@', role));
        let start = open.replace('@', "assistant");
        turns(&turn("system"), &turn("user"), &turn("assistant"), &start)
    };
    vec![
        ("alfred", "<end_message>", say("<start_@>", "<end_message>")),
        ("alpaca", "</s>", turns("%\n\n", "### Instruction:\n%\n\n", "### Response:\n%\n\n", "### Response:\n")),
        ("chatml", "<|im_end|>", say("<|im_start|>@\n", "<|im_end|>\n")),
        ("chatqa", "<|end_of_text|>", turns("System: %\n\n", "User: %\n\n", "Assistant: %\n\n", "Assistant:")),
        ("codellama-70b-instruct", "</s>", turns(
            "Source: system\n\n % <step> ", "Source: user\n\n % <step> ", "Source: assistant\n\n % <step> ",
            "Source: assistant\nDestination: user\n\n ",
        )),
        ("command-r", "<|END_OF_TURN_TOKEN|>", turns(
            &command("SYSTEM"), &command("USER"), &command("CHATBOT"), "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        )),
        ("falcon-instruct", "<|endoftext|>", turns("System: %\n", "User: \n%\n", "Falcon:\n%\n", "Falcon:\n")),
        ("gemma-instruct", "<eos>", refusing(&gemma("%"))),
        ("gemma3-instruct", "<eos>", gemma("%\n\n")),
        ("granite-instruct", "<|endoftext|>", turns(
            "System:\n%\n\n", "Question:\n%\n\n", "Answer:\n%\n\n", "Answer:\n",
        )),
        ("llama2-chat", "</s>", folded("<<SYS>>\n%\n<</SYS>>\n\n", "[INST] % [/INST]", " % </s><s>", "")),
        ("llama3-instruct", "<|eot_id|>", say("<|start_header_id|>@<|end_header_id|>\n\n", "<|eot_id|>")),
        ("magicoder", "</s>", instruct("@@", "")),
        ("mistral-instruct", "</s>", folded("%\n\n", "[INST] %[/INST]", " %</s>", "")),
        ("mistral-instruct", "</s>", refusing(&folded("%", "[INST] % [/INST]", "%</s> ", ""))),
        ("mistral-instruct", "</s>", refusing(&folded("%", "[INST] % [/INST]", "%</s>", ""))),
        ("openchat", "<|end_of_turn|>", turns(
            "GPT4 Correct System: %<|end_of_turn|>", "GPT4 Correct User: %<|end_of_turn|>",
            "GPT4 Correct Assistant: %<|end_of_turn|>", "GPT4 Correct Assistant:",
        )),
        ("phi-3", "<|endoftext|>", say("<|@|>\n", "<|end|>\n")),
        ("solar-instruct", "</s>", solar("\n\n")),
        ("solar-instruct", "</s>", solar("")),
        ("starcoder2-instruct", "<|endoftext|>", instruct("###", "<|endoftext|>")),
        ("vicuna", "</s>", turns("%\n\n", "USER: %\n", "ASSISTANT: %</s>\n", "ASSISTANT:")),
        ("zephyr", "</s>", say("<|@|>\n", "</s>\n")),
    ]
}

#[test]
fn templates_of_models_are_recognised() {
    let of_models = of_models();
    let names: Vec<&str> = of_models.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, SHIPPED.map(|shipped| shipped.name));
    for ((name, eos, jinja), row) in of_models.into_iter().zip(SHIPPED) {
        let found = recognise(&jinja, "<bos>", eos, true);
        assert_eq!(found, Some(row), "{name}: {jinja}");
    }
}

#[test]
fn a_short_system_text_of_the_template_is_left_out() {
    let (_, eos, chatml) = of_models().swap_remove(2);
    let with_default = |text: &str| {
        let default = json!(format!("<|im_start|>system\n{text}<|im_end|>\n"));
        let added = format!("{{% if messages[0]['role'] != 'system' %}}{{{{ {default} }}}}{{% endif %}}{chatml}");
        recognise(&added, "", eos, true).map(|shipped| shipped.name)
    };
    assert_eq!(with_default("You are a helpful assistant."), Some("chatml"));
    assert_eq!(with_default(&"You are a pirate. ".repeat(20)), None);
    assert_eq!(with_default(""), None);
}

#[test]
fn what_says_more_or_otherwise_is_not_recognised() {
    let (_, eos, chatml) = of_models().swap_remove(2);
    let is_known = |jinja: &str| recognise(jinja, "<bos>", eos, true).is_some();
    assert!(is_known(&chatml));
    let others = [
        String::new(),
        "{{ messages".into(),
        "{{ messages[0]['content'] }}".into(),
        // It can do more than the Go template.
        format!("{{% if tools %}}{{{{ tools | tojson }}}}{{% endif %}}{chatml}"),
        format!("{chatml}{{% if false %}}<think></think>{{% endif %}}"),
        // Other marks, other blanks.
        chatml.replace("<|im_end|>", "<|im_stop|>"),
        chatml.replace("<|im_end|>\\n", "<|im_end|>"),
        // It refuses everything, or answers.
        "{{ raise_exception('no') }}".into(),
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
            .to_string()
            + &chatml,
        // It does not end.
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}".into(),
    ];
    for other in others {
        assert!(!is_known(&other), "{other}");
    }
    // BOS that the template alone writes would be lost.
    assert!(recognise(&chatml, "<bos>", eos, false).is_none());
    assert!(recognise(&chatml, "", eos, false).is_some());
}

#[test]
fn command_r_calls_tools() {
    let tool = |name: &str, properties: serde_json::Value| {
        let function = json!({"name": name, "description": "About a city", "parameters": {"type": "object", "properties": properties}});
        Tool::from_json(&json!({"type": "function", "function": function})).unwrap()
    };
    let city = json!({"city": {"type": "string", "description": "Its name"}, "days": {"type": "integer", "description": "How many"}});
    let tools = [tool("weather", city), tool("time", json!({}))];
    let call = |name: &str, arguments: serde_json::Value| ToolCall {
        id: String::new(),
        index: 0,
        name: name.into(),
        arguments: arguments.as_object().unwrap().clone(),
    };
    let messages = [
        say(Role::User, "U"),
        Message {
            tool_calls: vec![call("weather", json!({"city": "Rome"})), call("time", json!({}))],
            ..say(Role::Assistant, "")
        },
        say(Role::Tool, "21 degrees"),
    ];
    let shipped = SHIPPED.iter().find(|s| s.name == "command-r").unwrap();
    let prompt = render(shipped, &messages, &tools);
    for part in [
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>## Available Tools\n",
        "def weather(city: string, days: integer) -> List[Dict]:\n    \"\"\"About a city\n\n    Args:\n        city (string): Its name\n        days (integer): How many\n    \"\"\"\n    pass\n",
        "def time() -> List[Dict]:\n    \"\"\"About a city\n    \"\"\"\n",
        "<|CHATBOT_TOKEN|>Action: ```json\n[\n    {\"tool_name\": \"weather\", \"parameters\": {\"city\":\"Rome\"}},\n    {\"tool_name\": \"time\", \"parameters\": {}}\n]```<|END_OF_TURN_TOKEN|>",
        "<results>\n21 degrees</results><|END_OF_TURN_TOKEN|>",
    ] {
        assert!(prompt.contains(part), "{part} is not in {prompt}");
    }
    assert!(prompt.ends_with("```<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"));
}
