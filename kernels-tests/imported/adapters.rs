//! LoRA adapters as PEFT and MLX write them, imported: the matrices of the GGUF adapters that they were made from.

use std::fs;

use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::quant::QuantType;
use ollama_wgpu::store::ModelName;
use serde_json::{Value, json};

use super::written::{PARTS, halves, rows, safetensors, turned};
use super::{Files, Fixture};
use crate::golden::open;
use crate::models;

/// The adapter's files as PEFT or MLX would have them, for the model `base`.
fn written(adapter: &Gguf, base: &Gguf, is_mlx: bool) -> Files {
    let arch = base.architecture();
    let heads = |key: &str| base.u32(&format!("{arch}.attention.{key}")).expect("heads") as usize;
    let (mut matrices, mut rank) = (Vec::new(), 0);
    for tensor in adapter.tensors() {
        let (stem, half) = tensor.name.rsplit_once(".weight.lora_").expect("a half");
        let (is_a, is_embedding) = (half == "a", stem == "token_embd");
        let mut own = rows(adapter, tensor);
        if !is_a {
            rank = tensor.shape[0];
        }
        let part = stem.rsplit('.').next();
        if arch == "llama" && !is_a && part == Some("attn_q") {
            own = halves(&own, heads("head_count"));
        }
        if arch == "llama" && !is_a && part == Some("attn_k") {
            own = halves(&own, heads("head_count_kv"));
        }
        if is_mlx != (is_embedding && is_a) {
            own = turned(&own);
        }
        let name = match stem {
            "token_embd" => "model.embed_tokens".to_owned(),
            "output" => "lm_head".to_owned(),
            _ => {
                let (layer, part) = stem
                    .strip_prefix("blk.")
                    .expect("a layer")
                    .split_once('.')
                    .expect("a part");
                let found = PARTS.iter().find(|(own, _)| *own == part);
                let name = match (arch, part) {
                    ("phi3", "ffn_up") => "mlp.gate_up_proj",
                    _ => found.expect("a known part").1,
                };
                format!("model.layers.{layer}.{name}")
            }
        };
        let upper = half.to_uppercase();
        let name = match (is_mlx, is_embedding) {
            (true, _) => format!("{name}.lora_{half}"),
            (_, true) => format!("base_model.model.{name}.lora_embedding_{upper}"),
            (_, false) => format!("base_model.model.{name}.lora_{upper}.weight"),
        };
        let quant = tensor.quant().filter(|quant| quant.is_float());
        let shape = vec![own.len(), own[0].len()];
        matrices.push((name, shape, own.concat(), quant.unwrap_or(QuantType::F32)));
    }
    let alpha = adapter.f32("adapter.lora.alpha").expect("a number");
    let settings = match is_mlx {
        true => {
            json!({ "fine_tune_type": "lora", "lora_parameters": { "rank": rank, "scale": alpha / rank as f32 } })
        }
        false => json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "use_dora": false,
            "modules_to_save": null, "alpha_pattern": {}, "init_lora_weights": true, "fan_in_fan_out": false,
        }),
    };
    let weights = if is_mlx { "adapters" } else { "adapter_model" };
    Files::from([
        (format!("{weights}.safetensors"), safetensors(&matrices)),
        ("adapter_config.json".into(), settings.to_string().into()),
    ])
}

/// Makes a model with the adapter; its steps, and the adapter's file.
fn adapted(base: &str, files: &Files) -> Result<(Vec<String>, Gguf), String> {
    let fixture = Fixture::new();
    let weights = fs::read(models::path(&format!("tiny/{base}.gguf"))).expect("a model");
    let weights = fixture.upload(&Files::from([("m.gguf".into(), weights)]));
    let adapters = fixture.upload(files);
    let steps = fixture.make(json!({ "model": "m", "files": weights, "adapters": adapters }))?;
    let name = ModelName::parse("m").expect("a name");
    let model = fixture.store.resolve(&name).expect("the model is there");
    let adapter = Gguf::open(&model.adapter_paths[0]).expect("a valid file");
    assert_eq!(fixture.unfinished(), Vec::<String>::new());
    Ok((steps, adapter))
}

