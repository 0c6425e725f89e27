//! The JSON-Schema-Test-Suite, draft 2020-12, <https://github.com/json-schema-org/JSON-Schema-Test-Suite>, with the
//! vocabulary of a real model: what is compiled allows the valid instances and no others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::*;
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;

/// Orders of an instance's members that are tried, at most.
const MAX_ORDERS: usize = 2_000;

fn test_models() -> PathBuf {
    std::env::var_os("OLLAMA_WGPU_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-models"),
        PathBuf::from,
    )
}

/// The suite's files by keyword.
fn suite() -> BTreeMap<String, Value> {
    let folder = test_models().join("json-schema");
    let files = std::fs::read_dir(&folder)
        .unwrap_or_else(|_| panic!("no {}: scripts/test.sh fetches it", folder.display()));
    files
        .map(|file| file.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy();
            let text = std::fs::read_to_string(&path).expect("readable");
            (name.into_owned(), serde_json::from_str(&text).expect("JSON"))
        })
        .collect()
}

/// An instance with its members in every order, as properties come in the order of the schema.
fn orders(instance: &Value) -> Vec<Value> {
    match instance {
        Value::Array(items) => {
            let mut all = vec![Vec::new()];
            for item in items {
                all = extended(&all, &orders(item), |head, item| head.push(item));
            }
            all.into_iter().map(Value::Array).collect()
        }
        Value::Object(members) => {
            let mut all = Vec::new();
            for names in permutations(members.keys().cloned().collect()) {
                let mut some = vec![Map::new()];
                for name in names {
                    some = extended(&some, &orders(&members[&name]), |head, value| {
                        head.insert(name.clone(), value);
                    });
                }
                all.extend(some);
                all.truncate(MAX_ORDERS);
            }
            all.into_iter().map(Value::Object).collect()
        }
        other => vec![other.clone()],
    }
}

fn extended<T: Clone>(heads: &[T], ends: &[Value], add: impl Fn(&mut T, Value)) -> Vec<T> {
    let pairs = heads.iter().flat_map(|head| ends.iter().map(move |end| (head, end)));
    let whole = |(head, end): (&T, &Value)| {
        let mut head = head.clone();
        add(&mut head, end.clone());
        head
    };
    pairs.take(MAX_ORDERS).map(whole).collect()
}

fn permutations(names: Vec<String>) -> Vec<Vec<String>> {
    if names.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for i in 0..names.len() {
        let mut rest = names.clone();
        let first = rest.remove(i);
        for mut end in permutations(rest) {
            end.insert(0, first.clone());
            all.push(end);
            if all.len() == MAX_ORDERS {
                return all;
            }
        }
    }
    all
}

/// Whether a grammar allows the text and the end after it, token by token.
fn allows(mut grammar: Grammar, tokenizer: &Tokenizer, text: &str) -> bool {
    for token in tokenizer.encode(text, false, false) {
        grammar.prepare();
        if !grammar.allowed().expect("within budgets").is_allowed(token) {
            return false;
        }
        grammar.accept(token).expect("an allowed token");
    }
    grammar.prepare();
    let allowed = grammar.allowed().expect("within budgets");
    (0..tokenizer.n_vocab() as u32).any(|id| tokenizer.is_end_of_generation(id) && allowed.is_allowed(id))
}

#[test]
fn what_is_compiled_is_what_the_standard_says() {
    let path = test_models().join("smollm2-135m-instruct-q4_1.gguf");
    let gguf = Gguf::open(&path).expect("a valid file");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
    let grammars = Grammars::new(&tokenizer, tokenizer.n_vocab(), |_| None).expect("a vocabulary");
    let mut n = [0; 4];
    let mut problems = Vec::new();
    for (keyword, groups) in suite() {
        for group in groups.as_array().expect("a list of groups") {
            let schema = &group["schema"];
            let compiled = grammars.compile(&Constraint::Schema(schema.clone()), None);
            let Ok(grammar) = compiled else {
                println!("REFUSED {keyword} | {} | {}", group["description"], compiled.unwrap_err());
                n[0] += 1;
                continue;
            };
            n[1] += 1;
            for test in group["tests"].as_array().expect("a list of tests") {
                n[2] += 1;
                let is_valid = test["valid"] == true;
                let texts = orders(&test["data"]).into_iter().map(|value| value.to_string());
                let is_allowed = texts.into_iter().any(|text| allows(grammar.clone(), &tokenizer, &text));
                if is_allowed != is_valid {
                    n[3] += 1;
                    problems.push(format!(
                        "{} {keyword} | {} | {} | {} | {}",
                        if is_valid { "REJECTS" } else { "ACCEPTS" }, group["description"], test["description"], test["data"], schema
                    ));
                }
            }
        }
    }
    panic!("{n:?}\n{}", problems.join("\n"));
}

#[test]
fn scratch_masks() {
    for name in ["smollm2-135m-instruct-q4_1", "qwen2.5-coder-0.5b-instruct-q4_k_m"] {
        let gguf = Gguf::open(&test_models().join(format!("{name}.gguf"))).unwrap();
        let tok = Tokenizer::from_gguf(&gguf).unwrap();
        let t = std::time::Instant::now();
        let g = Grammars::new(&tok, tok.n_vocab(), |_| None).unwrap();
        println!("{name} grammars {:?}", t.elapsed());
        let schema = serde_json::json!({
        "type": "object",
        "properties": {
            "title": { "type": "string" },
            "chapters": { "type": "array", "minItems": 20, "items": {
                "type": "object",
                "properties": { "name": { "type": "string" }, "pages": { "type": "integer" } },
                "required": ["name", "pages"],
            } },
        },
        "required": ["title", "chapters"],
    });
        let t = std::time::Instant::now();
        let grammar = g.compile(&Constraint::Schema(schema), None).unwrap();
        println!("compile {:?}", t.elapsed());
        let text = r#"{"title": "The day it was bright and nobody knew what would come next, \"so\"", "chapters": [{"name": "A long walk to the sea at night", "pages": 120}, {"name": "Rain on the roof", "pages": 7}, {"name": "The keeper of the house, and his three daughters who went away", "pages": 31}]}"#;
        for round in 0..3 {
            let mut gr = grammar.clone();
            let mut out = vec![];
            let mut acc = 0.0;
            for id in tok.encode(text, false, false) {
                let t = std::time::Instant::now();
                gr.prepare();
                let us = t.elapsed().as_secs_f64()*1e6;
                let n = gr.allowed().unwrap().num_set();
                out.push((us, n, String::from_utf8_lossy(tok.token_bytes(id)).into_owned()));
                let t = std::time::Instant::now();
                if gr.accept(id).is_err() { println!("stopped at {id}"); break }
                acc += t.elapsed().as_secs_f64()*1e6;
            }
            let mean: f64 = out.iter().map(|o| o.0).sum::<f64>()/out.len() as f64;
            println!("round {round} mean {mean:.0} us, accept {:.0} us", acc/out.len() as f64);
            if round != 1 { for o in &out { print!("{:.0}/{}/{:?} ", o.0, o.1, o.2); } println!(); }
        }
    }
}
