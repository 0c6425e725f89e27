//! The store as a whole, on folders of its own.

mod adapters;
mod building;
mod converting;
mod damage;
mod quantizing;
mod racing;

use super::changes::SWEEP_AGE;
use super::manifest::media;
use super::*;
use crate::api::{CreateRequest, Progress};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;
use tempfile::TempDir;

/// A GGUF file of one tensor with `n` weights and these string values besides the architecture.
pub(super) fn gguf(architecture: &str, strings: &[(&str, &str)], n: u64) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, s: &str| {
        out.extend((s.len() as u64).to_le_bytes());
        out.extend(s.as_bytes());
    };
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(1u64.to_le_bytes());
    out.extend((strings.len() as u64 + 3).to_le_bytes());
    for (key, value) in [("general.architecture", architecture)]
        .iter()
        .chain(strings)
    {
        text(&mut out, key);
        out.extend(8u32.to_le_bytes());
        text(&mut out, value);
    }
    for (key, value) in [
        ("general.file_type", 1),
        (&format!("{architecture}.context_length"), 2048u32),
    ] {
        text(&mut out, key);
        out.extend(4u32.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    text(&mut out, "weight");
    out.extend(1u32.to_le_bytes());
    out.extend(n.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.resize(out.len().next_multiple_of(32) + 4 * n as usize, 0);
    out
}

/// A store in a folder that lasts as long as the value.
pub(super) struct Fixture {
    pub dir: TempDir,
    pub store: Store,
}

/// A client that leaves after so many steps.
pub(super) struct Leaving {
    pub n_steps: usize,
}

impl Client for Leaving {
    fn tell(&mut self, _: Progress) {
        self.n_steps = self.n_steps.saturating_sub(1);
    }

    fn is_there(&self) -> bool {
        self.n_steps > 0
    }
}

impl Fixture {
    pub fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Fixture { dir, store }
    }

    /// Uploads a blob.
    pub fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut upload = self.store.upload(digest, u64::MAX).unwrap();
        upload.write(bytes).unwrap();
        upload.finish().unwrap();
        digest
    }

    /// Makes a model and returns the steps.
    pub fn create(&self, request: Value) -> Result<Vec<String>, Error> {
        let request: CreateRequest = serde_json::from_value(request).unwrap();
        let mut steps = Vec::new();
        self.store
            .create(&request, &mut |step: Progress| steps.push(step.status))?;
        Ok(steps)
    }

    /// Makes the model `name` from a GGUF file of `n` weights, with a license of its own.
    pub fn model(&self, name: &str, n: u64) -> Digest {
        let digest = self.blob(&gguf("llama", &[], n));
        self.create(json!({
            "model": name, "files": {"m.gguf": digest.to_string()}, "license": format!("license of {name}"),
        }))
        .unwrap();
        digest
    }

    pub fn resolve(&self, name: &str) -> Result<ResolvedModel, Error> {
        self.store.resolve(&ModelName::parse(name)?)
    }

    pub fn delete(&self, name: &str) -> Result<(), Error> {
        self.store.delete(&ModelName::parse(name)?)
    }

    pub fn copy(&self, from: &str, to: &str) -> Result<(), Error> {
        self.store
            .copy(&ModelName::parse(from)?, &ModelName::parse(to)?)
    }

    pub fn names(&self) -> Vec<String> {
        self.store
            .list()
            .unwrap()
            .iter()
            .map(|entry| entry.name.to_string())
            .collect()
    }

    /// File names below `blobs/`.
    pub fn blob_files(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.dir.path().join("blobs")).unwrap();
        entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    pub fn manifest(&self, name: &str) -> PathBuf {
        self.store.manifest_path(&ModelName::parse(name).unwrap())
    }
}

