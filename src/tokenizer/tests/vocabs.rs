//! llama.cpp's own vocabulary files: the ids that come with them, and random text.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::super::bpe::Bpe;
use super::super::memo::Memo;
use super::super::pre_tokenizer;
use super::*;

fn folder() -> PathBuf {
    let folder = models().join("vocabs");
    assert!(
        folder.is_dir(),
        "no {}: scripts/test.sh fetches it",
        folder.display()
    );
    folder
}

pub(super) fn gguf(name: &str) -> Gguf {
    let path = folder().join(format!("ggml-vocab-{name}.gguf"));
    Gguf::open(&path).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_vocabulary_file_gives_the_ids_beside_it() {
    let mut n_files = 0;
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(folder()).expect("a folder") {
        let path = entry.expect("an entry").path();
        let Some(vocabulary) = path.to_str().and_then(|path| path.strip_suffix(".inp")) else {
            continue;
        };
        let gguf = Gguf::open(vocabulary.as_ref()).expect("a valid file");
        let tokenizer = Tokenizer::from_gguf(&gguf).unwrap_or_else(|e| panic!("{vocabulary}: {e}"));
        let read = |path: &str| std::fs::read_to_string(path).expect("text");
        let inputs = read(&format!("{vocabulary}.inp"));
        let mut inputs: Vec<_> = inputs.split("\n__ggml_vocab_test__\n").collect();
        let outputs = read(&format!("{vocabulary}.out"));
        let outputs: Vec<_> = outputs.lines().collect();
        // Some files end with a separator.
        inputs.pop_if(|last| last.is_empty());
        assert_eq!(inputs.len(), outputs.len(), "{vocabulary}");
        n_files += 1;
        for (input, output) in inputs.iter().zip(outputs) {
            let ids = tokenizer.encode(input, false, false);
            let ids: Vec<_> = ids.iter().map(u32::to_string).collect();
            if ids.join(" ") != output.trim() {
                problems.push(format!("{vocabulary}: {input:?}"));
            }
        }
    }
    assert!(n_files >= 15, "{n_files} files have ids");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The recorded strings, and how many of them a digest covers.
fn random_text(reference: &Value) -> (Vec<&str>, usize) {
    let strings: Vec<_> = items(&reference["strings"]).iter().map(text).collect();
    assert_eq!(strings.len(), 2000);
    (
        strings,
        reference["block"].as_u64().expect("a number") as usize,
    )
}

fn compare(
    name: &str,
    reference: &Value,
    recorded: &Value,
    mut encode: impl FnMut(&str) -> Vec<u32>,
    problems: &mut Vec<String>,
) {
    let (strings, block) = random_text(reference);
    let recorded = items(recorded);
    assert_eq!(recorded.len(), strings.len().div_ceil(block), "{name}");
    for (i, (strings, recorded)) in strings.chunks(block).zip(recorded).enumerate() {
        let mut digest = Sha256::new();
        for string in strings {
            let ids = encode(string);
            digest.update((ids.len() as u32).to_le_bytes());
            ids.iter().for_each(|id| digest.update(id.to_le_bytes()));
        }
        if hex::encode(digest.finalize())[..16] != *text(recorded) {
            problems.push(format!("{name}: strings {} on", i * block));
        }
    }
}

#[test]
fn random_text_becomes_the_tokens_of_llama_cpp() {
    let reference = golden("random-text.json");
    let vocabs = reference["vocabs"].as_object().expect("an object");
    assert!(vocabs.len() >= 8);
    let mut problems = Vec::new();
    for (name, recorded) in vocabs {
        let tokenizer = Tokenizer::from_gguf(&gguf(name)).expect("a supported vocabulary");
        let encode = |text: &str| tokenizer.encode(text, false, false);
        compare(name, &reference, recorded, encode, &mut problems);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_pre_tokenizer_cuts_random_text_as_llama_cpp_does() {
    let reference = golden("random-text.json");
    let rows = reference["pre"].as_object().expect("an object");
    let mut problems = Vec::new();
    for base in ["gpt-2", "gemma-4"] {
        let gguf = gguf(base);
        let mut vocab = Vocab::from_gguf(&gguf).expect("a vocabulary");
        end::tokens(&gguf, &mut vocab, None);
        let literal = Specials::new(&vocab, Trimming::None, |kind| kind == Kind::UserDefined);
        for (name, row) in rows.iter().filter(|(_, row)| row["base"] == base) {
            let pre = pre_tokenizer::by_name(name).unwrap_or_else(|e| panic!("{e}"));
            let bpe = Bpe::from_gguf(&gguf, &vocab, pre).expect("a usable vocabulary");
            let encode = |text: &str| {
                let mut ids = Vec::new();
                let mut session = bpe.session(&vocab);
                let mut memo = Memo::default();
                literal.partition(&vocab, text, |fragment| match fragment {
                    Fragment::Token(id) => ids.push(id),
                    Fragment::Text(text) => session.encode(text, &mut memo, &mut ids),
                });
                ids
            };
            compare(name, &reference, &row["digests"], encode, &mut problems);
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let recorded: Vec<_> = rows.keys().map(String::as_str).collect();
    let mut supported: Vec<_> = pre_tokenizer::names().collect();
    supported.sort_unstable();
    assert_eq!(supported, recorded, "a row without a reference");
}
