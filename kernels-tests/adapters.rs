//! Models with LoRA adapters: reference answers, cuts between devices, decode like prefill, and what
//! is refused.

use std::sync::Arc;

use ollama_wgpu::backend::{Backend, KvType, SplitBackend};
use ollama_wgpu::cpu::CpuBackend;
use ollama_wgpu::gguf::{Gguf, Header, Lora};
use ollama_wgpu::model::{Model, Session};
use ollama_wgpu::quant::QuantType;
use serde_json::Value;

use crate::devices::{self, Device};
use crate::golden::{floats, golden, ids, model_problems, open, open_tiny};
use crate::refused::{Damaged, says};

/// Every matrix of a dense model with its embedding and output, two adapters at once, quantised
/// matrices, biases, tied and scaled embeddings, several matrices in one tensor, experts one by one
/// and joined, and recurrent layers.
const NAMES: &[&str] = &[
    "tiny-llama-lora",
    "tiny-llama-lora-second",
    "tiny-llama-q4_k_m-lora",
    "tiny-qwen2-lora",
    "tiny-gemma3-lora",
    "tiny-phi3-lora",
    "tiny-qwen3moe-lora",
    "tiny-qwen35moe-lora",
];

/// A model with its adapters, and its reference.
fn adapted(name: &str) -> (Model, Value) {
    let reference = golden(&format!("tiny/{name}.json"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let gguf = open_tiny(&text(&reference["model"]), &reference["sha256"]);
    let listed = reference["adapters"].as_array().expect("adapters").iter();
    let adapters: Vec<Lora> = listed
        .map(|a| Lora::new(open_tiny(&text(&a["name"]), &a["sha256"])).expect("an adapter"))
        .collect();
    let model = Model::load_adapted(&gguf, &adapters).expect("they fit");
    (model, reference)
}

fn problems_on(devices: &[Device], names: &[&str], kv_types: &[KvType]) -> Vec<String> {
    assert!(!devices.is_empty(), "there is no device to run on");
    let mut problems = Vec::new();
    for name in names {
        let (model, reference) = adapted(name);
        for device in devices {
            for &kv_type in kv_types {
                problems.extend(model_problems(&model, &reference, name, device, kv_type));
            }
        }
    }
    problems
}

#[test]
fn references_on_every_instruction_set() {
    let problems = problems_on(&devices::cpus(), NAMES, &[KvType::F32, KvType::F16]);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn references_of_adapters_on_every_gpu() {
    let problems = problems_on(&devices::plain_gpus(), NAMES, &[KvType::F32]);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn adapters_change_the_answers() {
    for name in NAMES {
        let (_, reference) = adapted(name);
        let model = reference["model"].as_str().expect("a model");
        let without = Model::load(&open(&format!("tiny/{model}.gguf"))).expect("a model");
        let rows = logits(&without, cpu(), &ids(&reference["tokens"]), 40);
        let last = floats(&reference["logits"]["39"]);
        let pairs = rows[39].iter().zip(&last);
        let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most > 0.5, "{name}: no logit differs by more than {most}");
    }
}

fn cpu() -> Box<dyn Backend> {
    Box::new(CpuBackend::new(Some(2)))
}

/// Logits after each token, the first `n_prefill` of which are a prompt.
fn logits(
    model: &Model,
    backend: Box<dyn Backend>,
    tokens: &[u32],
    n_prefill: usize,
) -> Vec<Vec<f32>> {
    let session = Session::new(model, backend, KvType::F16, 64, 24);
    let mut session = session.expect("it loads");
    let mut rows = Vec::new();
    let (prompt, rest) = tokens.split_at(n_prefill);
    let keep = |_: usize, row: &[f32]| rows.push(row.to_vec());
    session.prefill(prompt, |_| true, keep).expect("prefill");
    rows.extend(rest.iter().map(|&t| session.decode(t).expect("decode")));
    rows
}

/// What the cache of prefixes, guessed tokens and cuts between layers rest on.
#[test]
fn decode_and_cuts_on_the_cpu_change_no_bit() {
    for name in NAMES {
        let (model, reference) = adapted(name);
        let tokens = ids(&reference["tokens"]);
        let whole = logits(&model, cpu(), &tokens, tokens.len());
        assert!(logits(&model, cpu(), &tokens, 20) == whole, "{name}");
        for n in 1..=model.config().layers.len() {
            let split = Box::new(SplitBackend::new(cpu(), cpu(), n));
            let cut = logits(&model, split, &tokens, 20);
            assert!(cut == whole, "{name} cut after {n} layers");
        }
    }
}

#[test]
fn one_layer_on_the_gpu_and_the_rest_on_the_cpu_give_the_references() {
    let mut problems = Vec::new();
    for name in ["tiny-llama-lora-second", "tiny-qwen35moe-lora"] {
        let gpu = devices::gpus().into_iter().next().expect("a GPU adapter");
        let split = Device::new(format!("a layer on {}", gpu.name), move || {
            Ok(Box::new(SplitBackend::new(gpu.open()?, cpu(), 1)))
        });
        problems.extend(problems_on(&[split], &[name], &[KvType::F32]));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Why a model does not load with these bytes as its adapter.
fn refusal(model: &str, adapter: &Arc<Gguf>) -> String {
    let adapter = Lora::new(Arc::clone(adapter)).expect("an adapter");
    let model = open(&format!("tiny/{model}.gguf"));
    let loaded = Model::load_adapted(&model, &[adapter]);
    loaded.expect_err("it is refused").to_string()
}

/// An adapter for one tensor, with matrices of ones.
fn made(architecture: &str, tensor: &str, a: [u64; 2], b: [u64; 2]) -> Arc<Gguf> {
    let mut header = Header::default();
    header.string("general.architecture", architecture);
    header.string("general.type", "adapter");
    header.string("adapter.type", "lora");
    let mut data = Vec::new();
    for (part, shape) in [("a", a), ("b", b)] {
        header.tensor(&format!("{tensor}.lora_{part}"), &shape, QuantType::F32);
        let n = shape.iter().product::<u64>() as usize;
        data.extend(vec![1f32.to_le_bytes(); n].concat());
        data.resize(data.len().next_multiple_of(32), 0);
    }
    let mut bytes = Vec::new();
    header.write(&mut bytes).expect("memory takes all");
    bytes.extend(data);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("it is written");
    Arc::new(Gguf::open(file.path()).expect("a valid file"))
}

#[test]
fn adapters_of_other_models_are_refused_by_name() {
    let adapter = open("tiny/tiny-qwen2-lora.gguf");
    says(&refusal("tiny-llama", &adapter), &["'qwen2'", "'llama'"]);
    let adapter = open("tiny/tiny-llama-lora.gguf");
    let message = refusal("tiny-llama-odd", &adapter);
    says(&message, &["token_embd.weight.lora_a", "512", "499"]);
    let (a, b) = ("blk.1.ffn_up.weight.lora_a", "blk.1.ffn_up.weight.lora_b");
    let (c, d) = ("blk.1.ffn_ux.weight.lora_a", "blk.1.ffn_ux.weight.lora_b");
    let renamed = Damaged::new("tiny-llama-lora").rename(a, c).rename(b, d);
    let message = refusal("tiny-llama", &renamed.open());
    says(&message, &["no tensor blk.1.ffn_ux.weight"]);
}

#[test]
fn changes_that_no_product_makes_are_refused_by_name() {
    let norm = "blk.0.attn_norm.weight";
    let adapter = made("llama", norm, [256, 4], [4, 1]);
    says(&refusal("tiny-llama", &adapter), &[norm, "not supported"]);
    let positions = "position_embd.weight";
    let adapter = made("gpt2", positions, [256, 4], [4, 512]);
    says(&refusal("tiny-gpt2", &adapter), &[positions]);
    // A matrix for each expert, of which one alone would change.
    let expert = "blk.0.ffn_gate.1.weight";
    let adapter = made("llama", expert, [256, 4], [4, 128]);
    says(&refusal("tiny-llama-moe-separate", &adapter), &[expert]);
    // Both the embedding and the output matrix.
    let both = "token_embd.weight";
    let adapter = made("llama", both, [4, 499], [4, 320]);
    says(&refusal("tiny-llama-odd", &adapter), &[both, "output"]);
}

#[test]
fn numbers_that_are_none_are_refused_by_name() {
    let b = "blk.0.attn_v.weight.lora_b";
    let nan = f32::NAN.to_le_bytes();
    let adapter = Damaged::new("tiny-llama-lora").write_data(b, 0, &nan);
    let message = refusal("tiny-llama", &adapter.open());
    says(&message, &[b, "not finite"]);
}
