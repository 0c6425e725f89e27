//! The devices that benches run on, shared by all of them.

use ollama_wgpu::backend::Backend;
use ollama_wgpu::cli::device;

/// Names for `device::open`: the CPU, and what `OLLAMA_WGPU_BENCH_DEVICES` lists beside it
/// (comma-separated, such as `vulkan:llvmpipe`).
pub fn names() -> Vec<String> {
    let listed = std::env::var("OLLAMA_WGPU_BENCH_DEVICES").unwrap_or_default();
    let others = listed.split(',').filter(|name| !name.is_empty());
    std::iter::once("cpu")
        .chain(others)
        .map(String::from)
        .collect()
}

/// Opens one of them.
pub fn open(name: &str) -> Box<dyn Backend> {
    device::open(Some(name)).unwrap_or_else(|e| panic!("device {name}: {e}"))
}
