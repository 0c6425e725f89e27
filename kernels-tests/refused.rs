//! Files that are valid GGUF and no model that can be run: each is refused at load, by name.

use std::sync::Arc;

use ollama_wgpu::backend::KvType;
use ollama_wgpu::engine::{Endless, Engine, EngineOptions, Error as EngineError, Event, Request};
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::{Error, Model};

use crate::devices::{self, Device};
use crate::models;

/// The bytes of a small model, to be damaged.
pub struct Damaged(Vec<u8>);

impl Damaged {
    pub fn new(name: &str) -> Damaged {
        let path = models::path(&format!("tiny/{name}.gguf"));
        Damaged(std::fs::read(path).expect("the model can be read"))
    }

    /// Where a name ends that is written with its length.
    fn after(&self, name: &str) -> usize {
        let mut wanted = (name.len() as u64).to_le_bytes().to_vec();
        wanted.extend(name.as_bytes());
        let at = self.0.windows(wanted.len()).position(|w| w == wanted);
        at.unwrap_or_else(|| panic!("{name} is in the file")) + wanted.len()
    }

    /// Replaces a name of a key or tensor by another of the same length.
    pub fn rename(mut self, name: &str, other: &str) -> Damaged {
        assert_eq!(name.len(), other.len());
        let end = self.after(name);
        self.0[end - name.len()..end].copy_from_slice(other.as_bytes());
        self
    }

    /// Adds a key with a string of so many `x` that the tensors' data stays aligned.
    fn with_string(mut self, key: &str) -> Damaged {
        let value = "x".repeat(32 - (8 + key.len() + 4 + 8) % 32);
        let mut entry = (key.len() as u64).to_le_bytes().to_vec();
        entry.extend(key.as_bytes());
        entry.extend(8u32.to_le_bytes());
        entry.extend((value.len() as u64).to_le_bytes());
        entry.extend(value.as_bytes());
        // Magic, version and the number of tensors come before the number of keys.
        let n_keys = u64::from_le_bytes(self.0[16..24].try_into().expect("eight bytes"));
        self.0[16..24].copy_from_slice(&(n_keys + 1).to_le_bytes());
        self.0.splice(24..24, entry);
        self
    }

    /// Overwrites what follows a name by some bytes.
    fn write_after(mut self, name: &str, skip: usize, bytes: &[u8]) -> Damaged {
        let at = self.after(name) + skip;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn open(&self) -> Arc<Gguf> {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), &self.0).expect("write the temporary file");
        Arc::new(Gguf::open(file.path()).expect("a valid file"))
    }

    /// Overwrites numbers of a tensor from byte `at` on.
    pub fn write_data(mut self, tensor: &str, at: usize, bytes: &[u8]) -> Damaged {
        let gguf = self.open();
        let info = gguf.tensor(tensor).expect("the tensor is in the file");
        let at = info.offset as usize + at;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn load(&self) -> Result<Model, Error> {
        Model::load(&self.open())
    }

    /// Why it is refused.
    fn refusal(&self) -> String {
        self.load().expect_err("the model is refused").to_string()
    }
}

/// Asserts that a message has all of these words.
pub fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{message:?} does not name {word:?}");
    }
}

#[test]
fn the_model_itself_is_accepted() {
    assert!(Damaged::new("tiny-llama").load().is_ok());
}

#[test]
fn an_unknown_architecture_is_named_with_those_that_are_known() {
    // The value follows its type and length.
    let model = Damaged::new("tiny-llama").write_after("general.architecture", 12, b"lorem");
    says(&model.refusal(), &["lorem", "llama", "qwen2"]);
}

#[test]
fn a_missing_key_is_named() {
    for (key, other) in [
        ("llama.block_count", "llama.block_caunt"),
        ("llama.embedding_length", "llama.embedding_langth"),
        (
            "llama.attention.layer_norm_rms_epsilon",
            "llama.attention.layer_norm_rms_epsilan",
        ),
    ] {
        let model = Damaged::new("tiny-llama").rename(key, other);
        says(&model.refusal(), &[key]);
    }
}

