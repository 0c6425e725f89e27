//! Models that embed texts: reference vectors, and the engine's thread for them.

use std::sync::Arc;

use ollama_wgpu::backend::KvType;
use ollama_wgpu::cpu::CpuBackend;
use ollama_wgpu::engine::{Endless, Engine, EngineOptions, Error, Request};
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::{Embedder, Model};
use ollama_wgpu::tokenizer::Tokenizer;
use pollster::block_on;
use serde_json::Value;

use crate::devices::{self, Device};
use crate::golden::{floats, golden, ids, open, tiny};

/// Tiny models that embed.
pub const TINY: &[&str] = &[
    "tiny-bert",
    "tiny-bert-cls",
    "tiny-nomic-bert",
    "tiny-nomic-bert-moe",
    "tiny-gemma-embedding",
    "tiny-gemma-embedding-dense",
    "tiny-jina-bert-v2",
    "tiny-jina-bert-v2-code",
    "tiny-jina-bert-v3",
    "tiny-qwen3-embedding",
    "tiny-llama-bidirectional",
];

/// Largest difference of a component from the reference, where that does not name another.
const TOLERANCE: f64 = 1e-5;

/// A text's tokens and its vector.
fn texts(reference: &Value) -> Vec<(Vec<u32>, Vec<f32>)> {
    let texts = reference["texts"].as_array().expect("texts").iter();
    texts
        .map(|text| (ids(&text["tokens"]), floats(&text["embedding"])))
        .collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    // A NaN must not look like no difference.
    pairs.fold(0.0, |most, (a, b)| {
        let off = (a - b).abs();
        if off <= most { most } else { off }
    })
}

/// Embeds the reference's texts, alone and side by side; lists what is wrong.
fn problems(name: &str, device: &Device) -> Vec<String> {
    let (gguf, reference) = tiny(name);
    problems_of(&gguf, &reference, name, device)
}

/// What [`problems`] lists, of a file that must answer as the reference says.
pub fn problems_of(
    gguf: &Arc<Gguf>,
    reference: &Value,
    name: &str,
    device: &Device,
) -> Vec<String> {
    let tolerance = reference["tolerance"].as_f64().unwrap_or(TOLERANCE);
    let texts = texts(reference);
    let model = Model::load(gguf).expect("a supported model");
    let mut backend = device.open().expect("the device opens");
    model.load_into(&mut *backend).expect("it loads");
    let mut embedder = Embedder::prepare(&model, backend, 128, 256, 4).expect("it is prepared");
    let all: Vec<&[u32]> = texts.iter().map(|(tokens, _)| tokens.as_slice()).collect();
    let together = embedder.embed(&all).expect("it runs");
    let mut problems = Vec::new();
    for (i, (tokens, want)) in texts.iter().enumerate() {
        let off = largest_difference(&together[i], want);
        if off.is_nan() || f64::from(off) > tolerance {
            problems.push(format!(
                "{}: {name}: text {i} differs by {off}",
                device.name
            ));
        }
        let alone = embedder.embed(&[tokens]).expect("it runs");
        if alone[0] != together[i] {
            problems.push(format!(
                "{}: {name}: text {i} depends on its batch",
                device.name
            ));
        }
    }
    problems
}