#[test]
fn adapters_become_the_gguf_files_they_were_made_from() {
    for (name, base) in [
        ("tiny-llama-lora", "tiny-llama"),
        ("tiny-llama-q4_k_m-lora", "tiny-llama-q4_k_m"),
        ("tiny-qwen2-lora", "tiny-qwen2"),
        ("tiny-gemma3-lora", "tiny-gemma3"),
        ("tiny-phi3-lora", "tiny-phi3"),
    ] {
        let wanted = open(&format!("tiny/{name}.gguf"));
        let model = open(&format!("tiny/{base}.gguf"));
        for is_mlx in [false, true] {
            let (steps, made) = adapted(base, &written(&wanted, &model, is_mlx)).expect(name);
            assert!(
                steps.iter().any(|step| step == "converting adapter"),
                "{steps:?}"
            );
            assert_eq!(made.tensors().len(), wanted.tensors().len(), "{name}");
            for tensor in wanted.tensors() {
                let own = made.tensor(&tensor.name);
                let own = own.unwrap_or_else(|| panic!("{name}: {} is missing", tensor.name));
                assert_eq!(own.shape, tensor.shape, "{name}: {}", tensor.name);
                let is_same = rows(&made, own) == rows(&wanted, tensor);
                assert!(
                    is_same,
                    "{name}, MLX {is_mlx}: {} has other weights",
                    tensor.name
                );
            }
            let alphas =
                [&made, &*wanted].map(|file| file.f32("adapter.lora.alpha").expect("alpha"));
            assert!((alphas[0] - alphas[1]).abs() < 1e-5, "{name}: {alphas:?}");
        }
    }
}

#[test]
fn what_is_computed_otherwise_is_refused_by_name() {
    let adapter = open("tiny/tiny-llama-lora.gguf");
    let base = open("tiny/tiny-llama.gguf");
    let files = written(&adapter, &base, false);
    let refusal =
        |base: &str, files: &Files| adapted(base, files).map(drop).expect_err("it is refused");
    let with = |key: &str, value: Value| {
        let mut files = files.clone();
        let text = files.get_mut("adapter_config.json").expect("settings");
        let mut settings: Value = serde_json::from_slice(text).expect("JSON");
        settings[key] = value;
        *text = settings.to_string().into();
        files
    };
    for (key, value) in [
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("alpha_pattern", json!({ "q_proj": 3 })),
        ("bias", json!("all")),
        ("peft_type", json!("IA3")),
        ("init_lora_weights", json!("pissa")),
        ("lora_alpha", json!(-1)),
    ] {
        let error = refusal("tiny-llama", &with(key, value));
        assert!(
            error.contains("adapter_config.json") && error.contains(key),
            "{error}"
        );
    }
    let rooted = adapted("tiny-llama", &with("use_rslora", json!(true)))
        .expect("it is imported")
        .1;
    let alpha = rooted.f32("adapter.lora.alpha").expect("alpha");
    assert!((alpha - 16.0 * 8f32.sqrt()).abs() < 1e-4, "{alpha}");
    // Another architecture's parts, another shape, a part of no pair, no settings.
    let error = refusal("tiny-phi3", &files);
    assert!(error.contains("is not one of Phi3ForCausalLM"), "{error}");
    let error = refusal("tiny-llama-odd", &files);
    assert!(
        error.contains("q_proj.lora_B.weight\" has rows that are no pairs of every head"),
        "{error}"
    );
    let error = refusal("tiny-llama-moe", &files);
    assert!(error.contains("has no tensor blk.0.ffn_"), "{error}");
    let error = refusal("tiny-falcon", &files);
    assert!(error.contains("\"falcon\" are not supported"), "{error}");
    let bare = Files::from([(
        "adapter_model.safetensors".into(),
        files["adapter_model.safetensors"].clone(),
    )]);
    let error = refusal("tiny-llama", &bare);
    assert!(error.contains("adapter_config.json is missing"), "{error}");
    let whole = (
        String::from("base_model.model.lm_head.weight"),
        vec![1, 4],
        vec![1.0; 4],
        QuantType::F32,
    );
    let mut more = files.clone();
    more.insert("adapter_model.safetensors".into(), safetensors(&[whole]));
    let error = refusal("tiny-llama", &more);
    assert!(
        error.contains("lm_head.weight\" is no half of a pair"),
        "{error}"
    );
}
