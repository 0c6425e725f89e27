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

/// The suite's files by keyword, those of `folder` in it.
fn suite(folder: &str) -> BTreeMap<String, Value> {
    let folder = test_models().join("json-schema").join(folder);
    let files = std::fs::read_dir(&folder)
        .unwrap_or_else(|_| panic!("no {}: scripts/test.sh fetches it", folder.display()));
    files
        .map(|file| file.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy();
            let text = std::fs::read_to_string(&path).expect("readable");
            (
                name.into_owned(),
                serde_json::from_str(&text).expect("JSON"),
            )
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
    let pairs = heads
        .iter()
        .flat_map(|head| ends.iter().map(move |end| (head, end)));
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
    (0..tokenizer.n_vocab() as u32)
        .any(|id| tokenizer.is_end_of_generation(id) && allowed.is_allowed(id))
}

/// Whether the document of differences names this deviation.
fn is_documented(keyword: &str, test: &Value, is_valid: bool) -> bool {
    let (data, description) = (test["data"].to_string(), &test["description"]);
    match (is_valid, keyword) {
        // A choice of one is taken as a choice of any.
        (false, "oneOf") => true,
        // Days are those of any year, leap seconds those of any minute.
        (false, "date") => data.contains("-02-29"),
        (false, "time" | "date-time") => data.contains(":60"),
        (false, "ecmascript-regex") => data.contains('\u{feff}'),
        (false, _) => false,
        // A format is enforced, and no mere annotation.
        (true, "format") => true,
        (true, "email") => data.contains("\\\"") || data.contains("[IPv6"),
        (true, "ipv6") => data.contains('.'),
        (true, "ecmascript-regex") => data.contains('\u{feff}'),
        (true, "vocabulary") => {
            description == "no validation: invalid number, but it still validates"
        }
        // Objects with named properties have no others.
        (true, "properties") => description == "doesn't invalidate other properties",
        (true, "additionalProperties") => description == "additional properties are allowed",
        (true, "anyOf") => description == "both anyOf valid (complex)",
        // Whole numbers are written without a fraction.
        (true, _) => data.contains(".0") || data.contains("e+"),
    }
}

/// Keywords of which every schema of the suite is compiled, but for what cannot be fulfilled and for whole numbers
/// with a fraction; others are refused where they are not enforced.
const WHOLE: [&str; 19] = [
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "prefixItems",
    "properties",
    "required",
    "type",
];

#[test]
fn what_is_compiled_is_what_the_standard_says() {
    let path = test_models().join("smollm2-135m-instruct-q4_1.gguf");
    let gguf = Gguf::open(&path).expect("a valid file");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
    let grammars = Grammars::new(&tokenizer, tokenizer.n_vocab(), |_| None).expect("a vocabulary");
    let (mut n_schemas, mut n_instances) = (0, 0);
    let mut problems = Vec::new();
    let folders = ["", "optional", "optional/format"];
    for (keyword, groups) in folders.into_iter().flat_map(suite) {
        for group in groups.as_array().expect("a list of groups") {
            let schema = Constraint::Schema(group["schema"].clone());
            let grammar = match grammars.compile(&schema, None) {
                Ok(grammar) => grammar,
                Err(refused) => {
                    let refused = refused.to_string();
                    let is_expected = ["Unsatisfiable", "Expected positive integer"]
                        .iter()
                        .any(|part| refused.contains(part));
                    if WHOLE.contains(&keyword.as_str()) && !is_expected {
                        problems.push(format!("{keyword}: {refused}"));
                    }
                    continue;
                }
            };
            n_schemas += 1;
            for test in group["tests"].as_array().expect("a list of tests") {
                n_instances += 1;
                let is_valid = test["valid"] == true;
                let is_allowed = orders(&test["data"])
                    .iter()
                    .any(|data| allows(grammar.clone(), &tokenizer, &data.to_string()));
                if is_allowed != is_valid && !is_documented(&keyword, test, is_valid) {
                    problems.push(format!("{keyword}: {test} of {}", group["schema"]));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(
        n_schemas >= 197 && n_instances >= 969,
        "{n_schemas} schemas, {n_instances} instances"
    );
}
