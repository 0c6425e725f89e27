//! Embeddings of short texts, in texts per second, beside a peer in the same run. Prints a line of a
//! Markdown table for each length.
//!
//! `cargo bench --bench embed -- [DEVICE=cpu] [TEXTS=256] [RUNS=5]`
//!
//! With a command in `OLLAMA_WGPU_BENCH_EMBED_PEER` a peer runs between two halves of ours. The
//! command is given to `sh` with `MODEL` (a path), `TEXTS` and `LENGTH` (in tokens) set, and prints
//! a JSON object at last with a key that ends in `texts_per_s`.

mod arguments;
mod command;
#[path = "../kernels-tests/models.rs"]
mod models;

use std::sync::Arc;
use std::time::Instant;

use arguments::Arguments;
use command::median;
use ollama_wgpu::cli::device;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::{Embedder, Model};

const MODEL: &str = "all-minilm-l6-v2-f16.gguf";
/// Tokens of a text.
const LENGTHS: [usize; 3] = [8, 16, 32];
/// What the server gives a step of an embedding model.
const STEP_TOKENS: usize = 512;
const STEP_TEXTS: usize = 128;

/// Seconds that all texts take.
fn run(embedder: &mut Embedder, texts: &[&[u32]]) -> f64 {
    let start = Instant::now();
    let mut rest = texts;
    while !rest.is_empty() {
        let n = embedder.n_fitting(rest.iter().copied());
        embedder.embed(&rest[..n]).expect("a step");
        rest = &rest[n..];
    }
    start.elapsed().as_secs_f64()
}

fn main() {
    let mut arguments = Arguments::read();
    let device: String = arguments.next("cpu".into(), "cpu".into());
    let (n_texts, n_runs) = (arguments.next(256, 4), arguments.next(5, 1));
    let peer = std::env::var("OLLAMA_WGPU_BENCH_EMBED_PEER").ok();
    let path = models::path(MODEL);
    let gguf = Arc::new(Gguf::open(&path).expect("a valid file"));
    let model = Model::load(&gguf).expect("a supported model");
    let mut backend = device::open(Some(&device)).expect("a device");
    model.load_into(&mut *backend).expect("it loads");
    let embedder = Embedder::prepare(&model, backend, STEP_TOKENS, STEP_TOKENS, STEP_TEXTS);
    let mut embedder = embedder.expect("it is prepared");
    println!("| {n_texts} texts of so many tokens | texts/s on {device} |\n| --- | --- |");
    for length in LENGTHS {
        let text = |i| models::tokens(length + i, model.config().vocab_size)[i..].to_vec();
        let texts: Vec<Vec<u32>> = (0..n_texts).map(text).collect();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        run(&mut embedder, &texts);
        let mut times = Vec::new();
        let mut half = || (0..n_runs).for_each(|_| times.push(run(&mut embedder, &texts)));
        half();
        let numbers = [("TEXTS", n_texts), ("LENGTH", length)];
        let theirs = peer
            .as_ref()
            .map(|command| command::run(command, &path, &numbers).number("texts_per_s"));
        if theirs.is_some() {
            half();
        }
        let ours = n_texts as f64 / median(times.into_iter());
        let beside = theirs.map_or_else(String::new, |theirs| {
            format!(" / {theirs:.0} = {:.2}", ours / theirs)
        });
        println!("| {length} | {ours:.0}{beside} |");
    }
}
