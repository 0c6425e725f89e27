//! The server over a real socket, by number of clients: tokens per second of all together, time to
//! the first token, time between tokens. Prints a Markdown table a model.
//!
//! `cargo bench --bench server -- [PART_OF_A_MODEL'S_NAME] [TOKENS=64]`; models are those of
//! `scripts/models.sh`, the device that of `OLLAMA_WGPU_BENCH_DEVICE` (the CPU by default).

#[path = "../kernels-tests/models.rs"]
mod models;
#[allow(dead_code, reason = "the tests ask it more")]
#[path = "../kernels-tests/server.rs"]
mod server;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use server::Server;
use tokio::sync::Barrier;

const CLIENTS: [usize; 4] = [1, 2, 4, 8];

/// What a client saw of its stream.
struct Seen {
    first: Duration,
    gaps: Vec<Duration>,
    n_tokens: u64,
}

/// Streams one answer. `begun` is passed when the first piece is there.
async fn stream(server: &Server, model: &str, client: usize, n: usize, begun: &Barrier) -> Seen {
    let request = json!({
        "model": model,
        "raw": true,
        "prompt": format!("Chapter {client}. It was a bright day, and the"),
        "options": { "num_predict": n, "temperature": 0.8, "seed": client, "num_ctx": 2048 },
    });
    let start = Instant::now();
    let url = server.url("/api/generate");
    let sent = reqwest::Client::new().post(url).body(request.to_string());
    let mut response = sent.send().await.expect("an answer begins");
    let (mut pieces, mut text) = (Vec::new(), Vec::new());
    while let Some(chunk) = response.chunk().await.expect("a chunk") {
        pieces.push(start.elapsed());
        text.extend_from_slice(&chunk);
        if pieces.len() == 1 {
            begun.wait().await;
        }
    }
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    let last: Value = serde_json::from_str(text.lines().last().expect("lines")).expect("JSON");
    Seen {
        first: pieces[0],
        gaps: pieces.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        n_tokens: last["eval_count"]
            .as_u64()
            .unwrap_or_else(|| panic!("no count in {text}")),
    }
}

/// Milliseconds that `share` of the durations do not exceed.
fn percentile(durations: impl Iterator<Item = Duration>, share: f64) -> f64 {
    let mut sorted: Vec<Duration> = durations.collect();
    sorted.sort();
    let i = (sorted.len() as f64 * share).ceil() as usize;
    sorted[i.clamp(1, sorted.len()) - 1].as_secs_f64() * 1e3
}

/// One line of the table, and tokens per second.
async fn clients(server: &Server, model: &str, n_clients: usize, n: usize) -> (String, f64) {
    let begun = Barrier::new(1);
    let start = Instant::now();
    let streams = (0..n_clients).map(|client| stream(server, model, client, n, &begun));
    let seen = join_all(streams).await;
    let speed = seen.iter().map(|s| s.n_tokens).sum::<u64>() as f64 / start.elapsed().as_secs_f64();
    let firsts = || seen.iter().map(|s| s.first);
    let gaps = || seen.iter().flat_map(|s| s.gaps.iter().copied());
    let columns = format!(
        "{:.0} | {:.0} | {:.1} | {:.1}",
        percentile(firsts(), 0.5),
        percentile(firsts(), 0.99),
        percentile(gaps(), 0.5),
        percentile(gaps(), 0.99)
    );
    (columns, speed)
}

/// Milliseconds to the first token of a client that comes while seven others are being served.
async fn first_beside_seven(server: &Server, model: &str, n: usize) -> f64 {
    let begun = Barrier::new(8);
    let others = join_all((0..7).map(|client| stream(server, model, client, 4 * n, &begun)));
    let late = async {
        begun.wait().await;
        stream(server, model, 7, 8, &Barrier::new(1)).await.first
    };
    let (_, first) = tokio::join!(others, late);
    first.as_secs_f64() * 1e3
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let wanted = args.next().unwrap_or_default();
    let n = args
        .next()
        .map_or(64, |n| n.parse().expect("a number of tokens"));
    let device = std::env::var("OLLAMA_WGPU_BENCH_DEVICE").unwrap_or_else(|_| "cpu".into());
    for name in models::REAL.iter().filter(|name| name.contains(&wanted)) {
        let server = Server::start(&[
            ("OLLAMA_WGPU_DEVICE", &device),
            ("OLLAMA_NUM_PARALLEL", "8"),
        ]);
        server.create("model", &models::path(name));
        // The first request loads the model.
        clients(&server, "model", 1, n).await;
        println!("\n{name} on {device}, {n} tokens a client\n");
        println!(
            "| clients | tokens/s | times one client | first token p50, ms | p99 | between tokens p50, ms | p99 |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        let mut one = 0.0;
        for n_clients in CLIENTS {
            let (columns, speed) = clients(&server, "model", n_clients, n).await;
            if n_clients == 1 {
                one = speed;
            }
            println!(
                "| {n_clients} | {speed:.1} | {:.2} | {columns} |",
                speed / one
            );
        }
        let late = first_beside_seven(&server, "model", n).await;
        println!("\nfirst token of an eighth client while seven are served: {late:.0} ms");
    }
}
