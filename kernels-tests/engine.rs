//! The engine on real arithmetic: reference answers, and the same tokens whatever else runs.

use std::path::Path;
use std::sync::Arc;

use ollama_wgpu::backend::{Backend, KvType};
use ollama_wgpu::cpu::CpuBackend;
use ollama_wgpu::engine::{Endless, Engine, EngineOptions, Event, Events, Request, SamplingParams};
use ollama_wgpu::gguf::Gguf;
use serde_json::Value;

use crate::{devices, models};

fn load(name: &str, n_parallel: usize, n_batch: usize, kv_type: KvType) -> Engine {
    let backend = Box::new(CpuBackend::new(Some(2)));
    load_on(backend, &tiny(name), n_parallel, n_batch, kv_type)
}

fn tiny(name: &str) -> String {
    format!("tiny/{name}.gguf")
}

pub fn load_on(
    backend: Box<dyn Backend>,
    file: &str,
    n_parallel: usize,
    n_batch: usize,
    kv_type: KvType,
) -> Engine {
    let path = models::path(file);
    let gguf = Arc::new(Gguf::open(&path).expect("a valid file"));
    let options = EngineOptions {
        n_ctx: 512,
        n_parallel,
        n_batch,
        n_waiting: 100,
        kv_type,
    };
    Engine::load(&gguf, Arc::new(Endless), backend, options).expect("it loads")
}

fn reference(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/golden/tiny");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("a reference");
    serde_json::from_str(&text).expect("references are JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().expect("an array of ids").iter();
    ids.map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// All tokens of a request.
fn read(mut events: Events) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        match pollster::block_on(events.recv()) {
            Some(Event::Piece { tokens, .. }) => all.extend(tokens),
            Some(Event::Failed(error)) => panic!("{error}"),
            Some(Event::Done { .. }) | None => return all,
        }
    }
}

fn request(tokens: Vec<u32>, n_predict: usize, params: SamplingParams) -> Request {
    Request {
        n_predict: Some(n_predict),
        max_repeats: None,
        params,
        ..Request::new(tokens)
    }
}

#[test]
fn greedy_answers_are_those_of_the_references() {
    for name in [
        "tiny-llama",
        "tiny-gemma3",
        "tiny-gemma2",
        "tiny-lfm2",
        "tiny-qwen35",
        "tiny-llama-q4_k",
    ] {
        let reference = reference(name);
        let wanted = ids(&reference["greedy"]);
        let engine = load(name, 2, 24, KvType::F32);
        let greedy = SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        };
        let tokens = ids(&reference["tokens"]);
        let events = engine.submit(request(tokens, wanted.len(), greedy));
        assert_eq!(read(events.expect("a place")), wanted, "{name}");
    }
}

/// Prompts of many lengths, some with a common beginning, greedy and seeded.
fn requests(tokens: &[u32]) -> Vec<Request> {
    let lengths = [1, 5, 31, 32, 33, 64, 70, 100];
    let requests = lengths.iter().enumerate().map(|(i, &n)| {
        let tokens: Vec<u32> = tokens.iter().cycle().skip(i % 3).take(n).copied().collect();
        let params = SamplingParams {
            temperature: [0.0, 0.8, 1.5][i % 3],
            top_k: [40, 0, 300][i / 3],
            repeat_penalty: 1.1,
            seed: Some(i as u64),
            ..SamplingParams::default()
        };
        request(tokens, 50, params)
    });
    requests.collect()
}

#[test]
fn eight_streams_give_the_tokens_that_each_gives_alone() {
    for (name, kv_type) in [
        ("tiny-llama-q4_k", KvType::F16),
        ("tiny-gemma3", KvType::F16),
        ("tiny-llama-f16", KvType::Q8_0),
        ("tiny-llama-iq3_s", KvType::Q4_0),
        ("tiny-lfm2", KvType::F16),
        ("tiny-qwen35", KvType::Q8_0),
    ] {
        let requests = requests(&ids(&reference(name)["tokens"]));
        let alone: Vec<Vec<u32>> = requests
            .iter()
            .map(|request| {
                let engine = load(name, 1, 300, kv_type);
                read(engine.submit(request.clone()).expect("a place"))
            })
            .collect();
        let engine = load(name, 8, 24, kv_type);
        // The second time their prefixes are in the cache, and tokens are guessed.
        for n_draft in [0, 6] {
            let guessing = |request: &Request| Request {
                n_draft,
                ..request.clone()
            };
            let events: Vec<Events> = requests
                .iter()
                .map(|request| engine.submit(guessing(request)).expect("a place"))
                .collect();
            let together: Vec<Vec<u32>> = events.into_iter().map(read).collect();
            assert_eq!(together, alone, "{name}");
        }
    }
}

