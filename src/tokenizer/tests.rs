//! Reference ids, and text that must survive.

mod hugging_face;
mod made;
mod vocabs;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The folder of the test models.
fn models() -> PathBuf {
    std::env::var_os("OLLAMA_WGPU_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-models"),
        PathBuf::from,
    )
}

fn model(name: &str) -> Tokenizer {
    let path = models().join(format!("{name}.gguf"));
    let gguf = Gguf::open(&path)
        .unwrap_or_else(|e| panic!("{e}: scripts/test.sh fetches and makes the test models"));
    Tokenizer::from_gguf(&gguf).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn golden(name: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/golden");
    let text = std::fs::read_to_string(root.join(name)).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

fn items(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn ids(value: &Value) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
    items(value).iter().map(|v| id(v).expect("an id")).collect()
}

/// Every string of a real model's reference, and the prompts of its greedy runs.
fn check_real_model(name: &str) {
    let tokenizer = model(name);
    let reference = golden(&format!("{name}.json"));
    let cases = items(&reference["tokenize"]);
    assert!(cases.len() > 20, "{name}: too few cases");
    for case in cases {
        let input = text(&case["text"]);
        let special = tokenizer.encode(input, true, true);
        assert_eq!(special, ids(&case["special"]), "{name}: {input:?}");
        let plain = tokenizer.encode(input, false, false);
        assert_eq!(plain, ids(&case["plain"]), "{name}: plain {input:?}");
        assert_eq!(tokenizer.decode(&plain, false), input, "{name}: back");
    }
    for run in items(&reference["greedy"]) {
        if let Some(prompt) = run["prompt"].as_str() {
            let encoded = tokenizer.encode(prompt, true, true);
            assert_eq!(encoded, ids(&run["prompt_ids"]), "{name}: {prompt:?}");
        }
    }
    for chat in reference["chat"].as_array().into_iter().flatten() {
        let prompt = text(&chat["prompt"]);
        let encoded = tokenizer.encode(prompt, true, true);
        assert_eq!(tokenizer.decode(&encoded, true), prompt, "{name}: chat");
    }
}

#[test]
fn smollm2_matches_the_reference() {
    check_real_model("smollm2-135m-instruct-q4_1");
}

#[test]
fn qwen_coder_matches_the_reference() {
    check_real_model("qwen2.5-coder-0.5b-instruct-q4_k_m");
}

#[test]
fn gemma_matches_the_reference() {
    check_real_model("gemma-3-270m-q4_k_m");
}

#[test]
fn tiny_tokenizers_match_the_reference() {
    let reference = golden("tokenizers.json");
    let strings = items(&reference["strings"]);
    let tokenizers = reference["tokenizers"].as_object().expect("an object");
    for (name, case) in tokenizers {
        let tokenizer = model(&format!("tiny/{}", text(&case["models"][0])));
        for (i, input) in strings.iter().map(text).enumerate() {
            let special = tokenizer.encode(input, true, true);
            assert_eq!(special, ids(&case["with_special"][i]), "{name}: {input:?}");
            let plain = tokenizer.encode(input, false, false);
            assert_eq!(plain, ids(&case["plain"][i]), "{name}: plain {input:?}");
        }
        for chat in case["chat"].as_array().into_iter().flatten() {
            let prompt = text(&chat["prompt"]);
            let encoded = tokenizer.encode(prompt, true, true);
            assert_eq!(encoded, ids(&chat["ids"]), "{name}: {prompt:?}");
        }
    }
    assert!(tokenizers.len() > 15, "too few tokenizers");
}

#[test]
fn long_runs_come_back_whole() {
    let n = 200_000;
    let scattered: String = (0..n as u32)
        .map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
        .collect();
    let runs = [
        scattered,
        "a".repeat(n),
        " ".repeat(n),
        // More overlapping tokens than are weighed at once.
        "\n".repeat((1 << 20) + n),
        "\u{4F60}".repeat(n / 3),
    ];
    for name in ["tiny/tiny-llama", "gemma-3-270m-q4_k_m"] {
        let tokenizer = model(name);
        for run in &runs {
            let ids = tokenizer.encode(run, false, true);
            assert!(
                tokenizer.decode(&ids, true) == *run,
                "{name}: {:?}",
                run.chars().next()
            );
        }
    }
}

/// Text of the kinds that pre-tokenizers tell apart, and any other.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ \t\r\n]{1,4}",
        "[a-zA-Z]{1,8}",
        "[0-9]{1,5}",
        "'(s|T|re|LL|x)",
        "[!-/:-@]{1,3}",
        "\\p{L}{1,3}",
        "<\\|im_(start|end)\\|>",
        "\\PC{0,3}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Byte-level vocabularies lose nothing, however they cut words.
    #[test]
    fn text_survives_encoding(inputs in prop::collection::vec(any_text(), 8)) {
        for tokenizer in byte_level() {
            for input in &inputs {
                for parse_special in [false, true] {
                    let ids = tokenizer.encode(input, false, parse_special);
                    prop_assert_eq!(&tokenizer.decode(&ids, true), input);
                }
            }
        }
    }
}

/// One tiny model for each way of cutting words.
fn byte_level() -> &'static [Tokenizer] {
    static ALL: std::sync::OnceLock<Vec<Tokenizer>> = std::sync::OnceLock::new();
    let names = [
        "llama",
        "llama-odd",
        "mistral-nemo",
        "qwen2",
        "phi4-mini",
        "deepseek2",
        "deepseek2-lite",
        "qwen35",
    ];
    ALL.get_or_init(|| {
        names
            .iter()
            .map(|name| model(&format!("tiny/tiny-{name}")))
            .collect()
    })
}
