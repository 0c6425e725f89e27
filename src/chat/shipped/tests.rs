//! The shipped templates against the formats as their models were published with them, and what is recognised.

mod of_models;

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
            tool_calls: vec![
                call("weather", json!({"city": "Rome"})),
                call("time", json!({})),
            ],
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
    let (prompt, answer) = prompt.split_once("Action: ```json").unwrap();
    let answer = format!("Action: ```json{}", answer.split_once("<|").unwrap().0);
    let template = Template::parse_go(shipped.template).unwrap();
    let mut parser = template.output_parser(prompt, &tools, None);
    let deltas = [parser.push(&answer), parser.finish()];
    let read: Vec<ToolCall> = deltas.into_iter().flat_map(|d| d.tool_calls).collect();
    let read: Vec<_> = read
        .iter()
        .map(|c| (c.name.as_str(), json!(c.arguments)))
        .collect();
    assert_eq!(
        read,
        [("weather", json!({"city": "Rome"})), ("time", json!({}))]
    );
}
