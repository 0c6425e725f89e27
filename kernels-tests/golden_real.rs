//! Reference log-probabilities of real models.

use ollama_wgpu::backend::{KvType, SplitBackend};
use ollama_wgpu::cpu::CpuBackend;
use ollama_wgpu::model::{Model, Session};
use serde_json::Value;

use crate::devices::{self, Device};
use crate::golden::{argmax, golden, ids, open};

/// The real models, as file names without their ending.
const REAL: &[&str] = &[
    "smollm2-135m-instruct-q4_1",
    "qwen2.5-coder-0.5b-instruct-q4_k_m",
    "gemma-3-270m-q4_k_m",
];

/// Runs whose reference is cut short: a character of several tokens is one step there, with its
/// last token alone. (model, run, steps before the first such character)
const CUT: &[(&str, &str, usize)] = &[
    ("smollm2-135m-instruct-q4_1", "unicode", 1),
    ("qwen2.5-coder-0.5b-instruct-q4_k_m", "unicode", 5),
];

/// Largest difference of a log-probability with an F32 cache. Gemma's reference reads GELU from
/// a table of half floats, which alone moves its logits by up to 0.01.
fn f32_bound(name: &str) -> f32 {
    if name.starts_with("gemma") {
        0.02
    } else {
        0.01
    }
}

/// Every log-probability above -6, and the best token where the reference's first two are
/// further apart than the tolerance, at least 0.05.
/// `n_steps` bounds the generated tokens of each run, `n_prompt` the prompts that are run.
fn real_problems(
    name: &str,
    device: &Device,
    (kv_type, max_difference): (KvType, f32),
    (n_prompt, n_steps): (usize, usize),
) -> Vec<String> {
    let reference = golden(&format!("{name}.json"));
    let model = Model::load(&open(&format!("{name}.gguf"))).expect("a supported model");
    let backend = device.open().expect("the device opens");
    let mut session = Session::new(&model, backend, kv_type, 1024, 128).expect("it loads");
    let mut problems = Vec::new();
    for run in reference["greedy"].as_array().expect("runs") {
        let prompt = ids(&run["prompt_ids"]);
        if prompt.len() > n_prompt {
            continue;
        }
        session.clear();
        let mut logits = Vec::new();
        let last = prompt.len() - 1;
        let keep = |_: usize, row: &[f32]| logits = row.to_vec();
        session
            .prefill(&prompt, |i| i == last, keep)
            .expect("prefill");
        let steps = run["steps"].as_array().expect("steps");
        let cut = CUT.iter().find(|(m, r, _)| *m == name && run["name"] == *r);
        let n_steps = cut.map_or(n_steps, |(_, _, n)| n_steps.min(*n));
        for (i, step) in steps.iter().enumerate().take(n_steps) {
            let at = format!(
                "{}: {name} {kv_type:?}: {} step {i}",
                device.name, run["name"]
            );
            problems
                .extend(step_problems(&logits, step, max_difference).map(|p| format!("{at}: {p}")));
            let id = step["id"].as_u64().expect("an id") as u32;
            logits = session.decode(id).expect("decode");
        }
    }
    problems
}

fn step_problems(logits: &[f32], step: &Value, max_difference: f32) -> Option<String> {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
    let log_sum = f64::from(max) + sum.ln();
    let top = step["top"].as_array().expect("the best tokens");
    let entry = |i: usize| {
        let (id, logprob) = (&top[i][0], &top[i][1]);
        (
            id.as_u64().expect("id") as usize,
            logprob.as_f64().expect("logprob"),
        )
    };
    for (id, want) in (0..top.len()).map(entry).filter(|(_, p)| *p > -6.0) {
        let got = f64::from(logits[id]) - log_sum;
        let off = (got - want).abs();
        if off.is_nan() || off > f64::from(max_difference) {
            return Some(format!("token {id} has {got:.4} instead of {want:.4}"));
        }
    }
    let (first, second) = (entry(0), entry(1));
    let best = argmax(logits) as usize;
    (best != first.0 && first.1 - second.1 > f64::from(max_difference).max(0.05))
        .then(|| format!("best token {best} instead of {}", first.0))
}

#[test]
fn real_models_on_the_cpu() {
    // The instruction sets agree bit for bit (unit tests of `cpu`), so the fastest stands for all.
    let device = devices::cpus().pop().expect("a CPU backend");
    let all = (usize::MAX, usize::MAX);
    let mut problems = Vec::new();
    for name in REAL {
        problems.extend(real_problems(
            name,
            &device,
            (KvType::F32, f32_bound(name)),
            all,
        ));
        problems.extend(real_problems(name, &device, (KvType::F16, 0.05), all));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Log-probabilities move by what the cache loses.
#[test]
fn a_quantised_cache_on_the_cpu() {
    let device = devices::cpus().pop().expect("a CPU backend");
    let problems = real_problems(REAL[0], &device, (KvType::Q8_0, 0.2), (200, 16));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The first half of SmolLM2's layers on the GPU, the others on the CPU.
#[test]
fn a_real_model_on_two_devices() {
    let gpu = devices::plain_gpus();
    let gpu = gpu.into_iter().next().expect("a GPU adapter");
    let name = format!("half on {}", gpu.name);
    let split = Device::new(name, move || {
        let cpu = Box::new(CpuBackend::new(Some(2)));
        Ok(Box::new(SplitBackend::new(gpu.open()?, cpu, 15)))
    });
    let problems = real_problems(REAL[0], &split, (KvType::F16, 0.05), (40, 4));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Short prompts and few steps, since a software GPU computes some ten tokens per second; all of
/// them where `OLLAMA_WGPU_TEST_ALL_TOKENS` is set.
#[test]
fn real_models_on_the_gpu() {
    let bounds = match std::env::var_os("OLLAMA_WGPU_TEST_ALL_TOKENS") {
        None => (40, 4),
        Some(_) => (usize::MAX, usize::MAX),
    };
    let problems = devices::beside_one_another(REAL, |name| {
        let gpus = devices::plain_gpus();
        let device = gpus.first().expect("a GPU adapter");
        real_problems(name, device, (KvType::F16, 0.05), bounds)
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Integers and half floats change what a prompt's products round; decoding is the same.
#[test]
fn real_models_in_every_arithmetic() {
    let devices = devices::plain_in_arithmetic();
    let problems = devices::beside_one_another(&devices, |device| {
        let of = |name: &&str| real_problems(name, device, (KvType::F16, 0.05), (15, 1));
        REAL[..2].iter().flat_map(of).collect()
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
