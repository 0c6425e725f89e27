//! The tables of `docs/models.md` and their summary in `README.md`, made from the program's own, each row with
//! what proves it.

use std::path::Path;

use ollama_wgpu::model::architectures;
use ollama_wgpu::quant::QuantType;
use ollama_wgpu::store::convertible;
use ollama_wgpu::tokenizer;

use crate::embedding;
use crate::golden::{self, golden};
use crate::imported;

/// Writes the tables instead of comparing them.
const UPDATE: &str = "OLLAMA_WGPU_UPDATE_DOCS";

/// The tiny models whose reference has this text under `key`.
fn proofs(key: &str, value: &str) -> Vec<&'static str> {
    let all = golden::TINY.iter().chain(embedding::TINY).copied();
    all.filter(|name| golden(&format!("tiny/{name}.json"))[key] == value)
        .collect()
}

fn code(names: &[&str]) -> String {
    let names = names.iter().map(|name| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}

/// Both backends run every tiny model (`golden`, `embedding`).
fn architecture_table() -> String {
    let mut table = String::from(
        "| architecture | models | CPU | GPU | proved by |\n| --- | --- | --- | --- | --- |\n",
    );
    for (name, models) in architectures() {
        // A family has models of many types, which have a table of their own.
        let mut proofs = proofs("arch", name);
        proofs.retain(|proof| name != "llama" || !type_names().any(|t| *proof == of_type(&t)));
        assert!(!proofs.is_empty(), "{name} has no proof");
        table += &format!("| `{name}` | {models} | yes | yes | {} |\n", code(&proofs));
    }
    table
}

fn type_names() -> impl Iterator<Item = String> {
    QuantType::all().map(|quant| quant.name().to_lowercase())
}

fn of_type(name: &str) -> String {
    format!("tiny-llama-{name}")
}

/// Products of every type run on every device (`suite`), and its blocks are compared.
fn type_table() -> String {
    let mut table = String::from(
        "| type | bits a weight | CPU | GPU | proved by |\n| --- | --- | --- | --- | --- |\n",
    );
    let blocks = golden("dequant.json");
    for quant in QuantType::all() {
        let bits = (8 * quant.block_bytes()) as f64 / quant.block_len() as f64;
        let model = of_type(&quant.name().to_lowercase());
        let whole = golden::TINY.contains(&model.as_str());
        let compared = blocks.get(quant.name()).is_some();
        let proof = match (whole, compared) {
            (true, true) => format!("`{model}`, its blocks, products"),
            (true, false) => format!("`{model}`, products"),
            (false, true) => "its blocks, products".to_string(),
            (false, false) => "products".to_string(),
        };
        table += &format!("| {} | {bits} | yes | yes | {proof} |\n", quant.name());
    }
    table
}

fn tokenizer_table() -> String {
    let mut table =
        String::from("| `tokenizer.ggml.model` | `tokenizer.ggml.pre` |\n| --- | --- |\n");
    let mut pre: Vec<&str> = tokenizer::pre_tokenizers().collect();
    pre.sort_unstable();
    for model in tokenizer::models() {
        let pre = if model == "gpt2" {
            code(&pre)
        } else {
            String::new()
        };
        table += &format!("| `{model}` | {pre} |\n");
    }
    table
}

/// What `create` makes GGUF files of (`imported`).
fn checkpoint_table() -> String {
    let mut table = String::from("| `config.json` | becomes | proved by |\n| --- | --- | --- |\n");
    for (name, arch) in convertible() {
        let proofs: Vec<&str> = imported::of_architecture(name).collect();
        assert!(!proofs.is_empty(), "{name} has no proof");
        table += &format!("| `{name}` | `{arch}` | {} |\n", code(&proofs));
    }
    table
}

/// What is supported, in short.
fn summary() -> String {
    let archs: Vec<&str> = architectures().map(|(name, _)| name).collect();
    let types: Vec<&str> = QuantType::all().map(QuantType::name).collect();
    let models: Vec<&str> = tokenizer::models().collect();
    let n_pre = tokenizer::pre_tokenizers().count();
    let from: Vec<&str> = convertible().map(|(name, _)| name).collect();
    let mut table =
        String::from("| | | CPU | GPU | proved by |\n| --- | --- | --- | --- | --- |\n");
    for (what, names, devices, proof) in [
        (
            format!("{} architectures", archs.len()),
            code(&archs),
            "yes | yes",
            "logits of a tiny model each, `kernels-tests/golden.rs` and `embedding.rs`",
        ),
        (
            format!("{} types of weights, mixed as the file likes", types.len()),
            code(&types),
            "yes | yes",
            "blocks and products of each, `kernels-tests/suite.rs`, models, `golden.rs`",
        ),
        (
            format!(
                "{} kinds of tokenizers, {n_pre} pre-tokenizers",
                models.len()
            ),
            code(&models),
            "yes | ",
            "ids of vocabulary files and random text, `src/tokenizer/tests/`",
        ),
        (
            format!("{} kinds of safetensors folders", from.len()),
            code(&from),
            "yes | ",
            "logits of the GGUF file made of each, `kernels-tests/imported.rs`",
        ),
    ] {
        table += &format!("| {what} | {names} | {devices} | {proof} |\n");
    }
    table
}

/// The text with what stands between the marks of `name` replaced.
fn replaced(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let from = text.find(&begin).expect("a mark before the table") + begin.len();
    let to = text.find(&end).expect("a mark behind the table");
    format!("{}{table}{}", &text[..from], &text[to..])
}

#[test]
fn the_tables_of_models_are_those_of_the_program() {
    is_current(
        "docs/models.md",
        &[
            ("architectures", architecture_table()),
            ("types", type_table()),
            ("tokenizers", tokenizer_table()),
            ("checkpoints", checkpoint_table()),
        ],
    );
    is_current("README.md", &[("supported", summary())]);
}

/// Compares the tables of a file, or writes them.
fn is_current(file: &str, tables: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(&path).expect("the file can be read");
    let right = tables.iter().fold(text.clone(), |text, (name, table)| {
        replaced(&text, name, table)
    });
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, right).expect("the file can be written");
        return;
    }
    assert!(
        text == right,
        "{file} is out of date; with {UPDATE}=1 this test writes it; right is:\n{right}"
    );
}

/// Every test that `docs/hostile-input.md` names, as `path::function` in code marks, is there and is a test.
#[test]
fn the_tests_of_hostile_input_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let document = read(&root.join("docs/hostile-input.md"));
    let named = document.split('`').filter_map(|text| text.split_once("::"));
    let (mut n, mut missing) = (0, Vec::new());
    for (path, function) in named {
        n += 1;
        let text = read(&root.join(path));
        let (rust, python) = (format!("fn {function}("), format!("def {function}("));
        let is_test = match text.find(&rust) {
            // Attributes stand before it; a property's are those of its macro.
            Some(at) => text[..at].rfind("#[").is_some_and(|from| {
                let before = &text[from..at];
                before.contains("test]") || before.contains("test(")
            }),
            None => function.starts_with("test_") && text.contains(&python),
        };
        if !is_test {
            missing.push(format!("{path}::{function}"));
        }
    }
    assert!(n > 50, "only {n} tests are named");
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}
