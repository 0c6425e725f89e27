//! Checkpoints in Hugging Face's format (`scripts/tiny-models/make_checkpoints.py`), imported: the tensors, settings and
//! answers of the GGUF files that they were made from, and the ids of the library tokenizers.

mod adapters;
mod experts;
mod float8;
mod pre_tokenizers;
mod vocabularies;
mod written;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_wgpu::api::{CreateRequest, Progress};
use ollama_wgpu::backend::KvType;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::quant::QuantType;
use ollama_wgpu::store::{Digest, ModelName, Store};
use serde_json::{Value, json};

use crate::golden::{open, tiny};
use crate::{devices, embedding, golden as reference, models};

/// The folders, and the tiny models that they were made from.
const CHECKPOINTS: [(&str, &str); 20] = [
    ("llama", "tiny-llama"),
    ("llama-tied", "tiny-llama-odd"),
    ("llama-bf16", "tiny-llama-bf16"),
    ("llama-yarn", "tiny-llama-yarn"),
    ("llama-linear", "tiny-llama-linear"),
    ("llama-sentencepiece", "tiny-xverse"),
    ("mistral", "tiny-mistral-nemo"),
    ("mixtral", "tiny-llama-moe"),
    ("qwen2", "tiny-qwen2"),
    ("qwen3", "tiny-qwen3"),
    ("qwen3-embedding", "tiny-qwen3-embedding"),
    ("qwen3moe", "tiny-qwen3moe"),
    ("gemma", "tiny-gemma"),
    ("gemma2", "tiny-gemma2"),
    ("gemma3", "tiny-gemma3"),
    ("gemma3-text", "tiny-gemma3"),
    ("phi3", "tiny-phi3"),
    ("phi4", "tiny-phi4-mini"),
    ("bert", "tiny-bert"),
    ("bert-cls", "tiny-bert-cls"),
];

/// A checkpoint's files by the names that a request gives them.
type Files = BTreeMap<String, Vec<u8>>;

/// The checkpoints that `config.json` calls so.
pub fn of_architecture(wanted: &str) -> impl Iterator<Item = &'static str> {
    let is_it = move |name: &&str| {
        let config: Value = serde_json::from_slice(&files(name)["config.json"]).expect("JSON");
        config["architectures"][0] == wanted
    };
    CHECKPOINTS.iter().map(|(name, _)| *name).filter(is_it)
}

fn files(name: &str) -> Files {
    if let Some(files) = experts::files(name) {
        return files;
    }
    files_in(&models::path(&format!("checkpoints/{name}")))
}

/// The files of a folder and of those in it.
fn files_in(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut add = |path: PathBuf| {
        let name = path.strip_prefix(folder).expect("in the folder");
        let name = name.to_str().expect("UTF-8").to_owned();
        files.insert(name, fs::read(&path).expect("it can be read"));
    };
    let entries = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect::<Vec<_>>()
    };
    for path in entries(folder) {
        match path.is_dir() {
            true => entries(&path).into_iter().for_each(&mut add),
            false => add(path),
        }
    }
    files
}

/// A store in a folder of its own.
struct Fixture {
    folder: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path()).expect("a store");
        Fixture { folder, store }
    }

    /// Uploads the files: their names and digests, as requests have them.
    fn upload(&self, files: &Files) -> BTreeMap<String, String> {
        let mut named = BTreeMap::new();
        for (name, bytes) in files {
            let digest = Digest::of(bytes);
            let mut upload = self.store.upload(digest, u64::MAX).expect("an upload");
            upload.write(bytes).expect("it is written");
            upload.finish().expect("it is stored");
            named.insert(name.clone(), digest.to_string());
        }
        named
    }

    /// Uploads the files and makes the model `m` of them.
    fn create(&self, files: &Files, quantize: &str) -> Result<Vec<String>, String> {
        let named = self.upload(files);
        self.make(json!({ "model": "m", "files": named, "quantize": quantize }))
    }

    fn make(&self, request: Value) -> Result<Vec<String>, String> {
        let request: CreateRequest = serde_json::from_value(request).expect("a request");
        let mut steps = Vec::new();
        let made = self
            .store
            .create(&request, &mut |step: Progress| steps.push(step.status));
        made.map(|()| steps).map_err(|e| e.to_string())
    }

    fn path(&self) -> PathBuf {
        let name = ModelName::parse("m").expect("a name");
        self.store
            .resolve(&name)
            .expect("the model is there")
            .model_path
    }

    fn gguf(&self) -> Arc<Gguf> {
        Arc::new(Gguf::open(&self.path()).expect("a valid file"))
    }

    /// Names of unfinished files.
    fn unfinished(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("blobs")).expect("blobs");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.into_string().expect("UTF-8"));
        names.filter(|name| !name.starts_with("sha256-")).collect()
    }
}

