//! The same vocabularies in Hugging Face's `tokenizers`, on random text.

use base64::Engine;
use serde_json::{Value, json};

use super::vocabs::gguf;
use super::*;

fn strings(gguf: &Gguf, key: &str) -> Vec<String> {
    let texts = gguf.strings(key).expect("an array of strings");
    texts.map(|t| String::from_utf8_lossy(t).into()).collect()
}

fn ids_of(tokens: &[String]) -> Value {
    tokens
        .iter()
        .zip(0..)
        .map(|(token, id)| (token.clone(), Value::from(id)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Byte-level BPE behind the pattern of the model's own `tokenizer.json`.
fn bpe(gguf: &Gguf, pattern: &str, ignore_merges: bool) -> Value {
    json!({
        "model": {
            "type": "BPE",
            "vocab": ids_of(&strings(gguf, "tokenizer.ggml.tokens")),
            "merges": strings(gguf, "tokenizer.ggml.merges"),
            "ignore_merges": ignore_merges,
        },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        ]},
    })
}

fn wordpiece(gguf: &Gguf) -> Value {
    let tokens = strings(gguf, "tokenizer.ggml.tokens");
    let kinds = gguf.i32s("tokenizer.ggml.token_type").expect("kinds");
    let tokens: Vec<_> = tokens
        .iter()
        .zip(kinds)
        .map(|(token, kind)| match token.strip_prefix('\u{2581}') {
            Some(word) => word.to_owned(),
            None if kind == 1 => format!("##{token}"),
            None => token.clone(),
        })
        .collect();
    json!({
        "model": {
            "type": "WordPiece",
            "vocab": ids_of(&tokens),
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": true,
            "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
    })
}

fn unigram(gguf: &Gguf) -> Value {
    let tokens = strings(gguf, "tokenizer.ggml.tokens");
    let scores = gguf.f32s("tokenizer.ggml.scores").expect("scores");
    let charsmap = gguf.bytes("tokenizer.ggml.precompiled_charsmap");
    let charsmap = base64::engine::general_purpose::STANDARD.encode(charsmap.expect("a map"));
    json!({
        "model": {
            "type": "Unigram",
            "vocab": tokens.iter().zip(scores).collect::<Vec<_>>(),
            "unk_id": gguf.u32("tokenizer.ggml.unknown_token_id"),
        },
        "normalizer": { "type": "Precompiled", "precompiled_charsmap": charsmap },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "WhitespaceSplit" },
            { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true },
        ]},
    })
}

/// Compares the recorded strings, but for those with characters that `is_apart` names.
fn compare(name: &str, peer: &Value, is_apart: fn(char) -> bool, problems: &mut Vec<String>) {
    let peer = tokenizers::Tokenizer::from_bytes(peer.to_string()).expect("a tokenizer");
    let tokenizer = Tokenizer::from_gguf(&gguf(name)).expect("a supported vocabulary");
    let reference = golden("random-text.json");
    let strings = items(&reference["strings"]).iter().map(text);
    let strings: Vec<_> = strings.filter(|s| !s.contains(is_apart)).collect();
    assert!(strings.len() > 1800, "{name}: {} strings", strings.len());
    for string in strings {
        let ids = tokenizer.encode(string, false, false);
        let peer = peer.encode(string, false).expect("ids");
        if ids != peer.get_ids() {
            problems.push(format!("{name}: {string:?}: {ids:?} {:?}", peer.get_ids()));
        }
    }
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

#[test]
fn random_text_becomes_the_tokens_of_hugging_face() {
    let mut problems = Vec::new();
    for (name, pattern, whole_words) in [
        ("gpt-2", GPT2, false),
        ("llama-bpe", LLAMA3, true),
        ("qwen2", QWEN2, false),
        ("qwen35", QWEN35, false),
    ] {
        let peer = bpe(&gguf(name), pattern, whole_words);
        compare(name, &peer, |_| false, &mut problems);
    }
    // White space to the crate but not to SentencePiece, and marks, which the crate drops together
    // with the character that they belong to.
    let is_apart = |c| matches!(c, '\u{85}' | '\u{94D}' | '\u{9D7}' | '\u{FE0E}');
    let peer = unigram(&gguf("nomic-bert-moe"));
    compare("nomic-bert-moe", &peer, is_apart, &mut problems);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    // The crate's tables of marks and punctuation are of Unicode 8; few strings have newer ones.
    let peer = wordpiece(&gguf("bert-bge"));
    compare("bert-bge", &peer, |_| false, &mut problems);
    assert!(problems.len() <= 6, "{}", problems.join("\n"));
}
