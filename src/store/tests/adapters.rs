//! Create with LoRA adapters.

use super::*;
use crate::gguf::Header;
use crate::quant::QuantType;

/// An adapter for the tensor `weight` of [`Fixture::model`]'s files of 8 weights, with this rank.
pub fn lora(architecture: &str, tensor: &str, rank: u64) -> Vec<u8> {
    let mut header = Header::default();
    header.string("general.architecture", architecture);
    header.string("general.type", "adapter");
    header.string("adapter.type", "lora");
    let (a, b) = (format!("{tensor}.lora_a"), format!("{tensor}.lora_b"));
    header.tensor(&a, &[8, rank], QuantType::F32);
    header.tensor(&b, &[rank, 1], QuantType::F32);
    let mut bytes = Vec::new();
    header.write(&mut bytes).unwrap();
    let data = 4 * 8 * rank + (4 * rank).next_multiple_of(32);
    bytes.resize(bytes.len() + data as usize, 0);
    bytes
}

#[test]
fn adapters_are_layers_and_lines_of_the_modelfile() {
    let f = Fixture::new();
    f.model("base", 8);
    let adapters = [3, 4].map(|rank| f.blob(&lora("llama", "weight", rank)));
    let paths = adapters.map(|digest| f.store.blob_path(&digest));
    let create = |name: &str, from: &str, adapter: Digest| {
        let adapters = json!({"lora.gguf": adapter.to_string()});
        f.create(json!({"model": name, "from": from, "adapters": adapters}))
            .unwrap()
    };
    let steps = create("one", "base", adapters[0]);
    assert!(steps.contains(&format!("creating new layer {}", adapters[0])));
    let one = f.resolve("one").unwrap();
    assert_eq!(one.adapter_paths, paths[..1]);
    let line = format!("\nADAPTER {}\n", paths[0].display());
    assert!(one.modelfile().contains(&line), "{}", one.modelfile());
    // Those of the model that it is made from stay.
    create("two", "one", adapters[1]);
    assert_eq!(f.resolve("two").unwrap().adapter_paths, paths);
    assert!(f.resolve("base").unwrap().adapter_paths.is_empty());
}

#[test]
fn what_cannot_adapt_the_weights_is_refused_by_name() {
    let f = Fixture::new();
    let weights = f.model("base", 8).to_string();
    let whole = lora("llama", "weight", 3);
    for (adapter, message) in [
        (
            lora("qwen2", "weight", 3),
            "adapter: it is for the architecture 'qwen2', the model's is 'llama'",
        ),
        (
            lora("llama", "other", 3),
            "adapter: the model has no tensor other to adapt",
        ),
        (
            gguf("llama", &[], 8),
            "adapter: key general.type is \"\", \"adapter\" is needed",
        ),
        (
            whole[..whole.len() - 32].to_vec(),
            "the file is truncated or damaged",
        ),
        (b"no GGUF".to_vec(), "supplied file was not in GGUF format"),
    ] {
        let adapter = f.blob(&adapter).to_string();
        let before = f.blob_files();
        let request = json!({"model": "m", "from": "base", "adapters": {"a.gguf": adapter}});
        let error = f.create(request).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(f.blob_files(), before);
    }
    // Weights of another shape, and none at all.
    let other = f.blob(&gguf("llama", &[], 9)).to_string();
    let adapter = f.blob(&whole).to_string();
    let request = |files: Value| json!({"model": "m", "files": files});
    let refusal = |files| f.create(request(files)).unwrap_err().to_string();
    assert_eq!(
        refusal(json!({"w.gguf": other, "a.gguf": adapter})),
        "adapter: tensor weight.lora_a has shape [8, 3], [9, 3] is needed"
    );
    assert_eq!(
        refusal(json!({"a.gguf": adapter})),
        "adapter: there are no weights that it could change"
    );
    f.create(request(json!({"w.gguf": weights, "a.gguf": adapter})))
        .unwrap();
}