fn imported(files: &Files, quantize: &str) -> Arc<Gguf> {
    let fixture = Fixture::new();
    fixture.create(files, quantize).expect("it is imported");
    fixture.gguf()
}

/// Weights of norms that are kept as differences to one lose a bit on the way.
fn tensor_problem(made: &Gguf, wanted: &Gguf, name: &str) -> Option<String> {
    let (Some(a), Some(b)) = (made.tensor(name), wanted.tensor(name)) else {
        return Some(format!("tensor {name} is only in one file"));
    };
    if (&a.shape, a.ggml_type) != (&b.shape, b.ggml_type) {
        return Some(format!("tensor {name} is {a:?} instead of {b:?}"));
    }
    let (a_bytes, b_bytes) = (made.data(a), wanted.data(b));
    if a_bytes == b_bytes {
        return None;
    }
    let floats = |bytes: &[u8]| {
        let mut floats = vec![0.0; bytes.len() / 4];
        QuantType::F32.decode(bytes, &mut floats);
        floats
    };
    let is_near = wanted.architecture().starts_with("gemma")
        && a.quant() == Some(QuantType::F32)
        && floats(a_bytes)
            .iter()
            .zip(floats(b_bytes))
            .all(|(a, b)| (a - b).abs() < 1e-6);
    (!is_near).then(|| format!("tensor {name} has other weights"))
}

/// Settings that the made file may lack or have otherwise: its name, and scores, which are ranks here.
const OTHERWISE: [&str; 2] = ["general.name", "tokenizer.ggml.scores"];

fn key_problems(made: &Gguf, wanted: &Gguf) -> Vec<String> {
    let mut problems = Vec::new();
    for (key, value) in wanted.metadata() {
        let key_here = match wanted.architecture() {
            // A Llama under another name.
            "xverse" => key.replace("xverse.", "llama."),
            _ => key.clone(),
        };
        let own = made.metadata().get(&key_here);
        let is_same = match own {
            Some(ollama_wgpu::gguf::Value::Array(_)) => {
                let texts = |gguf: &Gguf, key: &str| -> Option<Vec<Vec<u8>>> {
                    Some(gguf.strings(key)?.map(<[u8]>::to_vec).collect())
                };
                texts(made, &key_here) == texts(wanted, key)
                    && made.i32s(&key_here) == wanted.i32s(key)
            }
            Some(ollama_wgpu::gguf::Value::F32(n)) => {
                let other = wanted.f32(key).expect("a number");
                (n - other).abs() <= 1e-6 * other.abs()
            }
            own => own == Some(value),
        };
        let is_other = key == "general.architecture" && wanted.architecture() == "xverse";
        if !is_same && !is_other && !OTHERWISE.contains(&key.as_str()) {
            problems.push(format!("{key} is {own:?} instead of {value:?}"));
        }
    }
    problems
}

