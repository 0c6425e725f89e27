//! Models on two devices: every cut gives what one device gives.

use std::sync::Arc;

use ollama_wgpu::backend::{Backend, BackendError, KvType, SplitBackend};
use ollama_wgpu::cpu::CpuBackend;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::{Model, Session};

use crate::devices::{self, Device};
use crate::golden::tiny_problems;
use crate::models;

/// Models of every kind of layer and cache.
const NAMES: &[&str] = &[
    "tiny-llama-q4_k_m",
    "tiny-gemma3",
    "tiny-qwen35",
    "tiny-lfm2",
    // Its last layers read the keys and values of earlier ones.
    "tiny-gemma3n",
    "tiny-gemma4",
];

fn model(name: &str) -> Model {
    let path = models::path(&format!("tiny/{name}.gguf"));
    Model::load(&Arc::new(Gguf::open(&path).expect("a valid file"))).expect("a supported model")
}

/// How many layers can be on the first device.
fn cuts(model: &Model) -> Vec<usize> {
    let n_layers = model.config().layers.len();
    (0..=n_layers)
        .filter(|&n| model.config().cut(n) == n)
        .collect()
}

fn cpu() -> Box<dyn Backend> {
    Box::new(CpuBackend::new(Some(2)))
}

/// Logits of some tokens in chunks, then of some more one by one.
fn logits(model: &Model, backend: Box<dyn Backend>) -> Result<Vec<f32>, BackendError> {
    let tokens: Vec<u32> = (0..40).map(|i| 7 * i % 90).collect();
    let mut session = Session::new(model, backend, KvType::F16, 64, 24)?;
    let mut all = Vec::new();
    session.prefill(&tokens, |i| i % 5 == 0, |_, row| all.extend(row))?;
    for token in 0..4 {
        all.extend(session.decode(token)?);
    }
    Ok(all)
}

#[test]
fn two_halves_on_the_cpu_are_the_whole_bit_by_bit() {
    for name in NAMES {
        let model = model(name);
        let whole = logits(&model, cpu()).expect("it runs");
        for n in cuts(&model) {
            let split = SplitBackend::new(cpu(), cpu(), n);
            let cut = logits(&model, Box::new(split)).expect("it runs");
            assert!(cut == whole, "{name} cut after {n} layers");
        }
    }
}

#[test]
fn a_layer_stays_with_the_one_whose_keys_it_reads() {
    let cuts = ["tiny-llama-q4_k_m", "tiny-gemma4"].map(|name| cuts(&model(name)));
    assert_eq!(cuts, [vec![0, 1, 2, 3], vec![0, 1, 2, 3, 4, 9]]);
}

#[test]
fn layers_on_the_gpu_and_the_rest_on_the_cpu_give_the_references() {
    let mut problems = Vec::new();
    for name in NAMES {
        for n in cuts(&model(name)).into_iter().skip(1) {
            let gpu = devices::gpus().into_iter().next().expect("a GPU adapter");
            let split = Device::new(
                format!("cpu behind {n} layers on {}", gpu.name),
                move || Ok(Box::new(SplitBackend::new(gpu.open()?, cpu(), n))),
            );
            problems.extend(tiny_problems(name, &split, KvType::F32));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
