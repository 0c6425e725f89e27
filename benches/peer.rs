//! Whole models in the shape in which peers are measured: a prompt, then single tokens. Prints a
//! JSON line per device and model, medians of a few runs, so that it takes seconds on any device.
//!
//! `cargo bench --bench peer -- [DEVICE=cpu] [PART_OF_A_MODEL'S_NAME] [PROMPT_TOKENS=64]
//! [DECODE_TOKENS=8] [RUNS=3]`; models are those of `scripts/models.sh`, or the one file that the
//! second argument is the path of.
//!
//! With a command in `OLLAMA_WGPU_BENCH_PEER` a peer runs between two halves of ours, and a line of
//! a Markdown table compares the two. The command is given to `sh` with `MODEL` (a path), `PROMPT`
//! and `DECODE` set, and prints a JSON object at last whose keys end in `prefill_tps`, `decode_tps`
//! and `load_ms`.

mod arguments;
mod command;
#[path = "../kernels-tests/models.rs"]
mod models;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arguments::Arguments;
use command::median;
use ollama_wgpu::backend::KvType;
use ollama_wgpu::cli::device;
use ollama_wgpu::engine;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::Session;
use serde_json::json;

/// What is run.
struct Shape {
    device: String,
    n_prompt: usize,
    n_decode: usize,
    n_runs: usize,
}

/// Tokens per second, and milliseconds from opening the file to the first logits.
struct Figures {
    prefill: f64,
    decode: f64,
    first_token_ms: f64,
}

/// A loaded model and how long it took.
struct Loaded {
    session: Session,
    prompt: Vec<u32>,
    weight_bytes: u64,
    load_ms: f64,
}

/// Loads all that a server loads.
fn load(shape: &Shape, path: &Path) -> Loaded {
    let start = Instant::now();
    let gguf = Arc::new(Gguf::open(path).expect("a valid file"));
    let (_, model) = engine::open(&gguf, &[], &|| {}).expect("a supported model");
    let backend = device::open(Some(&shape.device)).expect("a device");
    let n_ctx = shape.n_prompt + shape.n_decode + 64;
    let session = Session::new(&model, backend, KvType::F16, n_ctx, shape.n_prompt.min(512));
    Loaded {
        session: session.expect("it loads"),
        prompt: models::tokens(shape.n_prompt, model.config().vocab_size),
        weight_bytes: model.weight_bytes(),
        load_ms: start.elapsed().as_secs_f64() * 1e3,
    }
}

/// Seconds of a prompt and of the tokens after it.
fn run(loaded: &mut Loaded, n_decode: usize) -> (f64, f64) {
    let Loaded {
        session, prompt, ..
    } = loaded;
    session.clear();
    let start = Instant::now();
    let last = prompt.len() - 1;
    session
        .prefill(prompt, |i| i == last, |_, _| {})
        .expect("prefill");
    let prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for i in 0..n_decode {
        session.decode(prompt[i % prompt.len()]).expect("decode");
    }
    (prefill, start.elapsed().as_secs_f64())
}

/// Runs the peer's command.
fn peer(command: &str, shape: &Shape, path: &Path) -> Figures {
    let numbers = [("PROMPT", shape.n_prompt), ("DECODE", shape.n_decode)];
    let figures = command::run(command, path, &numbers);
    let prefill = figures.number("prefill_tps");
    Figures {
        prefill,
        decode: figures.number("decode_tps"),
        first_token_ms: figures.number("load_ms") + shape.n_prompt as f64 / prefill * 1e3,
    }
}

/// Bytes per second at which all processors together read memory.
fn read_speed() -> f64 {
    const BYTES: usize = 128 << 20;
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let buffers: Vec<Vec<u64>> = (0..n_threads)
        .map(|i| vec![i as u64 + 1; BYTES / 8])
        .collect();
    let sum = |buffer: &Vec<u64>| {
        black_box(buffer.iter().fold(0, |a: u64, &b| a.wrapping_add(b)));
    };
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for buffer in &buffers {
                scope.spawn(move || sum(buffer));
            }
        });
        start.elapsed().as_secs_f64()
    };
    (n_threads * BYTES) as f64 / median((0..9).map(|_| pass()))
}

fn main() {
    let mut arguments = Arguments::read();
    let device = arguments.next("cpu".into(), "cpu".into());
    let wanted: String = arguments.next(String::new(), "smollm2".into());
    let shape = Shape {
        device,
        n_prompt: arguments.next(64, 8),
        n_decode: arguments.next(8, 2),
        n_runs: arguments.next(3, 1),
    };
    let command = std::env::var("OLLAMA_WGPU_BENCH_PEER").ok();
    let mut table = Vec::new();
    let paths: Vec<PathBuf> = match Path::new(&wanted).is_file() {
        true => vec![wanted.into()],
        false => {
            let named = models::REAL.iter().filter(|name| name.contains(&wanted));
            named.map(|name| models::path(name)).collect()
        }
    };
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut loaded = load(&shape, &path);
        // The first run warms up: drivers compile at the first launch.
        let (first_prefill, first_decode) = run(&mut loaded, shape.n_decode);
        let mut times = Vec::new();
        let mut runs =
            || (0..shape.n_runs).for_each(|_| times.push(run(&mut loaded, shape.n_decode)));
        runs();
        let peer = command.as_ref().map(|command| {
            let figures = peer(command, &shape, &path);
            runs();
            figures
        });
        let speed = |n: usize, seconds: f64| (n as f64 / seconds * 100.0).round() / 100.0;
        let ours = Figures {
            prefill: speed(shape.n_prompt, median(times.iter().map(|t| t.0))),
            decode: speed(shape.n_decode, median(times.iter().map(|t| t.1))),
            first_token_ms: loaded.load_ms + first_prefill * 1e3,
        };
        let device = loaded.session.backend().device();
        let line = json!({
            "device": device.name,
            "model": name,
            "prompt_tokens": shape.n_prompt,
            "decode_tokens": shape.n_decode,
            "load_ms": loaded.load_ms.round(),
            "first_run_ms": ((first_prefill + first_decode) * 1e3).round(),
            "median_prefill_tps": ours.prefill,
            "median_decode_tps": ours.decode,
        });
        println!("{line}");
        if let Some(peer) = peer {
            // Every weight is read once for a token; these models embed with their output matrix.
            let bytes = loaded.weight_bytes as f64 * ours.decode;
            let share = (!device.is_gpu).then(|| bytes / read_speed());
            table.push(row(&name, &ours, &peer, share));
        }
    }
    if !table.is_empty() {
        println!(
            "\n| model | decode of {}, tokens/s | prefill of {}, tokens/s | load to first token, ms | \
             decode's share of the read bandwidth |\n| --- | --- | --- | --- | --- |",
            shape.n_decode, shape.n_prompt
        );
        table.iter().for_each(|row| println!("{row}"));
    }
}

/// A line of the table: here / peer = how many times better here.
fn row(name: &str, ours: &Figures, peer: &Figures, share: Option<f64>) -> String {
    let (prefill, decode) = (ours.prefill / peer.prefill, ours.decode / peer.decode);
    let first = peer.first_token_ms / ours.first_token_ms;
    let share = share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share));
    format!(
        "| {} | {:.1} / {:.1} = {decode:.2} | {:.0} / {:.0} = {prefill:.2} | {:.0} / {:.0} = {first:.2} | {share} |",
        name,
        ours.decode,
        peer.decode,
        ours.prefill,
        peer.prefill,
        ours.first_token_ms,
        peer.first_token_ms,
    )
}
