//! Reference answers: logits and greedy text of tiny models. Those of real ones are in `golden_real`.

use std::path::Path;
use std::sync::Arc;

use ollama_wgpu::backend::KvType;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::{Model, Session};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::devices::{self, Device};
use crate::{embedding, models};

/// Tokens of a prefill chunk: less than the prompts, so that chunks meet.
const N_BATCH: usize = 24;

pub fn open(name: &str) -> Arc<Gguf> {
    let gguf = Gguf::open(&models::path(name)).expect("a valid file");
    Arc::new(gguf.with_current_names())
}

pub fn golden(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/golden");
    let text = std::fs::read_to_string(folder.join(name)).expect("a reference file");
    serde_json::from_str(&text).expect("reference files are JSON")
}

pub fn ids(value: &Value) -> Vec<u32> {
    let items = value.as_array().expect("an array of ids");
    items
        .iter()
        .map(|v| v.as_u64().expect("an id") as u32)
        .collect()
}

pub fn floats(value: &Value) -> Vec<f32> {
    let items = value.as_array().expect("an array of numbers");
    items
        .iter()
        .map(|v| v.as_f64().expect("a number") as f32)
        .collect()
}

pub fn argmax(logits: &[f32]) -> u32 {
    let best = |best, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, best) as u32
}

/// Tiny models that write, of the covered architectures and types.
pub const TINY: &[&str] = &[
    "tiny-llama",
    "tiny-llama-odd",
    "tiny-llama-odd-q4_0",
    "tiny-llama3-rope",
    "tiny-mistral-nemo",
    "tiny-qwen2",
    "tiny-qwen3",
    "tiny-gemma2",
    "tiny-gemma3",
    "tiny-gemma3-ollama",
    "tiny-gemma3n",
    "tiny-gemma4",
    "tiny-gemma4-31b",
    "tiny-gemma4-moe",
    "tiny-phi3",
    "tiny-phi4-mini",
    "tiny-granite",
    "tiny-granite-nope",
    "tiny-smollm3",
    "tiny-glm4",
    "tiny-olmo",
    "tiny-olmo2",
    "tiny-olmo3",
    "tiny-olmo3-pattern",
    "tiny-starcoder2",
    "tiny-command-r",
    "tiny-command-r-plus",
    "tiny-cohere2",
    "tiny-llama-yarn",
    "tiny-llama-linear",
    "tiny-mistral3",
    "tiny-internlm2",
    "tiny-ernie4_5",
    "tiny-gemma",
    "tiny-phi2",
    "tiny-gpt2",
    "tiny-gptneox",
    "tiny-gptneox-sequential",
    "tiny-falcon",
    "tiny-falcon-40b",
    "tiny-stablelm",
    "tiny-stablelm-12b",
    "tiny-exaone4",
    "tiny-exaone4-32b",
    "tiny-exaone",
    "tiny-nemotron",
    "tiny-starcoder",
    "tiny-minicpm",
    "tiny-qwen",
    "tiny-arcee",
    "tiny-seed_oss",
    "tiny-orion",
    "tiny-xverse",
    "tiny-codeshell",
    "tiny-chatglm",
    "tiny-qwen2vl",
    "tiny-qwen2vl-ollama",
    "tiny-qwen3vl",
    "tiny-hunyuan-dense",
    "tiny-lfm2",
    "tiny-lfm2-ollama",
    "tiny-lfm2moe",
    "tiny-qwen35",
    "tiny-qwen35moe",
    "tiny-qwen3next",
    "tiny-qwen3next-fused",
    "tiny-bloom",
    "tiny-mpt",
    "tiny-refact",
    "tiny-jais",
    "tiny-baichuan",
    "tiny-baichuan-13b",
    "tiny-llama-moe",
    "tiny-llama-moe-fused",
    "tiny-llama-moe-separate",
    "tiny-qwen3vlmoe",
    "tiny-qwen2moe",
    "tiny-qwen3moe",
    "tiny-qwen3moe-q4_k",
    "tiny-olmoe",
    "tiny-granitemoe",
    "tiny-phimoe",
    "tiny-ernie4_5-moe",
    "tiny-glm4moe",
    "tiny-gpt-oss",
    "tiny-gpt-oss-ollama",
    "tiny-deepseek",
    "tiny-dots1",
    "tiny-hunyuan-moe",
    "tiny-minimax-m2",
    "tiny-deepseek2",
    "tiny-deepseek2-lite",
    "tiny-deepseek3",
    "tiny-llama-f32",
    "tiny-llama-f16",
    "tiny-llama-bf16",
    "tiny-llama-q4_0",
    "tiny-llama-q4_1",
    "tiny-llama-q5_0",
    "tiny-llama-q5_1",
    "tiny-llama-q8_0",
    "tiny-llama-q2_k",
    "tiny-llama-q3_k",
    "tiny-llama-q4_k",
    "tiny-llama-q5_k",
    "tiny-llama-q6_k",
    "tiny-llama-iq1_s",
    "tiny-llama-iq1_m",
    "tiny-llama-iq2_xxs",
    "tiny-llama-iq2_xs",
    "tiny-llama-iq2_s",
    "tiny-llama-iq3_xxs",
    "tiny-llama-iq3_s",
    "tiny-llama-iq4_nl",
    "tiny-llama-iq4_xs",
    "tiny-llama-tq1_0",
    "tiny-llama-tq2_0",
    "tiny-llama-mxfp4",
    "tiny-llama-nvfp4",
    "tiny-llama-q4_k_m",
];