#[test]
fn a_shifted_context_goes_on() {
    let tokens = ids(&reference("tiny-llama")["tokens"]);
    let long: Vec<u32> = tokens.iter().cycle().take(500).copied().collect();
    let engine = load("tiny-llama", 1, 64, KvType::F16);
    let events = engine.submit(request(long, 300, SamplingParams::default()));
    assert_eq!(read(events.expect("a place")).len(), 300);
}

/// The first GPU, whose kernels all engines of a test share.
fn gpu() -> devices::Device {
    let mut gpus = devices::plain_gpus();
    assert!(!gpus.is_empty(), "there is no GPU adapter");
    gpus.swap_remove(0)
}

/// Where the GPU chooses the tokens of some rows and the host those of others.
#[test]
fn eight_streams_of_a_gpu_give_the_tokens_that_each_gives_alone() {
    let gpu = gpu();
    for name in ["tiny-llama-q4_k", "tiny-lfm2"] {
        let load = |n_parallel| {
            let backend = gpu.open().expect("it opens");
            load_on(backend, &tiny(name), n_parallel, 24, KvType::F16)
        };
        let mut requests = requests(&ids(&reference(name)["tokens"]));
        requests[2].logprobs = Some(1);
        for request in &mut requests[4..] {
            request.params.top_k = 30;
        }
        let engine = load(1);
        let answer = |request: &Request| read(engine.submit(request.clone()).expect("a place"));
        let alone: Vec<Vec<u32>> = requests.iter().map(answer).collect();
        let engine = load(8);
        let events: Vec<Events> = requests
            .iter()
            .map(|request| engine.submit(request.clone()).expect("a place"))
            .collect();
        let together: Vec<Vec<u32>> = events.into_iter().map(read).collect();
        assert_eq!(together, alone, "{name}");
    }
}

/// With Ollama's options and with all penalties: a report of probabilities leaves the choice to the
/// host.
#[test]
fn a_gpu_chooses_the_tokens_that_the_host_chooses() {
    let backend = gpu().open().expect("it opens");
    let engine = load_on(backend, models::REAL[0], 1, 256, KvType::F16);
    let answer = |request: Request| read(engine.submit(request).expect("a place"));
    let seeded = SamplingParams {
        seed: Some(7),
        ..SamplingParams::default()
    };
    let penalised = SamplingParams {
        repeat_penalty: 1.1,
        presence_penalty: 0.2,
        frequency_penalty: 0.1,
        min_p: 0.02,
        ..seeded.clone()
    };
    for (params, n_predict) in [(seeded, 64), (penalised, 24)] {
        let chosen_by_gpu = request((500..540).collect(), n_predict, params);
        let chosen_by_host = Request {
            logprobs: Some(0),
            ..chosen_by_gpu.clone()
        };
        let tokens = answer(chosen_by_gpu);
        assert_eq!(tokens.len(), n_predict);
        assert_eq!(tokens, answer(chosen_by_host));
    }
}

/// A stop string is seen when the step after it is under way, which must not show in the cache.
#[test]
fn an_end_that_is_seen_late_leaves_no_trace_on_a_gpu() {
    let gpu = gpu();
    for name in ["tiny-llama-q4_k", "tiny-lfm2"] {
        let load = || {
            let backend = gpu.open().expect("it opens");
            load_on(backend, &tiny(name), 1, 64, KvType::F16)
        };
        let answer = |engine: &Engine, request: &Request| {
            read(engine.submit(request.clone()).expect("a place"))
        };
        let engine = load();
        let tokens = ids(&reference(name)["tokens"]);
        let prompt: Vec<u32> = tokens.iter().cycle().take(63).copied().collect();
        let stopped = Request {
            stop: vec![".....".into()],
            ..request(prompt.clone(), 64, SamplingParams::default())
        };
        let n_tokens = answer(&engine, &stopped).len();
        assert!(n_tokens <= 5, "it stops after {n_tokens} tokens");
        let seeded = SamplingParams {
            seed: Some(7),
            ..SamplingParams::default()
        };
        let longer = request([&prompt[..], &prompt].concat(), 24, seeded);
        assert_eq!(answer(&engine, &longer), answer(&load(), &longer), "{name}");
    }
}