#[test]
fn an_impossible_key_is_named() {
    let zero = 0u32.to_le_bytes();
    for key in ["llama.attention.head_count", "llama.feed_forward_length"] {
        let model = Damaged::new("tiny-llama").write_after(key, 4, &zero);
        says(&model.refusal(), &[key]);
    }
}

#[test]
fn a_key_that_the_family_does_not_read_may_hold_anything() {
    let model = Damaged::new("tiny-llama").write_after("llama.vocab_size", 4, &[0xff; 4]);
    assert!(model.load().is_ok());
    let model = Damaged::new("tiny-gpt2").with_string("gpt2.rope.scaling.type");
    assert!(model.load().is_ok());
    let model = Damaged::new("tiny-llama").with_string("llama.rope.scaling.type");
    says(&model.refusal(), &["rope scaling of type xxx"]);
}

#[test]
fn a_missing_tensor_is_named() {
    for (file, tensor, other) in [
        ("tiny-llama", "blk.1.ffn_up.weight", "blk.1.ffn_ux.weight"),
        ("tiny-llama", "blk.0.attn_q.weight", "blk.0.attn_x.weight"),
        ("tiny-llama", "output_norm.weight", "output_narm.weight"),
        // What other families can do without, these cannot.
        (
            "tiny-llama",
            "blk.1.ffn_norm.weight",
            "blk.1.ffn_narm.weight",
        ),
        (
            "tiny-qwen3",
            "blk.1.attn_q_norm.weight",
            "blk.1.attn_q_narm.weight",
        ),
        ("tiny-starcoder2", "blk.0.ffn_up.bias", "blk.0.ffn_ux.bias"),
        (
            "tiny-gemma2",
            "blk.2.post_ffw_norm.weight",
            "blk.2.post_ffx_norm.weight",
        ),
    ] {
        let model = Damaged::new(file).rename(tensor, other);
        says(&model.refusal(), &[tensor, "missing"]);
    }
}

#[test]
fn a_tensor_that_nothing_reads_is_named() {
    // Without the embedding's own matrix the model would use another.
    let model = Damaged::new("tiny-llama").rename("output.weight", "outpux.weight");
    says(&model.refusal(), &["outpux.weight"]);
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    // Two extents follow the name and their number.
    let swapped: Vec<u8> = [512u64, 256].iter().flat_map(|n| n.to_le_bytes()).collect();
    let tensor = "blk.0.ffn_up.weight";
    let model = Damaged::new("tiny-llama").write_after(tensor, 4, &swapped);
    says(&model.refusal(), &[tensor, "[512, 256]", "[256, 512]"]);
}

#[test]
fn numbers_that_are_none_are_named_by_their_tensor() {
    let nan = f32::NAN.to_le_bytes();
    let norm = "blk.1.attn_norm.weight";
    let model = Damaged::new("tiny-llama").write_data(norm, 4 * 100, &nan);
    says(&model.refusal(), &[norm, "not finite"]);
    let nan = half::f16::NAN.to_le_bytes();
    let infinite = half::f16::INFINITY.to_le_bytes();
    for (tensor, number) in [
        ("token_embd.weight", nan),
        ("blk.0.attn_q.weight", nan),
        ("blk.1.attn_v.weight", infinite),
        ("blk.1.ffn_down.weight", infinite),
        ("output.weight", nan),
    ] {
        let model = Damaged::new("tiny-llama").write_data(tensor, 2 * 256 * 10, &number);
        says(&model.refusal(), &[tensor, "not finite"]);
    }
    // The scale of a block.
    let matrix = "blk.0.ffn_down.weight";
    let at = 10 * 512 / 32 * 34;
    let model = Damaged::new("tiny-llama-q8_0").write_data(matrix, at, &infinite);
    says(&model.refusal(), &[matrix, "not finite"]);
    // One in the first row of an expert.
    let matrix = "blk.1.ffn_gate_exps.weight";
    let model = Damaged::new("tiny-llama-moe").write_data(matrix, 3 * 128 * 256 * 2, &nan);
    says(&model.refusal(), &[matrix, "not finite"]);
}