#[test]
fn checkpoints_become_the_models_they_were_made_from() {
    let device = devices::cpus().pop().expect("a CPU backend");
    let mut problems = Vec::new();
    for (name, tiny_name) in CHECKPOINTS {
        let fixture = Fixture::new();
        let steps = fixture
            .create(&files(name), "")
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(steps[0], "converting model");
        assert_eq!(steps.last().map(String::as_str), Some("success"));
        assert_eq!(fixture.unfinished(), Vec::<String>::new());
        let made = fixture.gguf();
        let (wanted, answers) = tiny(tiny_name);
        assert_eq!(made.tensors().len(), wanted.tensors().len(), "{name}");
        let mut own: Vec<String> = wanted
            .tensors()
            .iter()
            .filter_map(|tensor| tensor_problem(&made, &wanted, &tensor.name))
            .collect();
        own.extend(key_problems(&made, &wanted));
        own.extend(match embedding::TINY.contains(&tiny_name) {
            true => embedding::problems_of(&made, &answers, name, &device),
            false => reference::problems_of(&made, &answers, name, &device, KvType::F32),
        });
        problems.extend(own.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A checkpoint as people publish it: of MiniLM, made by the library sentence-transformers.
#[test]
fn a_real_checkpoint() {
    let made = imported(&files_in(&models::path("all-minilm-l6-v2")), "");
    let wanted = open("all-minilm-l6-v2-f16.gguf");
    let names = wanted.tensors().iter().map(|tensor| &tensor.name);
    let problems: Vec<String> = names
        .filter_map(|name| tensor_problem(&made, &wanted, name))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(made.tensors().len(), wanted.tensors().len());
    embedding::assert_minilm(&made);
}

/// What is quantised on the way has the weights of the GGUF file quantised.
#[test]
fn checkpoints_are_quantised_as_files_are() {
    for (name, level, quant) in [
        ("llama", "q4_K_M", QuantType::Q4_K),
        ("llama", "F32", QuantType::F32),
        ("llama-bf16", "q8_0", QuantType::Q8_0),
        ("llama-bf16", "f16", QuantType::F16),
    ] {
        let tiny_name = CHECKPOINTS
            .iter()
            .find(|(own, _)| *own == name)
            .expect("a checkpoint")
            .1;
        let file = fs::read(models::path(&format!("tiny/{tiny_name}.gguf"))).expect("a model");
        let wanted = imported(&Files::from([("m.gguf".into(), file)]), level);
        let fixture = Fixture::new();
        fixture.create(&files(name), level).expect("it is imported");
        let made = fixture.gguf();
        let problems: Vec<String> = wanted
            .tensors()
            .iter()
            .filter_map(|tensor| tensor_problem(&made, &wanted, &tensor.name))
            .collect();
        assert!(
            problems.is_empty(),
            "{name} at {level}: {}",
            problems.join("\n")
        );
        let q = made
            .tensor("blk.0.attn_q.weight")
            .and_then(|tensor| tensor.quant());
        assert_eq!(q, Some(quant), "{name} at {level}");
        assert_eq!(
            made.u32("general.file_type"),
            wanted.u32("general.file_type")
        );
        // What it was quantised from is gone.
        assert_eq!(fixture.unfinished(), Vec::<String>::new());
        let n_blobs = fs::read_dir(fixture.folder.path().join("blobs"))
            .expect("blobs")
            .count();
        assert!(n_blobs <= files(name).len() + 5, "{n_blobs} blobs");
    }
}

/// The JSON file `name` of a checkpoint, changed.
fn changed(name: &str, file: &str, change: impl Fn(&mut Value)) -> Files {
    let mut files = files(name);
    let mut value: Value = serde_json::from_slice(&files[file]).expect("JSON");
    change(&mut value);
    files.insert(file.into(), value.to_string().into_bytes());
    files
}

/// The divisors of Llama 3.1, by the formula of its configuration in other words.
#[test]
fn the_scaling_of_llama_3() {
    let files = changed("llama", "config.json", |config| {
        config["rope_theta"] = 500_000.0.into();
        config["rope_scaling"] = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
    });
    let made = imported(&files, "");
    let tensor = made.tensor("rope_freqs.weight").expect("the divisors");
    let mut divisors = vec![0.0; tensor.n_elements() as usize];
    QuantType::F32.decode(made.data(tensor), &mut divisors);
    assert_eq!(divisors.len(), 32);
    for (i, divisor) in divisors.into_iter().enumerate() {
        let frequency = 500_000f64.powf(-(2.0 * i as f64) / 64.0);
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        let scaled = match wavelength {
            w if w < 8192.0 / 4.0 => frequency,
            w if w > 8192.0 / 1.0 => frequency / 8.0,
            w => {
                let smooth = (8192.0 / w - 1.0) / (4.0 - 1.0);
                (1.0 - smooth) * frequency / 8.0 + smooth * frequency
            }
        };
        let wanted = frequency / scaled;
        assert!(
            (f64::from(divisor) - wanted).abs() < 1e-5,
            "{i}: {divisor} instead of {wanted}"
        );
    }
}
