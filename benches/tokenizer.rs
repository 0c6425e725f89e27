//! Loading vocabularies, and tokens from text in bytes per second: our own sources, which are
//! English and code, once; repeated text would be faster, as repeated words are.
//!
//! `cargo bench --bench tokenizer`; models are those of `scripts/models.sh`. Beside ours stand Hugging
//! Face's `tokenizers` with the same BPE vocabulary and, with a command in `OLLAMA_WGPU_BENCH_PEER`, a
//! peer: `sh` gets it with `MODEL` and `TEXT` (paths) set, and it prints a JSON object at last.

#[path = "../kernels-tests/models.rs"]
mod models;

use std::path::Path;
use std::process::Command;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::tokenizer::Tokenizer;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

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

/// The same merges in Hugging Face's crate, behind GPT-2's pattern; none for a vocabulary without.
fn hugging_face(name: &str) -> Option<tokenizers::Tokenizer> {
    let gguf = Gguf::open(&models::path(name)).expect("a valid file");
    let strings = |key: &str| -> Option<Vec<String>> {
        let strings = gguf.strings(key)?;
        Some(strings.map(|s| String::from_utf8_lossy(s).into()).collect())
    };
    let merges = strings("tokenizer.ggml.merges")?;
    let merges = merges.iter().filter_map(|line| line.split_once(' '));
    let tokens = strings("tokenizer.ggml.tokens").expect("entries");
    let bpe = BPE::builder()
        .vocab_and_merges(
            tokens
                .into_iter()
                .zip(0..)
                .collect::<tokenizers::models::bpe::Vocab>(),
            merges.map(|(a, b)| (a.to_owned(), b.to_owned())).collect(),
        )
        .build()
        .expect("a vocabulary");
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    Some(tokenizer)
}

fn loading(c: &mut Criterion) {
    let mut group = c.benchmark_group("load");
    group.sample_size(10);
    for name in MODELS {
        group.bench_function(name, |b| b.iter(|| load(name)));
        if hugging_face(name).is_some() {
            let id = format!("{name}, tokenizers crate");
            group.bench_function(id, |b| b.iter(|| hugging_face(name)));
        }
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
        if let Some(peer) = hugging_face(name) {
            let id = format!("{name}, tokenizers crate");
            group.bench_function(id, |b| b.iter(|| peer.encode_fast(text.as_str(), false)));
        }
        if let Ok(command) = std::env::var("OLLAMA_WGPU_BENCH_PEER") {
            println!("{name}, peer: {}", peer(&command, name, &text));
        }
    }
}

/// The last line of the peer's command.
fn peer(command: &str, name: &str, text: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("space");
    let output = Command::new("sh")
        .args(["-c", command])
        .env("MODEL", models::path(name))
        .env("TEXT", file.path())
        .output()
        .expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().to_owned()
}

criterion_group!(benches, loading, encoding);
criterion_main!(benches);