/// Largest difference of a logit, and the margin above which the best token must agree.
fn tolerance(name: &str, device: &Device, kv_type: KvType) -> (f32, f32) {
    // Products that the processor computes with 16-bit activations.
    let is_integer = |name: &str| ["q4_k", "q5_k", "q6_k"].iter().any(|k| name.contains(k));
    match kv_type {
        KvType::F32 if device.name.starts_with("cpu") && is_integer(name) => (0.01, 0.0),
        KvType::F32 => (1e-3, 0.0),
        KvType::F16 => (0.05, 0.1),
        KvType::Q8_0 => (0.1, 0.2),
        // Four bits cost a model of this size most of its precision; cases compare them exactly.
        KvType::Q4_0 => (4.0, 6.0),
    }
}

/// A tiny model and its reference.
pub fn tiny(name: &str) -> (Arc<Gguf>, Value) {
    let reference = golden(&format!("tiny/{name}.json"));
    (open_tiny(name, &reference["sha256"]), reference)
}

/// A tiny file that references of this checksum belong to.
pub fn open_tiny(name: &str, sha256: &Value) -> Arc<Gguf> {
    let gguf = open(&format!("tiny/{name}.gguf"));
    let bytes = std::fs::read(gguf.path()).expect("the model can be read");
    assert_eq!(
        hex::encode(Sha256::digest(bytes)),
        sha256.as_str().expect("a checksum"),
        "the reference does not belong to {name}"
    );
    gguf
}

/// Compares a tiny model's logits, argmax and greedy continuation; lists what is wrong.
pub fn tiny_problems(name: &str, device: &Device, kv_type: KvType) -> Vec<String> {
    let (gguf, reference) = tiny(name);
    problems_of(&gguf, &reference, name, device, kv_type)
}

/// What [`tiny_problems`] lists, of a file that must answer as the reference says.
pub fn problems_of(
    gguf: &Arc<Gguf>,
    reference: &Value,
    name: &str,
    device: &Device,
    kv_type: KvType,
) -> Vec<String> {
    let model = Model::load(gguf).expect("a supported model");
    model_problems(&model, reference, name, device, kv_type)
}

/// The same of a loaded model.
pub fn model_problems(
    model: &Model,
    reference: &Value,
    name: &str,
    device: &Device,
    kv_type: KvType,
) -> Vec<String> {
    let tokens = ids(&reference["tokens"]);
    // Models whose rotary embedding depends on the context's size have answers for a second one.
    let contexts = [Some(reference), reference.get("long")];
    let mut problems = Vec::new();
    for answers in contexts.into_iter().flatten() {
        let n_ctx = answers["n_ctx"].as_u64().expect("a context") as usize;
        let backend = device.open().expect("the device opens");
        let session = Session::new(model, backend, kv_type, n_ctx, N_BATCH).expect("it loads");
        let tolerance = tolerance(name, device, kv_type);
        let wrong = context_problems(session, &tokens, answers, tolerance).into_iter();
        let name = format!("{}: {name} {kv_type:?} of {n_ctx}", device.name);
        problems.extend(wrong.map(|what| format!("{name}: {what}")));
    }
    problems
}

