//! A model whose first layers run on a GPU.

use serde_json::{Value, json};

use crate::models;
use crate::server::Server;

/// The answer, and bytes of the model in all and on the GPU.
async fn answer(server: &Server, num_gpu: i64) -> (Value, u64, u64) {
    let options = json!({ "temperature": 0, "num_predict": 8, "num_ctx": 256, "num_gpu": num_gpu });
    let reply = server.generate("m", "a b c", &options).await;
    assert_eq!(reply.status, 200, "{}\n{}", reply.text, server.log());
    let ps = server.get("/api/ps").await.json();
    let bytes = |name: &str| ps["models"][0][name].as_u64().expect("a size");
    (
        reply.json()["response"].clone(),
        bytes("size"),
        bytes("size_vram"),
    )
}

#[tokio::test]
async fn layers_are_split_as_asked_for_and_shown() {
    let server = Server::start(&[("OLLAMA_WGPU_DEVICE", "llvmpipe")]);
    server.create("m", &models::path("tiny/tiny-llama-f32.gguf"));
    let (on_cpu, _, vram) = answer(&server, 0).await;
    assert_eq!(vram, 0);
    let (whole, size, vram) = answer(&server, 999).await;
    assert_eq!((whole, vram), (on_cpu.clone(), size));
    let (split, size, vram) = answer(&server, 1).await;
    assert_eq!(split, on_cpu);
    assert!(0 < vram && vram < size, "{vram} of {size} bytes");
    assert!(
        server.log().contains("1 of 2 layers run on"),
        "{}",
        server.log()
    );
    let (automatic, size, vram) = answer(&server, -1).await;
    assert_eq!(automatic, on_cpu);
    assert!(vram <= size);
}

#[tokio::test]
async fn memory_that_is_to_stay_free_is_left_alone() {
    let all = (u64::from(u32::MAX) << 20).to_string();
    let variables = [
        ("OLLAMA_WGPU_DEVICE", "llvmpipe"),
        ("OLLAMA_GPU_OVERHEAD", all.as_str()),
    ];
    let server = Server::start(&variables);
    server.create("m", &models::path("tiny/tiny-llama-f32.gguf"));
    assert_eq!(answer(&server, -1).await.2, 0);
}