/// Makes a file as old as the sweep takes.
pub(super) fn age(path: PathBuf) {
    let time = SystemTime::now() - SWEEP_AGE - Duration::from_secs(1);
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn an_empty_store() {
    let f = Fixture::new();
    assert!(f.names().is_empty());
    assert_eq!(
        f.resolve("m").unwrap_err().to_string(),
        "model 'm:latest' not found"
    );
    assert_eq!(
        f.delete("me/M:t").unwrap_err().to_string(),
        "model 'me/M:t' not found"
    );
    assert_eq!(f.store.prune().unwrap(), 0);
    let missing = Digest::of(b"");
    assert!(!f.store.has_blob(&missing).unwrap());
}

#[test]
fn ollamas_layout() {
    let f = Fixture::new();
    let weights = f.model("Me/Model:V1", 8);
    let manifest = f
        .dir
        .path()
        .join("manifests/registry.ollama.ai/Me/Model/V1");
    let text = fs::read_to_string(manifest).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["layers"][0]["digest"], weights.to_string());
    assert_eq!(value["layers"][0]["mediaType"], media::MODEL);
    assert!(text.ends_with("]}\n"));
    assert!(f.blob_files().contains(&weights.file_name()));
    assert_eq!(f.blob_files().len(), 3, "weights, license, config");
    let entry = &f.store.list().unwrap()[0];
    assert_eq!(entry.digest, Digest::of(text.as_bytes()).hex());
    assert_eq!(entry.name.to_string(), "Me/Model:V1");
    assert_eq!((entry.context_length, entry.capabilities.len()), (2048, 1));
    assert_eq!(entry.config.model_type, "8");
}

#[test]
fn a_foreign_manifest_is_kept_as_it_is() {
    let f = Fixture::new();
    let weights = f.model("m", 8);
    let size = f.store.inner.blobs.size(&weights).unwrap();
    let text = format!(
        "{{ \"layers\" : [ {{\"size\":{size}, \"digest\":\"sha256-{}\",\n \"mediaType\":\"{}\", \"x\":[1]}} ], \"annotations\": {{}} }}",
        weights.hex().to_uppercase(),
        media::MODEL
    );
    fs::write(f.manifest("m"), &text).unwrap();
    assert_eq!(f.resolve("m").unwrap().model_digest, weights);
    f.copy("m", "n").unwrap();
    assert_eq!(fs::read_to_string(f.manifest("n")).unwrap(), text);
    assert_eq!(f.names().len(), 2);
}

