//! The server over a real socket, by number of clients: tokens per second of all together, time to
//! the first token, time between tokens. Prints a Markdown table a model, and below it what a
//! format, a shared beginning and the server itself cost.
//!
//! `cargo bench --bench server -- [PART_OF_A_MODEL'S_NAME] [TOKENS=64]`; models are those of
//! `scripts/models.sh`, the device that of `OLLAMA_WGPU_BENCH_DEVICE` (the CPU by default).

mod arguments;
mod device_work;
#[path = "../kernels-tests/models.rs"]
mod models;
#[allow(dead_code, reason = "the tests ask it more")]
#[path = "../kernels-tests/server.rs"]
mod server;

use std::time::{Duration, Instant};

use arguments::Arguments;
use device_work::{DeviceWork, processor_seconds};
use futures_util::future::{join_all, select_all};
use serde_json::{Value, json};
use server::Server;
use tokio::sync::Barrier;

const CLIENTS: [usize; 4] = [1, 2, 4, 8];

/// What a client saw of its stream.
#[derive(Clone)]
struct Seen {
    first: Duration,
    gaps: Vec<Duration>,
    arrivals: Vec<Instant>,
    n_tokens: usize,
    prompt_ms: f64,
}

/// Clients and the seeds with which their answers do not end early.
struct Clients<'a> {
    server: &'a Server,
    n_tokens: usize,
    seeds: Vec<usize>,
}

impl Clients<'_> {
    /// Looks for seeds; a seed gives the same tokens whatever else runs.
    async fn find(server: &Server, n: usize, n_tokens: usize) -> Clients<'_> {
        let mut clients = Clients {
            server,
            n_tokens,
            seeds: Vec::new(),
        };
        for client in 0..n {
            let mut seed = client;
            while stream(server, &request(client, seed, n_tokens), None)
                .await
                .n_tokens
                < n_tokens
            {
                seed += n;
            }
            clients.seeds.push(seed);
        }
        clients
    }

    async fn stream(&self, client: usize, n: usize, begun: Option<&Barrier>) -> Seen {
        stream(self.server, &request(client, self.seeds[client], n), begun).await
    }
}

/// A client's request for `n` tokens.
fn request(client: usize, seed: usize, n: usize) -> Value {
    json!({
        "model": "model",
        "raw": true,
        "prompt": format!("Chapter {client}. It was a bright day, and the"),
        "options": { "num_predict": n, "temperature": 0.8, "seed": seed, "num_ctx": 2048 },
    })
}