/// What a model with these bytes answers on every device: the first token, or why there is none.
fn answers(model: &Damaged) -> Vec<(String, Result<u32, EngineError>)> {
    let gguf = model.open();
    let first = |device: Device| {
        let options = EngineOptions {
            n_ctx: 64,
            n_parallel: 1,
            n_batch: 16,
            n_waiting: 1,
            kv_type: KvType::F16,
        };
        let backend = device.open().expect("the device opens");
        let engine = Engine::load(&gguf, Arc::new(Endless), backend, options).expect("it loads");
        let mut events = engine.submit(Request::new(vec![1, 2, 3])).expect("a place");
        let answer = loop {
            match pollster::block_on(events.recv()) {
                Some(Event::Piece { tokens, .. }) if !tokens.is_empty() => break Ok(tokens[0]),
                Some(Event::Failed(error)) => break Err(error),
                Some(_) => {}
                None => panic!("no event"),
            }
        };
        (device.name.clone(), answer)
    };
    let devices = devices::cpus().into_iter().chain(devices::plain_gpus());
    devices.map(first).collect()
}

/// Rows of experts that are not looked at when a model is loaded.
#[test]
fn numbers_that_are_none_end_the_answer_where_they_are_met() {
    for number in [half::f16::NAN, half::f16::INFINITY] {
        let mut model = Damaged::new("tiny-llama-moe");
        for expert in 0..4 {
            let at = 2 * 256 * (128 * expert + 10);
            model = model.write_data("blk.0.ffn_up_exps.weight", at, &number.to_le_bytes());
        }
        for (device, answer) in answers(&model) {
            assert_eq!(
                answer,
                Err(EngineError::InvalidLogits),
                "{device}: {number}"
            );
        }
    }
}

#[test]
fn a_type_that_is_not_computed_with_is_named_with_those_that_are() {
    // The number of extents and two extents precede it.
    for (number, name) in [(9u32, "Q8_1"), (28, "F64"), (4711, "4711")] {
        let tensor = "blk.0.ffn_up.weight";
        let model = Damaged::new("tiny-llama").write_after(tensor, 20, &number.to_le_bytes());
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), &model.0).expect("write the temporary file");
        let error = Gguf::open(file.path()).expect_err("it is refused");
        says(&error.to_string(), &[tensor, name, "Q4_K"]);
    }
}

#[test]
fn more_experts_than_there_are_is_named() {
    let five = 5u32.to_le_bytes();
    let key = "llama.expert_used_count";
    let model = Damaged::new("tiny-llama-moe").write_after(key, 4, &five);
    says(&model.refusal(), &[key, "4"]);
}

#[test]
fn experts_that_are_missing_or_of_another_shape_are_named() {
    let tensor = "blk.1.ffn_up_exps.weight";
    let model = Damaged::new("tiny-llama-moe").rename(tensor, "blk.1.ffn_ux_exps.weight");
    says(&model.refusal(), &[tensor, "missing"]);
    // Three extents follow the name and their number.
    let swapped: Vec<u8> = [128u64, 256].iter().flat_map(|n| n.to_le_bytes()).collect();
    let model = Damaged::new("tiny-llama-moe").write_after(tensor, 4, &swapped);
    says(
        &model.refusal(),
        &[tensor, "[128, 256, 4]", "[256, 128, 4]"],
    );
    let router = "blk.0.ffn_gate_inp.weight";
    let model = Damaged::new("tiny-llama-moe").rename(router, "blk.0.ffn_gate_imp.weight");
    says(&model.refusal(), &[router, "missing"]);
}
