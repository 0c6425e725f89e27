//! Where test models lie, for tests and benches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_wgpu::gguf::Gguf;

/// The real models, as file names without their ending.
pub const REAL: &[&str] = &[
    "smollm2-135m-instruct-q4_1",
    "qwen2.5-coder-0.5b-instruct-q4_k_m",
    "gemma-3-270m-q4_k_m",
];

/// The folder that `scripts/models.sh` fills.
pub fn folder() -> PathBuf {
    std::env::var_os("OLLAMA_WGPU_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-models"),
        PathBuf::from,
    )
}

/// Opens one of its files.
pub fn open(name: &str) -> Arc<Gguf> {
    let gguf = Gguf::open(&folder().join(name));
    Arc::new(gguf.unwrap_or_else(|e| panic!("{e}; scripts/test.sh fetches the test models")))
}
