//! Checkpoints of models with experts, with the weights of tiny models.

use ollama_wgpu::quant::QuantType;
use serde_json::json;

use super::written::{PARTS, Tensor, halves, rows, safetensors};
use super::{Files, Fixture, files as files_of};
use crate::golden::open;

/// The files of the checkpoint `name`, if it is made here.
pub fn files(name: &str) -> Option<Files> {
    let (tiny, vocabulary) = match name {
        "mixtral" => ("tiny-llama-moe", "llama-sentencepiece"),
        "qwen3moe" => ("tiny-qwen3moe", "qwen3"),
        _ => return None,
    };
    let gguf = open(&format!("tiny/{tiny}.gguf"));
    let mut files = files_of(vocabulary);
    let number = |key: &str| gguf.u32(&format!("{}.{key}", gguf.architecture()));
    let mut config = json!({
        "hidden_size": number("embedding_length"), "num_hidden_layers": number("block_count"),
        "intermediate_size": number("feed_forward_length"), "vocab_size": number("vocab_size"),
        "num_attention_heads": number("attention.head_count"), "num_key_value_heads": number("attention.head_count_kv"),
        "max_position_embeddings": number("context_length"), "hidden_act": "silu", "tie_word_embeddings": false,
        "num_experts_per_tok": number("expert_used_count"),
    });
    let is_mixtral = name == "mixtral";
    let more = match is_mixtral {
        true => json!({
            "architectures": ["MixtralForCausalLM"], "num_local_experts": number("expert_count"),
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": null,
        }),
        false => json!({
            "architectures": ["Qwen3MoeForCausalLM"], "num_experts": number("expert_count"), "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "moe_intermediate_size": number("expert_feed_forward_length"), "norm_topk_prob": true,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "head_dim": number("attention.key_length"),
        }),
    };
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let heads = |part: &str| match part {
        "attn_q" if is_mixtral => number("attention.head_count"),
        "attn_k" if is_mixtral => number("attention.head_count_kv"),
        _ => None,
    };
    let mut tensors: Vec<Tensor> = Vec::new();
    for tensor in gguf.tensors() {
        let quant = tensor.quant().expect("a known type");
        let mut own = rows(&gguf, tensor);
        let stem = tensor.name.strip_suffix(".weight").expect("weights");
        let Some((layer, part)) = stem
            .strip_prefix("blk.")
            .and_then(|rest| rest.split_once('.'))
        else {
            let name = match stem {
                "token_embd" => "model.embed_tokens",
                "output_norm" => "model.norm",
                _ => "lm_head",
            };
            tensors.push((
                format!("{name}.weight"),
                shape(&tensor.shape),
                own.concat(),
                quant,
            ));
            continue;
        };
        if let Some(n_heads) = heads(part) {
            own = halves(&own, n_heads as usize);
        }
        if let Some(part) = part.strip_suffix("_exps") {
            let per_expert = tensor.shape[1] as usize;
            for (expert, own) in own.chunks(per_expert).enumerate() {
                let name = expert_name(part, expert, is_mixtral);
                let shape = shape(&tensor.shape[..2]);
                tensors.push((
                    format!("model.layers.{layer}.{name}.weight"),
                    shape,
                    own.concat(),
                    quant,
                ));
            }
            continue;
        }
        let known = PARTS.iter().find(|(own, _)| *own == part);
        let name = match part {
            "attn_norm" => "input_layernorm",
            "ffn_norm" => "post_attention_layernorm",
            "attn_q_norm" => "self_attn.q_norm",
            "attn_k_norm" => "self_attn.k_norm",
            "ffn_gate_inp" if is_mixtral => "block_sparse_moe.gate",
            "ffn_gate_inp" => "mlp.gate",
            _ => known.expect("a known part").1,
        };
        // As half floats, which the router's numbers are not, it would lose some.
        tensors.push((
            format!("model.layers.{layer}.{name}.weight"),
            shape(&tensor.shape),
            own.concat(),
            quant,
        ));
    }
    files.insert("config.json".into(), config.to_string().into());
    files.insert("model.safetensors".into(), safetensors(&tensors));
    Some(files)
}

fn expert_name(part: &str, expert: usize, is_mixtral: bool) -> String {
    let (mixtral, qwen) = match part {
        "ffn_gate" => ("w1", "gate_proj"),
        "ffn_down" => ("w2", "down_proj"),
        _ => ("w3", "up_proj"),
    };
    match is_mixtral {
        true => format!("block_sparse_moe.experts.{expert}.{mixtral}"),
        false => format!("mlp.experts.{expert}.{qwen}"),
    }
}

fn shape(extents: &[u64]) -> Vec<usize> {
    extents.iter().rev().map(|n| *n as usize).collect()
}

#[test]
fn experts_that_do_not_fit_are_refused() {
    let refusal = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut files = files("qwen3moe").expect("a checkpoint");
        let text = files.get_mut("config.json").expect("settings");
        let mut config = serde_json::from_slice(text).expect("JSON");
        change(&mut config);
        *text = config.to_string().into();
        Fixture::new()
            .create(&files, "")
            .expect_err("it is refused")
    };
    for (key, value, wanted) in [
        ("num_experts", json!(7), "needs 7 experts"),
        ("num_experts", json!(1 << 20), "needs 1048576 experts"),
        (
            "num_experts_per_tok",
            json!(9),
            "is more than the 8 there are",
        ),
        ("norm_topk_prob", json!(false), "norm_topk_prob"),
        (
            "mlp_only_layers",
            json!([0]),
            "mlp_only_layers is not supported",
        ),
        ("decoder_sparse_step", json!(2), "decoder_sparse_step"),
    ] {
        let error = refusal(&|config| config[key] = value.clone());
        assert!(error.contains(wanted), "{error}");
    }
    let mut files = files("mixtral").expect("a checkpoint");
    let odd: Tensor = (
        "model.layers.0.block_sparse_moe.experts.4.w1.weight".into(),
        vec![128, 256],
        vec![0.0; 128 * 256],
        QuantType::F16,
    );
    files.insert("more.safetensors".into(), safetensors(&[odd]));
    let error = Fixture::new()
        .create(&files, "")
        .expect_err("it is refused");
    assert!(
        error.contains("blk.0.ffn_gate_exps.weight needs 4 experts"),
        "{error}"
    );
}
