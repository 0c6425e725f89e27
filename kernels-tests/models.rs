//! Where test models lie, and what is asked of them, for tests and benches.
#![allow(dead_code, reason = "every binary uses a part")]

use std::path::{Path, PathBuf};

/// The real models of `scripts/models.sh`.
pub const REAL: [&str; 3] = [
    "smollm2-135m-instruct-q4_1.gguf",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "gemma-3-270m-q4_k_m.gguf",
];

/// Fixed token ids, as llama-bench feeds them: what is computed does not depend on which.
pub fn tokens(n: usize, n_vocab: usize) -> Vec<u32> {
    (0..n).map(|i| ((17 * i + 5) % n_vocab) as u32).collect()
}

/// A file in the folder that `scripts/models.sh` fills.
///
/// # Panics
/// If it is missing: a model that cannot be had fails the run.
pub fn path(name: &str) -> PathBuf {
    let folder = std::env::var_os("OLLAMA_WGPU_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-models"),
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing; scripts/test.sh fetches the test models",
        path.display()
    );
    path
}
