//! Where test models lie, for tests and benches.

use std::path::{Path, PathBuf};

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