/// As in models of the library's first days, and with kinds that nobody knows.
#[test]
fn layers_of_every_kind_are_read() {
    let f = Fixture::new();
    f.model("m", 8);
    let manifest = fs::read(f.manifest("m")).unwrap();
    let with = |layers: &[(&str, &str)]| {
        let mut value: Value = serde_json::from_slice(&manifest).unwrap();
        for (kind, text) in layers {
            let digest = f.blob(text.as_bytes()).to_string();
            let layer = json!({"mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": digest, "size": text.len()});
            value["layers"].as_array_mut().unwrap().push(layer);
        }
        fs::write(f.manifest("m"), value.to_string()).unwrap();
        f.resolve("m").unwrap()
    };
    let old = with(&[
        ("prompt", "{{ .Prompt }}?"),
        ("embed", "e"),
        ("unknown", "u"),
    ]);
    assert_eq!(old.template.as_deref(), Some("{{ .Prompt }}?"));
    assert_eq!((old.system, old.params.len()), (None, 0));
    let new = with(&[
        ("prompt", "old"),
        ("template", "first"),
        ("template", "last"),
        ("system", "s"),
        ("params", r#"{"seed":1}"#),
        ("messages", r#"[{"role":"user","content":"hi"}]"#),
        ("license", "L2"),
    ]);
    assert_eq!(new.template.as_deref(), Some("last"));
    assert_eq!(new.system.as_deref(), Some("s"));
    assert_eq!(Value::Object(new.params), json!({"seed": 1}));
    assert_eq!(new.messages[0].content, "hi");
    assert_eq!(new.license, ["license of m", "L2"]);
}

#[test]
fn newest_first_and_fresh_after_a_change() {
    let f = Fixture::new();
    for (name, age) in [("old", 100), ("new", 0), ("older", 200)] {
        f.model(name, 8);
        let time = SystemTime::now() - Duration::from_secs(age);
        File::options()
            .write(true)
            .open(f.manifest(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    assert_eq!(f.names(), ["new:latest", "old:latest", "older:latest"]);
    let before = f.store.list().unwrap()[2].clone();
    f.create(json!({"model": "older", "from": "old", "system": "s"}))
        .unwrap();
    let after = f.store.list().unwrap();
    let after = after.iter().find(|e| e.name.model() == "older").unwrap();
    assert_ne!(after.digest, before.digest);
    assert_eq!(after.parent_model, "old:latest");
}

#[test]
fn letter_case_finds_but_never_doubles() {
    let f = Fixture::new();
    f.model("Foo:Tag", 8);
    assert_eq!(f.resolve("fOO:tAG").unwrap().name.to_string(), "Foo:Tag");
    f.model("foo:tag", 16);
    assert_eq!(f.names(), ["Foo:Tag"]);
    f.copy("FOO:TAG", "other").unwrap();
    f.copy("other", "foo:TAG").unwrap();
    f.copy("foo:tag", "FOO:tag").unwrap();
    assert_eq!(f.names().len(), 2);
    f.create(json!({"model": "x", "from": "FOO:TAG"})).unwrap();
    f.delete("foo:TAG").unwrap();
    assert!(f.resolve("Foo:Tag").is_err());
}

#[test]
fn shared_blobs_outlive_all_but_the_last_model() {
    let f = Fixture::new();
    let weights = f.model("a", 8);
    f.copy("a", "ns/b").unwrap();
    f.create(json!({"model": "c", "from": "a", "system": "only c"}))
        .unwrap();
    f.delete("a").unwrap();
    f.resolve("ns/b").unwrap();
    f.delete("ns/b").unwrap();
    assert!(f.store.has_blob(&Digest::of(b"only c")).unwrap());
    assert_eq!(f.resolve("c").unwrap().license, ["license of a"]);
    f.delete("c").unwrap();
    assert!(!f.store.has_blob(&weights).unwrap());
    assert!(f.blob_files().is_empty());
    let left: Vec<_> = fs::read_dir(f.dir.path().join("manifests"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "empty folders go too");
}

#[test]
fn replacing_a_model_removes_what_only_it_used() {
    let f = Fixture::new();
    let old = f.model("a", 8);
    f.model("b", 16);
    f.copy("b", "a").unwrap();
    assert!(!f.store.has_blob(&old).unwrap());
    assert_eq!(
        f.resolve("a").unwrap().digest,
        f.resolve("b").unwrap().digest
    );
    f.create(json!({"model": "a", "from": "b", "system": "one"}))
        .unwrap();
    f.create(json!({"model": "a", "from": "a", "system": "two"}))
        .unwrap();
    assert!(!f.store.has_blob(&Digest::of(b"one")).unwrap());
    assert_eq!(f.resolve("a").unwrap().system.as_deref(), Some("two"));
    assert_eq!(f.resolve("a").unwrap().parent_model, "a:latest");
    f.store.keep_replaced();
    f.create(json!({"model": "a", "from": "a", "system": "three"}))
        .unwrap();
    let kept = Digest::of(b"two");
    assert!(f.store.has_blob(&kept).unwrap());
    f.delete("a").unwrap();
    assert!(f.store.has_blob(&kept).unwrap(), "of an earlier one");
    assert!(!f.store.has_blob(&Digest::of(b"three")).unwrap());
}

#[test]
fn the_sweep_takes_only_old_and_unused_files() {
    let f = Fixture::new();
    let used = f.model("m", 8);
    let blobs = f.dir.path().join("blobs");
    let (orphan, young) = (f.blob(b"orphan"), f.blob(b"young"));
    let old_style = format!("sha256:{}", Digest::of(b"old style").hex());
    for name in [".tmp-abc", "sha256-123-partial", &old_style] {
        fs::write(blobs.join(name), "old style").unwrap();
    }
    fs::write(f.dir.path().join("manifests/.tmp-x"), "").unwrap();
    let empty = f.dir.path().join("manifests/host/user/model");
    fs::create_dir_all(&empty).unwrap();
    fs::write(blobs.join(".tmp-young"), "").unwrap();
    for name in [".tmp-abc", "sha256-123-partial"] {
        age(blobs.join(name));
    }
    age(f.dir.path().join("manifests/.tmp-x"));
    age(f.store.blob_path(&orphan));
    age(f.store.blob_path(&used));
    assert_eq!(f.store.prune().unwrap(), 4);
    assert!(!f.dir.path().join("manifests/host").exists());
    f.resolve("m").unwrap();
    assert!(f.store.has_blob(&used).unwrap() && f.store.has_blob(&young).unwrap());
    assert!(!f.store.has_blob(&orphan).unwrap());
    assert!(f.blob_files().contains(".tmp-young"));
    if cfg!(unix) {
        assert!(
            f.store.has_blob(&Digest::of(b"old style")).unwrap(),
            "renamed"
        );
    }
}
