//! Chat templates as models bring them: which ones are recognised.

use super::*;

/// A Jinja template that writes a turn a message; `%` stands for its content.
fn turns(system: &str, user: &str, assistant: &str, start: &str) -> String {
    let text = |written: &str| {
        let parts: Vec<String> = written
            .split('%')
            .map(|part| json!(part).to_string())
            .collect();
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
    let command =
        |role: &str| format!("<|START_OF_TURN_TOKEN|><|{role}_TOKEN|>%<|END_OF_TURN_TOKEN|>");
    let solar = |end: &str| {
        turns(
            "### System:\n%\n\n",
            "### User:\n%\n\n",
            &format!("### Assistant:\n%{end}"),
            "### Assistant:\n",
        )
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
        (
            "alpaca",
            "</s>",
            turns(
                "%\n\n",
                "### Instruction:\n%\n\n",
                "### Response:\n%\n\n",
                "### Response:\n",
            ),
        ),
        (
            "chatml",
            "<|im_end|>",
            say("<|im_start|>@\n", "<|im_end|>\n"),
        ),
        (
            "chatqa",
            "<|end_of_text|>",
            turns(
                "System: %\n\n",
                "User: %\n\n",
                "Assistant: %\n\n",
                "Assistant:",
            ),
        ),
        (
            "codellama-70b-instruct",
            "</s>",
            turns(
                "Source: system\n\n % <step> ",
                "Source: user\n\n % <step> ",
                "Source: assistant\n\n % <step> ",
                "Source: assistant\nDestination: user\n\n ",
            ),
        ),
        (
            "command-r",
            "<|END_OF_TURN_TOKEN|>",
            turns(
                &command("SYSTEM"),
                &command("USER"),
                &command("CHATBOT"),
                "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            ),
        ),
        (
            "falcon-instruct",
            "<|endoftext|>",
            turns("System: %\n", "User: \n%\n", "Falcon:\n%\n", "Falcon:\n"),
        ),
        ("gemma-instruct", "<eos>", refusing(&gemma("%"))),
        ("gemma3-instruct", "<eos>", gemma("%\n\n")),
        (
            "granite-instruct",
            "<|endoftext|>",
            turns(
                "System:\n%\n\n",
                "Question:\n%\n\n",
                "Answer:\n%\n\n",
                "Answer:\n",
            ),
        ),
        (
            "llama2-chat",
            "</s>",
            folded(
                "<<SYS>>\n%\n<</SYS>>\n\n",
                "[INST] % [/INST]",
                " % </s><s>",
                "",
            ),
        ),
        (
            "llama3-instruct",
            "<|eot_id|>",
            say("<|start_header_id|>@<|end_header_id|>\n\n", "<|eot_id|>"),
        ),
        ("magicoder", "</s>", instruct("@@", "")),
        (
            "mistral-instruct",
            "</s>",
            folded("%\n\n", "[INST] %[/INST]", " %</s>", ""),
        ),
        (
            "mistral-instruct",
            "</s>",
            refusing(&folded("%", "[INST] % [/INST]", "%</s> ", "")),
        ),
        (
            "mistral-instruct",
            "</s>",
            refusing(&folded("%", "[INST] % [/INST]", "%</s>", "")),
        ),
        (
            "openchat",
            "<|end_of_turn|>",
            turns(
                "GPT4 Correct System: %<|end_of_turn|>",
                "GPT4 Correct User: %<|end_of_turn|>",
                "GPT4 Correct Assistant: %<|end_of_turn|>",
                "GPT4 Correct Assistant:",
            ),
        ),
        ("phi-3", "<|endoftext|>", say("<|@|>\n", "<|end|>\n")),
        ("solar-instruct", "</s>", solar("\n\n")),
        ("solar-instruct", "</s>", solar("")),
        (
            "starcoder2-instruct",
            "<|endoftext|>",
            instruct("###", "<|endoftext|>"),
        ),
        (
            "vicuna",
            "</s>",
            turns("%\n\n", "USER: %\n", "ASSISTANT: %</s>\n", "ASSISTANT:"),
        ),
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
        let added = format!(
            "{{% if messages[0]['role'] != 'system' %}}{{{{ {default} }}}}{{% endif %}}{chatml}"
        );
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
