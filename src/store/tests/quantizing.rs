//! Weights that are written anew: quantised, and joined from several files.

use super::*;
use crate::gguf::{Gguf, Header};
use crate::quant::QuantType;

/// A model of one layer; with `split`, the part of that number of two, which has one of the matrices.
fn weights(split: Option<u32>) -> Vec<u8> {
    let mut header = Header::default();
    header.string("general.architecture", "llama");
    header.u32("llama.block_count", 1);
    header.u32("general.file_type", 1);
    if let Some(n) = split {
        header.u32("split.no", n);
        header.u32("split.count", 2);
    }
    let names = ["blk.0.ffn_up.weight", "blk.0.ffn_down.weight"];
    let own = names
        .iter()
        .enumerate()
        .filter(|(i, _)| split.is_none_or(|n| n as usize == *i));
    let own: Vec<&str> = own.map(|(_, name)| *name).collect();
    for name in &own {
        header.tensor(name, &[64, 3], QuantType::F32);
    }
    let mut bytes = Vec::new();
    header.write(&mut bytes).unwrap();
    for name in own {
        let weight = |i: usize| (i as f32 / 100.0 - 1.0) * name.len() as f32;
        bytes.extend((0..64 * 3).flat_map(|i| weight(i).to_le_bytes()));
    }
    bytes
}

impl Fixture {
    fn open(&self, name: &str) -> Gguf {
        Gguf::open(&self.resolve(name).unwrap().model_path).unwrap()
    }
}

#[test]
fn quantized_to_what_is_asked_for() {
    let f = Fixture::new();
    let digest = f.blob(&weights(None)).to_string();
    let steps = f
        .create(json!({"model": "small", "files": {"a.gguf": digest}, "quantize": "q4_k_m"}))
        .unwrap();
    let layer = steps
        .iter()
        .find(|step| step.starts_with("creating new layer"))
        .unwrap();
    assert!(!layer.contains(&digest), "{layer}");
    let gguf = f.open("small");
    assert_eq!(gguf.u32("general.file_type"), Some(15));
    assert_eq!(gguf.u32("llama.block_count"), Some(1));
    // Rows of 64 weights are no blocks of K types.
    let tensor = gguf.tensor("blk.0.ffn_up.weight").unwrap();
    assert_eq!(tensor.quant(), Some(QuantType::Q5_0));
    let mut decoded = vec![0.0; 64 * 3];
    QuantType::Q5_0.decode(gguf.data(tensor), &mut decoded);
    for (i, weight) in decoded.iter().enumerate() {
        let want = (i as f32 / 100.0 - 1.0) * 19.0;
        assert!(
            (weight - want).abs() < 0.7,
            "weight {i}: {weight} instead of {want}"
        );
    }
    let model = f.store.list().unwrap();
    assert_eq!(model[0].config.file_type, "Q4_K_M");
    // The level that a model has is no work, another one is refused.
    f.create(json!({"model": "same", "from": "small", "quantize": "Q4_K_M"}))
        .unwrap();
    let error = f
        .create(json!({"model": "other", "from": "small", "quantize": "q8_0"}))
        .unwrap_err();
    assert!(
        error.to_string().contains("only supported for F16"),
        "{error}"
    );
}

#[test]
fn parts_are_joined() {
    let f = Fixture::new();
    let parts = [
        f.blob(&weights(Some(0))).to_string(),
        f.blob(&weights(Some(1))).to_string(),
    ];
    let create = |files: Value, level: &str| {
        f.create(json!({"model": format!("whole{level}"), "files": files, "quantize": level}))
    };
    let both = json!({"m-00002-of-00002.gguf": parts[1], "m-00001-of-00002.gguf": parts[0]});
    create(both.clone(), "").unwrap();
    let whole = f.blob(&weights(None));
    assert_eq!(
        f.resolve("whole").unwrap().model_path,
        f.store.blob_path(&whole),
        "as if never split"
    );
    create(both, "q8_0").unwrap();
    let gguf = f.open("wholeq8_0");
    assert_eq!(gguf.tensors().len(), 2);
    assert!(
        gguf.tensors()
            .iter()
            .all(|t| t.quant() == Some(QuantType::Q8_0))
    );
    for missing in [
        json!({"a.gguf": parts[0]}),
        json!({"a.gguf": parts[1], "b.gguf": parts[1]}),
    ] {
        let error = create(missing, "").unwrap_err().to_string();
        assert!(error.contains("was split into 2 files"), "{error}");
    }
}

#[test]
fn weights_that_are_no_numbers_leave_nothing() {
    let f = Fixture::new();
    let mut bytes = weights(None);
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let digest = f.blob(&bytes).to_string();
    let before = f.blob_files();
    let error = f
        .create(json!({"model": "m", "files": {"a.gguf": digest}, "quantize": "q8_0"}))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("tensor blk.0.ffn_down.weight cannot be quantized"),
        "{error}"
    );
    assert_eq!((f.names(), f.blob_files()), (Vec::new(), before));
}

#[test]
fn a_client_that_leaves_ends_the_work_and_nothing_stays() {
    let f = Fixture::new();
    let digest = f.blob(&weights(None)).to_string();
    let before = f.blob_files();
    let request = json!({"model": "small", "files": {"a.gguf": digest}, "quantize": "q8_0"});
    let request: CreateRequest = serde_json::from_value(request).unwrap();
    let ended = f.store.create(&request, &mut Leaving { n_steps: 1 });
    assert!(matches!(ended, Err(Error::Canceled)), "{ended:?}");
    assert_eq!(f.blob_files(), before);
    f.store
        .create(&request, &mut |_: Progress| {})
        .expect("it is made");
}