fn tiny_on(devices: &[Device]) {
    assert!(!devices.is_empty(), "there is no device to run on");
    let pairs = devices
        .iter()
        .flat_map(|d| TINY.iter().map(move |name| (name, d)));
    let problems: Vec<String> = pairs.flat_map(|(name, d)| problems(name, d)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn tiny_embedders_on_every_instruction_set() {
    tiny_on(&devices::cpus());
}

/// As users run them; the other variants of the shaders have the cases of `suite`.
#[test]
fn tiny_embedders_on_every_gpu() {
    tiny_on(&devices::plain_gpus());
}

/// The real MiniLM in 16-bit floats against its checkpoint in 64-bit arithmetic.
#[test]
fn minilm_gives_the_vectors_of_its_checkpoint() {
    assert_minilm(&open("all-minilm-l6-v2-f16.gguf"));
}

/// Fails where a file does not have the real MiniLM's ids and vectors.
pub fn assert_minilm(gguf: &Arc<Gguf>) {
    let tokenizer = Tokenizer::from_gguf(gguf).expect("a tokenizer");
    let model = Model::load(gguf).expect("a supported model");
    let mut backend = Box::new(CpuBackend::new(Some(2)));
    model.load_into(&mut *backend).expect("it loads");
    let mut embedder = Embedder::prepare(&model, backend, 512, 512, 4).expect("it is prepared");
    let reference = golden("all-minilm-l6-v2.json");
    for (i, (tokens, want)) in texts(&reference).iter().enumerate() {
        let text = reference["texts"][i]["text"].as_str().expect("a text");
        assert_eq!(&tokenizer.encode(text, true, true), tokens, "{text}");
        let vector = &embedder.embed(&[tokens]).expect("it runs")[0];
        let cosine: f32 = vector.iter().zip(want).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.9999, "{text}: {cosine}");
    }
}

fn engine(name: &str) -> Engine {
    let options = EngineOptions {
        n_ctx: 64,
        n_parallel: 1,
        n_batch: 64,
        n_waiting: 3,
        kv_type: KvType::F16,
    };
    let gguf = open(&format!("tiny/{name}.gguf"));
    let backend = Box::new(CpuBackend::new(Some(2)));
    Engine::load(&gguf, Arc::new(Endless), backend, options).expect("it loads")
}

/// More than a step holds, of all lengths up to the context.
fn many_texts() -> Vec<Vec<u32>> {
    let length = |i: u32| 1 + i * 7 % 64;
    let text = |i: u32| {
        (0..length(i))
            .map(|p| 5 + (i * 31 + p * 17) % 200)
            .collect()
    };
    (0..150).map(text).collect()
}

#[test]
fn requests_share_steps_and_get_their_own_vectors() {
    let engine = engine("tiny-bert");
    assert!(engine.embeds());
    let texts = many_texts();
    let alone: Vec<Vec<f32>> = texts
        .iter()
        .map(|text| {
            let mut vectors = block_on(engine.embed(vec![text.clone()])).expect("a vector");
            vectors.pop().expect("one vector")
        })
        .collect();
    let (a, b, none) = block_on(async {
        tokio::join!(
            engine.embed(texts[..100].to_vec()),
            engine.embed(texts[100..].to_vec()),
            engine.embed(Vec::new()),
        )
    });
    assert_eq!(a.expect("vectors"), alone[..100]);
    assert_eq!(b.expect("vectors"), alone[100..]);
    assert_eq!(none.expect("no texts"), Vec::<Vec<f32>>::new());
    engine.close();
}

#[test]
fn texts_that_cannot_be_embedded_are_refused() {
    let engine = engine("tiny-bert");
    let refused =
        |text: Vec<u32>| block_on(engine.embed(vec![vec![5], text])).expect_err("refused");
    assert_eq!(refused(vec![]), Error::EmptyPrompt);
    let (n_tokens, n_ctx) = (65, 64);
    assert_eq!(
        refused(vec![5; 65]),
        Error::PromptTooLong { n_tokens, n_ctx }
    );
    assert!(matches!(
        refused(vec![u32::MAX]),
        Error::UnknownToken { .. }
    ));
    let prompt = engine.submit(Request::new(vec![5])).expect_err("refused");
    assert_eq!(prompt, Error::NotAGenerator);
    engine.close();
    assert_eq!(refused(vec![5]), Error::Unloaded);
    assert!(!engine.is_alive());
}

#[test]
fn a_model_that_writes_embeds_nothing() {
    let engine = engine("tiny-llama");
    assert!(!engine.embeds());
    let refused = block_on(engine.embed(vec![vec![5]])).expect_err("refused");
    assert_eq!(refused, Error::NotAnEmbedder);
}

#[test]
fn callers_that_leave_make_room() {
    let engine = engine("tiny-bert");
    // Four places, of which dropped requests must not keep any.
    for _ in 0..20 {
        let mut waiting = Box::pin(engine.embed(many_texts()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(waiting);
        while let Err(error) = block_on(engine.embed(vec![vec![5]])) {
            assert_eq!(error, Error::Busy);
            std::thread::yield_now();
        }
    }
}
