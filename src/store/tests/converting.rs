//! Checkpoints that are refused: each mistake by its name, and nothing left behind.

use super::*;
use std::collections::BTreeMap;

/// A Llama of one layer in 32-bit floats, whose tensors are named with their extents.
const TENSORS: [(&str, &[usize]); 12] = [
    ("model.embed_tokens.weight", &[6, 8]),
    ("model.norm.weight", &[8]),
    ("lm_head.weight", &[6, 8]),
    ("model.layers.0.input_layernorm.weight", &[8]),
    ("model.layers.0.post_attention_layernorm.weight", &[8]),
    ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.k_proj.weight", &[4, 8]),
    ("model.layers.0.self_attn.v_proj.weight", &[4, 8]),
    ("model.layers.0.self_attn.o_proj.weight", &[8, 8]),
    ("model.layers.0.mlp.gate_proj.weight", &[16, 8]),
    ("model.layers.0.mlp.up_proj.weight", &[16, 8]),
    ("model.layers.0.mlp.down_proj.weight", &[8, 16]),
];

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2,
        "num_key_value_heads": 1, "num_hidden_layers": 1, "rms_norm_eps": 1e-5, "vocab_size": 6, "max_position_embeddings": 64,
        "hidden_act": "silu", "rope_theta": 10000.0,
    })
}

