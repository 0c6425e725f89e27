//! Vocabularies of imported checkpoints beside the library tokenizers.

use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::tokenizer::Tokenizer;
use serde_json::json;

use super::{CHECKPOINTS, changed, files, imported};
use crate::golden::{golden, open};

/// Random strings without characters that vocabularies of bytes and of text treat otherwise by design.
fn strings(is_apart: impl Fn(char) -> bool) -> Vec<String> {
    let recorded = golden("random-text.json");
    let all = recorded["strings"].as_array().expect("strings").iter();
    let all = all.map(|s| s.as_str().expect("a text").to_owned());
    all.filter(|s| !s.contains(&is_apart)).collect()
}

/// Compares ids with the library's; lists the texts with others.
pub fn id_problems(
    tokenizer_json: &[u8],
    made: &Gguf,
    is_apart: impl Fn(char) -> bool,
) -> Vec<String> {
    let peer = tokenizers::Tokenizer::from_bytes(tokenizer_json).expect("a tokenizer");
    let tokenizer = Tokenizer::from_gguf(made).expect("a supported vocabulary");
    let strings = strings(is_apart);
    assert!(strings.len() > 500, "only {} strings", strings.len());
    let mut problems = Vec::new();
    for string in &strings {
        let ids = tokenizer.encode(string, true, true);
        let wanted = peer.encode(string.as_str(), true).expect("ids");
        if ids != wanted.get_ids() {
            problems.push(format!(
                "{string:?}: {ids:?} instead of {:?}",
                wanted.get_ids()
            ));
        }
    }
    problems
}

#[test]
fn vocabularies_give_the_ids_of_hugging_face() {
    for (name, _) in CHECKPOINTS {
        let files = files(name);
        let Some(tokenizer) = files.get("tokenizer.json") else {
            continue;
        };
        // To llama.cpp's rules letters beyond ASCII have no case, and marks are no letters.
        let is_cased = ["mistral", "phi4"].contains(&name);
        let is_apart = |c: char| {
            let is_mark = unicode_normalization::char::is_combining_mark(c);
            is_cased && !c.is_ascii() && (is_mark || c.is_lowercase() || c.is_uppercase())
        };
        let problems = id_problems(tokenizer, &imported(&files, ""), is_apart);
        assert!(
            problems.len() <= if name.starts_with("bert") { 6 } else { 0 },
            "{name}: {} texts differ:\n{}",
            problems.len(),
            problems[..problems.len().min(10)].join("\n")
        );
    }
}

/// Phi 3's markup takes the white space behind it.
#[test]
fn white_space_behind_markup() {
    let files = changed("phi3", "tokenizer.json", |tokenizer| {
        let tokens = tokenizer["added_tokens"].as_array_mut().expect("tokens");
        for token in tokens {
            let is_plain = ["<unk>", "<s>", "<|endoftext|>"]
                .iter()
                .any(|text| token["content"] == *text);
            token["rstrip"] = (!is_plain).into();
        }
    });
    let peer = tokenizers::Tokenizer::from_bytes(&files["tokenizer.json"]).expect("a tokenizer");
    let tokenizer = Tokenizer::from_gguf(&imported(&files, "")).expect("a supported vocabulary");
    for text in [
        "<|user|>\n hi <|end|> \n<|assistant|>\n",
        "<s> a <|endoftext|> b<|system|>  c",
    ] {
        let ids = peer.encode(text, true).expect("ids");
        assert_eq!(
            tokenizer.encode(text, true, true),
            ids.get_ids(),
            "{text:?}"
        );
    }
}

/// What a text ends with need not be what an answer ends with.
#[test]
fn a_token_behind_every_text() {
    let files = changed("qwen3-embedding", "tokenizer.json", |tokenizer| {
        let end = json!({ "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } });
        let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
        let id = tokenizer["added_tokens"][0]["id"].clone();
        tokenizer["post_processor"] = json!({
            "type": "TemplateProcessing", "single": [text, end], "pair": [text, end],
            "special_tokens": { "<|endoftext|>": { "id": "<|endoftext|>", "ids": [id], "tokens": ["<|endoftext|>"] } },
        });
    });
    let made = imported(&files, "");
    let peer = tokenizers::Tokenizer::from_bytes(&files["tokenizer.json"]).expect("a tokenizer");
    let tokenizer = Tokenizer::from_gguf(&made).expect("a supported vocabulary");
    let ids = peer.encode("the boat", true).expect("ids");
    assert_eq!(tokenizer.encode("the boat", true, true), ids.get_ids());
    let end = tokenizer.token_id("<|im_end|>").expect("an entry");
    assert!(tokenizer.is_end_of_generation(end) && tokenizer.suffix() != Some(end));
}

#[test]
fn ends_of_answers_are_those_of_the_generation() {
    let made = imported(&files("llama"), "");
    let wanted = open("tiny/tiny-llama.gguf");
    let (own, other) = (
        Tokenizer::from_gguf(&made).expect("a tokenizer"),
        Tokenizer::from_gguf(&wanted).expect("a tokenizer"),
    );
    let id = own.token_id("<|python_tag|>").expect("an entry");
    assert!(own.is_end_of_generation(id) && !other.is_end_of_generation(id));
    assert_eq!(
        made.u32("tokenizer.ggml.eos_token_id"),
        wanted.u32("tokenizer.ggml.eos_token_id")
    );
}

/// A file of its own comes before the settings, and of several templates the default counts.
#[test]
fn chat_templates() {
    let template = |files: &super::Files| {
        let made = imported(files, "");
        made.str("tokenizer.chat_template").map(str::to_owned)
    };
    let wanted = open("tiny/tiny-llama.gguf");
    let own = wanted.str("tokenizer.chat_template");
    let mut all = files("llama");
    assert_eq!(template(&all).as_deref(), own);
    all.insert("chat_template.jinja".into(), b"{{ bos_token }}".to_vec());
    assert_eq!(template(&all).as_deref(), Some("{{ bos_token }}"));
    let several = changed("llama", "tokenizer_config.json", |config| {
        config["chat_template"] = json!([
            { "name": "tool_use", "template": "tools" }, { "name": "default", "template": "plain" },
        ]);
    });
    assert_eq!(template(&several).as_deref(), Some("plain"));
    let mut elsewhere = changed("llama", "tokenizer_config.json", |config| {
        config["chat_template"] = json!(null);
    });
    assert_eq!(template(&elsewhere), None);
    let json = json!({ "chat_template": "beside" }).to_string();
    elsewhere.insert("chat_template.json".into(), json.into_bytes());
    assert_eq!(template(&elsewhere).as_deref(), Some("beside"));
}
