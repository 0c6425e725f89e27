//! Compiled kernels between two runs of the program: the file, and every way it can be bad.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::models;
use crate::server::binary;

/// Profiles a step on the GPU with this folder of caches.
fn profile(folder: &Path) -> Value {
    let file = models::path("tiny/tiny-llama-q4_k_m.gguf");
    let mut command = binary();
    command.args(["debug", "profile", "--device", "vulkan"]);
    command.arg(file).env("XDG_CACHE_HOME", folder);
    let output = command.output().expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("ollama-wgpu")).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn a_bad_file_is_replaced_and_a_missing_folder_is_no_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = profile(folder.path());
    assert!(first["n_pipelines"].as_u64() > Some(5), "{first:#}");
    let found = files(folder.path());
    let [file] = &found[..] else {
        panic!("{found:?}");
    };
    let whole = fs::read(file).expect("it is there");
    assert!(whole.len() > 32, "{} bytes", whole.len());
    let mut changed = whole.clone();
    *changed.last_mut().expect("a byte") ^= 1;
    for bad in [&whole[..whole.len() / 2], &changed, b"", &whole] {
        fs::write(file, bad).expect("it is written");
        assert_eq!(profile(folder.path())["launches"], first["launches"]);
        assert!(fs::read(file).expect("it is there").len() >= whole.len());
    }
    let nowhere = folder.path().join("a file");
    fs::write(&nowhere, "no folder").expect("it is written");
    assert_eq!(profile(&nowhere)["launches"], first["launches"]);
}
