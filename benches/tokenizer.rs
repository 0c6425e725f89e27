//! Loading vocabularies, and tokens from text in bytes per second: our own sources, which are
//! English and code, once; repeated text would be faster, as repeated words are.
//!
//! `cargo bench --bench tokenizer`; models are those of `scripts/models.sh`.

#[path = "../kernels-tests/models.rs"]
mod models;

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::tokenizer::Tokenizer;

const MODELS: [&str; 3] = [
    "smollm2-135m-instruct-q4_1.gguf",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "gemma-3-270m-q4_k_m.gguf",
];

fn load(name: &str) -> Tokenizer {
    let gguf = Gguf::open(&models::path(name)).expect("a valid file");
    Tokenizer::from_gguf(&gguf).expect("a supported vocabulary")
}

/// The text of every file below a folder, in the order of their names.
fn append_sources(folder: &Path, text: &mut String) {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            append_sources(&path, text);
        } else {
            text.push_str(&std::fs::read_to_string(&path).expect("text"));
        }
    }
}

fn loading(c: &mut Criterion) {
    let mut group = c.benchmark_group("load");
    group.sample_size(10);
    for name in MODELS {
        group.bench_function(name, |b| b.iter(|| load(name)));
    }
}

fn encoding(c: &mut Criterion) {
    let mut text = String::new();
    append_sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut text,
    );
    let mut group = c.benchmark_group("encode");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(text.len() as u64));
    for name in MODELS {
        let tokenizer = load(name);
        group.bench_function(name, |b| b.iter(|| tokenizer.encode(&text, true, true)));
    }
}

criterion_group!(benches, loading, encoding);
criterion_main!(benches);
