//! Templates of Ollama's library, each beside the Jinja template of the same model.

use super::published::{folder, talk, talk_with_call, weather};
use super::*;

/// Name, Go template and Jinja template of each model.
fn library() -> Vec<(String, Template, Template)> {
    let text = std::fs::read_to_string(folder("").join("library-templates.json"));
    let models = parse(&text.expect("scripts/test.sh fetches it"));
    let models = models.as_array().unwrap().iter().map(|model| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let name = text(&model["model"]);
        let go = Template::parse_go(&text(&model["ollama"]["template"]));
        let jinja = Template::parse_jinja(&text(&model["gguf"]), "<s>", "</s>");
        (
            name.trim_start_matches("library/").to_owned(),
            go.unwrap_or_else(|e| panic!("{name}: {e}")),
            jinja.unwrap_or_else(|e| panic!("{name}: {e}")),
        )
    });
    models.collect()
}

fn input<'a>(messages: &'a [Message], tools: &'a [Tool], think: Option<Think>) -> RenderInput<'a> {
    RenderInput {
        messages,
        tools,
        think,
        now: now(),
    }
}

#[test]
fn go_templates_of_the_library_render_conversations() {
    let mut with_system = vec![Message::new(Role::System, "Be brief.")];
    with_system.extend(talk_with_call());
    with_system.push(Message {
        thinking: "I see.".into(),
        ..Message::new(Role::Assistant, "Warm.")
    });
    with_system.push(user("Thanks a lot.", 0));
    let tools = weather();
    let (mut n_with_tools, mut failed) = (0, Vec::new());
    for (name, go, _) in library() {
        let calls = go.capabilities().contains(&Capability::Tools);
        n_with_tools += usize::from(calls);
        for think in [None, Some(Think::Off), Some(Think::On), Some(Think::High)] {
            let prompt = match go.render(&input(&with_system, &tools, think)) {
                Ok(prompt) => prompt,
                Err(error) => {
                    failed.push(format!("{name}: {error}"));
                    continue;
                }
            };
            assert!(prompt.contains("Thanks a lot."), "{name}: {prompt}");
            assert!(!prompt.contains("<no value>"), "{name}: {prompt}");
            assert!(!calls || prompt.contains("get_weather"), "{name}: {prompt}");
        }
    }
    failed.dedup();
    // Its template asks a list for a field, which Go refuses too.
    let llama_4 = "llama4:latest: template: :6: can't evaluate field Tools in type []interface {}";
    assert_eq!(failed, [llama_4]);
    assert_eq!(n_with_tools, 36);
}

#[test]
fn go_and_jinja_templates_of_one_model_agree() {
    let mut agree = Vec::new();
    for (name, go, jinja) in library() {
        let talk = talk();
        let prompts = [&go, &jinja].map(|template| {
            let prompt = template.render(&input(&talk, &[], None));
            prompt.map(|prompt| jinja.without_bos(&prompt).trim().to_owned())
        });
        if let [Ok(go), Ok(jinja)] = prompts
            && go == jinja
        {
            agree.push(name);
        }
    }
    // The others differ in blanks, in what they say of themselves, or take other turns.
    assert_eq!(
        agree.join(" "),
        "aya:35b cogito:14b cogito:3b deepseek-r1:8b deepseek-r1:latest dolphin-mixtral:8x7b gemma2:2b \
         gemma3:1b gemma3:270m granite-code:3b granite3-dense:2b granite3-guardian:2b granite4:350m \
         granite4:latest internlm2:1.8b llama3:8b llama4:latest llava-phi3:3.8b mistral-large:123b mistral-small:24b \
         mixtral:8x22b nemotron:70b nous-hermes2-mixtral:8x7b phi3.5:3.8b phi4-mini:3.8b \
         qwen3-coder:30b qwen3-next:80b qwen3:0.6b r1-1776:671b yi-coder:1.5b yi:6b"
    );
}

#[test]
fn jinja_templates_that_only_chat_are_recognised() {
    let mut found = Vec::new();
    for (name, _, jinja) in library() {
        let shipped = shipped::recognise(jinja.text(), "<s>", "</s>", true);
        found.extend(shipped.map(|shipped| format!("{name}={}", shipped.name)));
    }
    assert_eq!(
        found.join(" "),
        "aya-expanse:8b=command-r aya:35b=command-r command-r-plus:104b=command-r command-r:35b=command-r \
         dolphin-llama3:8b=llama3-instruct dolphin-mixtral:8x7b=chatml falcon2:11b=falcon-instruct \
         gemma2:2b=gemma-instruct gemma3:1b=gemma3-instruct gemma3:270m=gemma3-instruct \
         granite-code:3b=granite-instruct hermes3:70b=chatml internlm2:1.8b=chatml llama2:7b=llama2-chat \
         llama3:8b=llama3-instruct llava-phi3:3.8b=phi-3 llava:34b=chatml llava:7b=mistral-instruct \
         mistral:7b-instruct-fp16=mistral-instruct nous-hermes2-mixtral:8x7b=chatml nuextract:3.8b=phi-3 \
         openchat:7b=openchat opencoder:8b=chatml phi3:14b=phi-3 phi3:3.8b=phi-3 phi3.5:3.8b=phi-3 qwen:0.5b=chatml \
         qwen2:0.5b=chatml qwen2.5vl:latest=chatml smallthinker:3b=chatml smollm2:135m=chatml stable-code:3b=chatml \
         tinyllama:1.1b=zephyr yi-coder:1.5b=chatml"
    );
}