/// What is wrong in one context. Answers that llama.cpp did not compute exactly have a tolerance.
fn context_problems(
    mut session: Session,
    tokens: &[u32],
    reference: &Value,
    (max_difference, min_margin): (f32, f32),
) -> Vec<String> {
    let inexact = reference["tolerance"].as_f64().unwrap_or(0.0);
    let max_difference = max_difference.max(inexact as f32);
    let mut problems = Vec::new();
    let mut report = |what: String| problems.push(what);
    let (argmaxes, margins) = (ids(&reference["argmax"]), floats(&reference["margin"]));
    let mut last = 0;
    let each = |i: usize, logits: &[f32]| {
        last = argmax(logits);
        if last != argmaxes[i] && margins[i] > min_margin {
            report(format!("argmax {last} at {i} instead of {}", argmaxes[i]));
        }
        if let Some(row) = reference["logits"].get(i.to_string()) {
            let pairs = floats(row).into_iter().zip(logits);
            let worst = pairs.map(|(w, g)| (w - g).abs()).fold(0.0, f32::max);
            if worst.is_nan() || worst > max_difference {
                report(format!("logits at {i} differ by {worst}"));
            }
        }
    };
    session.prefill(tokens, |_| true, each).expect("prefill");
    let (greedy, margins) = (
        ids(&reference["greedy"]),
        floats(&reference["greedy_margin"]),
    );
    for (i, &want) in greedy.iter().enumerate() {
        if last != want && margins[i] > min_margin {
            report(format!("greedy token {i} is {last} instead of {want}"));
        }
        last = argmax(&session.decode(want).expect("decode"));
    }
    problems
}

#[test]
fn every_architecture_has_a_reference() {
    let arch = |name: &&str| golden(&format!("tiny/{name}.json"))["arch"].clone();
    let proved: Vec<Value> = TINY.iter().chain(embedding::TINY).map(arch).collect();
    let missing: Vec<&str> = ollama_wgpu::model::architectures()
        .map(|(name, _)| name)
        .filter(|name| !proved.iter().any(|arch| arch == name))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// The tiny models; those that `OLLAMA_WGPU_TEST_TINY` names, where it is set.
fn wanted_tiny() -> Vec<&'static str> {
    let Ok(wanted) = std::env::var("OLLAMA_WGPU_TEST_TINY") else {
        return TINY.to_vec();
    };
    let find = |name| TINY.iter().find(|tiny| **tiny == name);
    let found = |name| *find(name).unwrap_or_else(|| panic!("no tiny model {name}"));
    wanted.split(',').map(found).collect()
}

/// Every half of the models has devices of its own.
fn tiny_on(devices: fn() -> Vec<Device>) {
    let tiny = wanted_tiny();
    let halves: Vec<&[&str]> = tiny.chunks(tiny.len().div_ceil(2)).collect();
    let problems = devices::beside_one_another(&halves, |names| {
        let devices = devices();
        assert!(!devices.is_empty(), "there is no device to run on");
        let mut problems = Vec::new();
        for device in &devices {
            for name in *names {
                // What a quantised cache loses shows on any model: one stands for all.
                let all = KvType::ALL.iter().copied();
                for kv_type in all.filter(|t| !t.is_quantised() || *name == "tiny-llama") {
                    problems.extend(tiny_problems(name, device, kv_type));
                }
            }
        }
        problems
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn tiny_models_on_every_instruction_set() {
    tiny_on(devices::cpus);
}

/// As users run them; the other variants of the shaders have the cases of `suite`.
#[test]
fn tiny_models_on_every_gpu() {
    tiny_on(devices::plain_gpus);
}

/// Launches side by side and runs of ops in one, as a GPU has them: they follow from the architecture, so that one type
/// stands for all.
#[test]
fn tiny_models_in_the_shapes_of_a_gpu() {
    let names = wanted_tiny().into_iter();
    let names: Vec<_> = names
        .filter(|name| !name.starts_with("tiny-llama-"))
        .collect();
    let halves: Vec<&[&str]> = names.chunks(names.len().div_ceil(2)).collect();
    let problems = devices::beside_one_another(&halves, |names| {
        let device = devices::first_gpu_in_its_shapes(true);
        let problems = names
            .iter()
            .map(|name| tiny_problems(name, &device, KvType::F16));
        problems.flatten().collect()
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