fn tokenizer() -> Value {
    json!({
        "added_tokens": [{"id": 4, "content": "<e>", "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]},
    })
}

/// Tensors of one type with these bytes for each weight, one after another.
fn safetensors(tensors: &[(&str, &[usize])], dtype: &str, weight: &[u8]) -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * weight.len();
        let described = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert((*name).into(), described);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(weight.repeat(end / weight.len()));
    file
}

type Files = BTreeMap<&'static str, Vec<u8>>;

fn files() -> Files {
    Files::from([
        ("config.json", config().to_string().into_bytes()),
        ("tokenizer.json", tokenizer().to_string().into_bytes()),
        ("tokenizer_config.json", br#"{"eos_token": "<e>"}"#.to_vec()),
        (
            "model.safetensors",
            safetensors(&TENSORS, "F32", &1f32.to_le_bytes()),
        ),
    ])
}

/// Imports the files; where that is refused, nothing may be there but what was uploaded.
fn import(files: &Files) -> Result<GgufFacts, Error> {
    let f = Fixture::new();
    let digests = files
        .iter()
        .map(|(name, bytes)| (*name, f.blob(bytes).to_string()));
    let digests: serde_json::Map<String, Value> = digests
        .map(|(name, digest)| (name.into(), digest.into()))
        .collect();
    let before = f.blob_files();
    let made = f.create(json!({"model": "m", "files": digests}));
    if made.is_err() {
        assert_eq!(f.blob_files(), before);
        assert!(f.names().is_empty());
    }
    made?;
    let digest = f.resolve("m")?.model_digest;
    Ok(f.store.facts(&digest)?.as_ref().clone())
}

#[test]
fn a_client_that_leaves_ends_the_conversion_and_nothing_stays() {
    let f = Fixture::new();
    let files = files();
    let digests = files.iter();
    let digests: BTreeMap<&str, String> = digests
        .map(|(name, bytes)| (*name, f.blob(bytes).to_string()))
        .collect();
    let before = f.blob_files();
    for quantize in ["", "q8_0"] {
        let request = json!({"model": "m", "files": digests, "quantize": quantize});
        let request: CreateRequest = serde_json::from_value(request).unwrap();
        let ended = f.store.create(&request, &mut Leaving { n_steps: 1 });
        assert!(matches!(ended, Err(Error::Canceled)), "{ended:?}");
        assert_eq!(f.blob_files(), before);
    }
}

fn refused(files: &Files) -> String {
    import(files).expect_err("refused").to_string()
}

#[test]
fn a_checkpoint_becomes_a_model() {
    let facts = import(&files()).unwrap();
    assert_eq!(
        (facts.architecture.as_str(), facts.file_type.as_str()),
        ("llama", "F16")
    );
    assert_eq!((facts.context_length, facts.embedding_length), (64, 8));
    // What other kinds of files are in the request does not matter.
    let mut both = files();
    both.insert("m.gguf", gguf("llama", &[], 3));
    assert_eq!(import(&both).unwrap(), facts);
}

#[test]
fn settings_that_are_refused() {
    let with = |key: &str, value: Value| {
        let mut files = files();
        let mut config = config();
        config[key] = value;
        files.insert("config.json", config.to_string().into_bytes());
        refused(&files)
    };
    let starts = |key, value: Value, start: &str| {
        let text = with(key, value.clone());
        assert!(text.starts_with(start), "{key} {value}: {text}");
    };
    let unknown =
        "unsupported architecture \"T5ForConditionalGeneration\"; supported are LlamaForCausalLM, ";
    starts(
        "architectures",
        json!(["T5ForConditionalGeneration"]),
        unknown,
    );
    for value in [json!(null), json!([]), json!(5), json!([5])] {
        starts(
            "architectures",
            value,
            "config.json: architectures must name",
        );
    }
    for value in [
        json!(-1),
        json!(1.5),
        json!("1"),
        json!(0),
        json!(4_294_967_295u32),
    ] {
        starts(
            "num_hidden_layers",
            value.clone(),
            "config.json: num_hidden_layers must be",
        );
        starts("vocab_size", value, "config.json: vocab_size must be");
    }
    starts(
        "num_hidden_layers",
        json!(1_431_655),
        "config.json: num_hidden_layers is 1431655; at most 1024",
    );
    starts(
        "num_hidden_layers",
        json!(2),
        "tensor \"model.layers.1.input_layernorm.weight\" is missing",
    );
    starts(
        "num_hidden_layers",
        json!(null),
        "config.json: num_hidden_layers is missing",
    );
    starts(
        "vocab_size",
        json!(7),
        "config.json: hidden_size and vocab_size are (8, 7), the embedding has 6 rows of 8",
    );
    starts(
        "num_attention_heads",
        json!(8),
        "model.safetensors: tensor \"model.layers.0.self_attn.q_proj.weight\"",
    );
    starts(
        "hidden_act",
        json!("relu"),
        "config.json: hidden_act \"relu\" is not supported; supported are silu",
    );
    let scaling = json!({"rope_type": "dynamic", "factor": 2.0});
    starts(
        "rope_scaling",
        scaling,
        "config.json: rope scaling \"dynamic\" is not supported",
    );
    let scaling = json!({"type": "linear", "factor": -2.0});
    starts(
        "rope_scaling",
        scaling,
        "config.json: rope_scaling: factor must be a positive number",
    );
    let scaling = json!({"type": "longrope", "factor": 2.0});
    starts(
        "rope_scaling",
        scaling,
        "rope scaling longrope is not supported for llama",
    );
    starts(
        "rms_norm_eps",
        json!(0),
        "config.json: rms_norm_eps must be a positive number",
    );
    starts(
        "tie_word_embeddings",
        json!("yes"),
        "config.json: tie_word_embeddings must be true or false",
    );
    let mut deep = files();
    deep.insert("config.json", "[".repeat(100_000).into_bytes());
    assert!(
        refused(&deep).starts_with("config.json: "),
        "{}",
        refused(&deep)
    );
    deep.insert("config.json", vec![b' '; (1 << 20) + 1]);
    assert!(
        refused(&deep).contains("at most 1048576 are read"),
        "{}",
        refused(&deep)
    );
    deep.remove("config.json");
    assert_eq!(
        refused(&deep),
        "config.json is missing: it describes the model"
    );
}

#[test]
fn weights_that_are_refused() {
    let with = |tensors: &[(&str, &[usize])], dtype: &str, weight: &[u8]| {
        let mut files = files();
        files.insert("model.safetensors", safetensors(tensors, dtype, weight));
        refused(&files)
    };
    let one = 1f32.to_le_bytes();
    let missing = with(&TENSORS[1..], "F32", &one);
    assert_eq!(
        missing,
        "tensor \"model.embed_tokens.weight\" is missing from the safetensors files"
    );
    let more = [
        &TENSORS[..],
        &[("model.layers.0.mlp.router.weight", &[2, 2])],
    ]
    .concat();
    let unknown = with(&more, "F32", &one);
    assert!(
        unknown.contains("\"model.layers.0.mlp.router.weight\" is not one of LlamaForCausalLM"),
        "{unknown}"
    );
    let integers = with(&TENSORS, "I32", &[1, 0, 0, 0]);
    assert!(
        integers.contains("has type I32; supported are F32, F16, BF16"),
        "{integers}"
    );
    let mut deep = TENSORS;
    deep[5].1 = &[2, 4, 8];
    let deep = with(&deep, "F32", &one);
    assert!(
        deep.contains("of shape [2, 4, 8] is no vector or matrix"),
        "{deep}"
    );
    let large = with(&TENSORS, "F32", &1e6f32.to_le_bytes());
    assert!(
        large.contains("cannot be converted: the weight 1000000 does not fit type F16"),
        "{large}"
    );
    let mut files = files();
    files.insert("model.safetensors", gguf("llama", &[], 3));
    assert!(
        refused(&files).starts_with("model.safetensors: it is no safetensors file"),
        "{}",
        refused(&files)
    );
    files.remove("model.safetensors");
    files.insert("sub/model.safetensors", vec![0; 10]);
    assert!(
        refused(&files).starts_with("no files provided to convert"),
        "{}",
        refused(&files)
    );
}

#[test]
fn an_index_is_kept_to() {
    let shards = |index: Value| {
        let mut files = files();
        files.remove("model.safetensors");
        files.insert(
            "model-1.safetensors",
            safetensors(&TENSORS[..5], "BF16", &[0x80, 0x3F]),
        );
        files.insert(
            "model-2.safetensors",
            safetensors(&TENSORS[5..], "BF16", &[0x80, 0x3F]),
        );
        files.insert(
            "model.safetensors.index.json",
            json!({"weight_map": index}).to_string().into_bytes(),
        );
        files
    };
    assert_eq!(
        import(&shards(json!({"lm_head.weight": "model-1.safetensors"})))
            .unwrap()
            .file_type,
        "BF16"
    );
    let error = refused(&shards(json!({"lm_head.weight": "model-3.safetensors"})));
    assert_eq!(
        error,
        "model.safetensors.index.json: it names \"model-3.safetensors\", which is missing"
    );
    let error = refused(&shards(json!({"lm_head.weight": "model-2.safetensors"})));
    assert!(
        error.starts_with("model-2.safetensors lacks tensor \"lm_head.weight\""),
        "{error}"
    );
    let mut twice = shards(json!({}));
    twice.insert(
        "model-3.safetensors",
        safetensors(&TENSORS[..1], "BF16", &[0x80, 0x3F]),
    );
    let error = refused(&twice);
    assert_eq!(
        error,
        "model-3.safetensors: tensor \"model.embed_tokens.weight\" is in model-1.safetensors too"
    );
}

#[test]
fn vocabularies_that_are_refused() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut files = files();
        let mut tokenizer = tokenizer();
        change(&mut tokenizer);
        files.insert("tokenizer.json", tokenizer.to_string().into_bytes());
        refused(&files)
    };
    let starts = |change: &dyn Fn(&mut Value), start: &str| {
        let text = with(change);
        assert!(text.starts_with(start), "{text}");
    };
    starts(
        &|t| t["model"]["type"] = "Unigram".into(),
        "tokenizer.json: model \"Unigram\" is not supported",
    );
    starts(
        &|t| t["model"]["vocab"]["d"] = 6.into(),
        "tokenizer.json: token \"d\" has id 6, the embedding has 6 rows",
    );
    starts(
        &|t| t["model"]["vocab"]["d"] = 3.into(),
        "tokenizer.json: tokens ",
    );
    starts(
        &|t| t["model"]["vocab"]["d"] = (-1).into(),
        "tokenizer.json: invalid value: integer `-1`",
    );
    starts(
        &|t| t["model"]["merges"] = json!(["ab"]),
        "tokenizer.json: merge \"ab\" is no pair",
    );
    starts(
        &|t| t["normalizer"] = json!({"type": "Lowercase"}),
        "tokenizer.json: normalizer \"Lowercase\" is not supported",
    );
    let split = json!({"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": false});
    starts(
        &|t| {
            t["pre_tokenizer"] =
                json!({"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel"}]})
        },
        "tokenizer.json: a pre-tokenizer of the patterns [\"x+\", ",
    );
    starts(
        &|t| t["pre_tokenizer"] = json!(null),
        "tokenizer.json: no normalizer or pre-tokenizer replaces spaces",
    );
    starts(
        &|t| t["post_processor"] = json!({"type": "Other"}),
        "tokenizer.json: post-processor \"Other\" is not supported",
    );
    let many = json!({"type": "Sequence", "normalizers": vec![json!({"type": "NFC"}); 17]});
    starts(
        &|t| t["normalizer"] = many.clone(),
        "tokenizer.json: more than 16 items in an array",
    );
    let mut without = files();
    without.remove("tokenizer.json");
    assert_eq!(
        refused(&without),
        "tokenizer.json or tokenizer.model is missing: it has the vocabulary"
    );
    without.insert("tokenizer.model", b"\x0a\xff".to_vec());
    assert_eq!(
        refused(&without),
        "tokenizer.model: it is no SentencePiece model"
    );
}