/// Streams one answer. `begun` is passed when the first piece is there.
async fn stream(server: &Server, request: &Value, begun: Option<&Barrier>) -> Seen {
    let start = Instant::now();
    let url = server.url("/api/generate");
    let sent = reqwest::Client::new().post(url).body(request.to_string());
    let mut response = sent.send().await.expect("an answer begins");
    let (mut arrivals, mut text) = (Vec::new(), Vec::new());
    while let Some(chunk) = response.chunk().await.expect("a chunk") {
        arrivals.push(Instant::now());
        text.extend_from_slice(&chunk);
        if let (1, Some(begun)) = (arrivals.len(), begun) {
            begun.wait().await;
        }
    }
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    let last: Value = serde_json::from_str(text.lines().last().expect("lines")).expect("JSON");
    Seen {
        first: arrivals[0] - start,
        gaps: arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        arrivals,
        n_tokens: last["eval_count"]
            .as_u64()
            .unwrap_or_else(|| panic!("no count in {text}")) as usize,
        prompt_ms: last["prompt_eval_duration"].as_f64().unwrap_or(0.0) / 1e6,
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
async fn measure(clients: &Clients<'_>, n_clients: usize) -> (String, f64) {
    let start = Instant::now();
    let streams = (0..n_clients).map(|client| clients.stream(client, clients.n_tokens, None));
    let seen = join_all(streams).await;
    let n_tokens: usize = seen.iter().map(|s| s.n_tokens).sum();
    let speed = n_tokens as f64 / start.elapsed().as_secs_f64();
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
async fn first_beside_seven(clients: &Clients<'_>) -> f64 {
    let begun = Barrier::new(8);
    let n = 4 * clients.n_tokens;
    let others = join_all((0..7).map(|client| clients.stream(client, n, Some(&begun))));
    let late = async {
        begun.wait().await;
        clients.stream(7, 8, None).await.first
    };
    let (_, first) = tokio::join!(others, late);
    first.as_secs_f64() * 1e3
}

/// What a format costs one client.
struct FormatCost {
    /// Milliseconds between tokens with it.
    gap_ms: f64,
    /// How much longer that is than without: the middle of pairs of answers, one after the other.
    wall: f64,
    /// The same of the processors' time for a token, which nothing else on the machine disturbs.
    processor: Option<f64>,
}

/// Pairs of answers without and with a format.
const FORMAT_PAIRS: usize = 9;

async fn with_format(clients: &Clients<'_>) -> FormatCost {
    let plain = request(0, clients.seeds[0], clients.n_tokens);
    let mut formatted = plain.clone();
    formatted["format"] = json!({
        "type": "object",
        "properties": {
            "title": { "type": "string" },
            "chapters": { "type": "array", "minItems": 20, "items": {
                "type": "object",
                "properties": { "name": { "type": "string" }, "pages": { "type": "integer" } },
                "required": ["name", "pages"],
            } },
        },
        "required": ["title", "chapters"],
    });
    let measure = async |request: &Value| {
        let work = || processor_seconds(clients.server.id(), |_| true);
        let before = work();
        let seen = stream(clients.server, request, None).await;
        let work = work().zip(before).map(|(after, before)| after - before);
        let gap = percentile(seen.gaps.into_iter(), 0.5);
        (gap, work.map(|work| work / seen.n_tokens as f64))
    };
    // The first compiles the schema.
    measure(&formatted).await;
    let mut pairs = Vec::new();
    for _ in 0..FORMAT_PAIRS {
        pairs.push((measure(&plain).await, measure(&formatted).await));
    }
    let middle = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    let processor = pairs.iter().map(|(a, b)| Some(b.1? / a.1? - 1.0)).collect();
    FormatCost {
        gap_ms: middle(pairs.iter().map(|(_, b)| b.0).collect()),
        wall: middle(pairs.iter().map(|(a, b)| b.0 / a.0 - 1.0).collect()),
        processor: Option::<Vec<f64>>::map(processor, middle),
    }
}

/// Milliseconds of the prompt's work for two requests that share a long beginning.
async fn shared_beginning(clients: &Clients<'_>) -> [f64; 2] {
    let beginning = "The lighthouse keeper counted the ships that passed. ".repeat(100);
    let mut times = [0.0; 2];
    for (client, time) in times.iter_mut().enumerate() {
        let mut request = request(client, client, 1);
        let own = request["prompt"].as_str().expect("a text").to_string();
        request["prompt"] = format!("{beginning}{own}").into();
        *time = stream(clients.server, &request, None).await.prompt_ms;
    }
    times
}

/// Decode steps of eight clients that all are being served, and their processor time in seconds: of
/// all the server's threads, and of those that neither compute nor sample. Measured from when all
/// clients have their first token until the first one has its last. None where the system does not
/// count by thread.
async fn served_steps(clients: &Clients<'_>) -> Option<(usize, [f64; 2])> {
    let begun = Barrier::new(9);
    let process = clients.server.id();
    let is_io = |name: &str| name != "model" && !name.starts_with("cpu-");
    let now = || {
        let all = processor_seconds(process, |_| true)?;
        Some((Instant::now(), [all, processor_seconds(process, is_io)?]))
    };
    let n = 4 * clients.n_tokens;
    let streams = (0..8).map(|client| clients.stream(client, n, Some(&begun)));
    let served = async {
        let (first, _, others) = select_all(streams.map(Box::pin)).await;
        let after = now();
        (after, [vec![first], join_all(others).await].concat())
    };
    let begin = async {
        begun.wait().await;
        now()
    };
    let (before, (after, seen)) = tokio::join!(begin, served);
    let ((begin, before), (end, after)) = (before?, after?);
    // The last one to begin has nothing to catch up with: it gets a piece a step.
    let last = seen.iter().max_by_key(|seen| seen.arrivals[0]);
    let arrivals = last.map_or(&[][..], |seen| &seen.arrivals);
    let n_steps = arrivals.iter().filter(|at| (begin..end).contains(at));
    Some((n_steps.count(), [0, 1].map(|i| after[i] - before[i])))
}

/// What the server adds to the device's work on decode steps of eight clients, as a share of that:
/// HTTP, JSON, tokenizer, sampler, scheduler, and threads that wait awake; and the part of the
/// threads that neither compute nor sample. Medians of five turns with the device alone.
async fn own_cost(clients: &Clients<'_>, name: &str, device: &str) -> Option<[f64; 2]> {
    let mut alone = DeviceWork::load(&models::path(name), device, 8, 4 * clients.n_tokens);
    let mut shares = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        let (n_steps, [all, io]) = served_steps(clients).await?;
        let device = alone.decode_seconds(n_steps)?;
        shares[0].push((all - device) / device);
        shares[1].push(io / device);
    }
    Some(shares.map(|mut turns| {
        turns.sort_by(f64::total_cmp);
        turns[2]
    }))
}

#[tokio::main]
async fn main() {
    let mut arguments = Arguments::read();
    let wanted: String = arguments.next(String::new(), "smollm2".into());
    let n = arguments.next(64, 4);
    let device = std::env::var("OLLAMA_WGPU_BENCH_DEVICE").unwrap_or_else(|_| "cpu".into());
    for name in models::REAL.iter().filter(|name| name.contains(&wanted)) {
        let server = Server::start(&[
            ("OLLAMA_WGPU_DEVICE", &device),
            ("OLLAMA_NUM_PARALLEL", "8"),
        ]);
        server.create("model", &models::path(name));
        // The first request loads the model.
        let clients = Clients::find(&server, 8, n).await;
        println!("\n{name} on {device}, {n} tokens a client\n");
        println!(
            "| clients | tokens/s | times one client | first token p50, ms | p99 | between tokens p50, ms | p99 |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        let mut one = 0.0;
        for n_clients in CLIENTS {
            let (columns, speed) = measure(&clients, n_clients).await;
            if n_clients == 1 {
                one = speed;
            }
            println!(
                "| {n_clients} | {speed:.1} | {:.2} | {columns} |",
                speed / one
            );
        }
        let late = first_beside_seven(&clients).await;
        println!("\nfirst token of an eighth client while seven are served: {late:.0} ms");
        let format = with_format(&clients).await;
        let processor = format.processor.map_or_else(String::new, |cost| {
            format!(", processors' time {:+.1} %", 100.0 * cost)
        });
        println!(
            "between tokens with a JSON schema: {:.2} ms, {:+.1} %{processor}",
            format.gap_ms,
            100.0 * format.wall
        );
        let [first, second] = shared_beginning(&clients).await;
        println!(
            "a prompt of 1,000 tokens: {first:.0} ms; sharing all but its end: {second:.0} ms"
        );
        if let Some(shares) = own_cost(&clients, name, &device).await {
            let [all, io] = shares.map(|share| 100.0 * share);
            println!(
                "the server itself at 8 clients: {all:+.1} % of a decode step's processor time; threads for HTTP {io:.1} %"
            );
        }
    }
}
