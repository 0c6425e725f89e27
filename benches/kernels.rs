//! The products and attention of a decode step and of prefill, in bytes of weights (or cache)
//! per second, beside the speed at which the same device copies.
//!
//! `cargo bench --bench kernels`; of the types that `OLLAMA_WGPU_BENCH_TYPES` lists (comma-separated), where it is set

mod devices;
#[path = "../kernels-tests/file.rs"]
mod file;

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use file::{File, Random};
use ollama_wgpu::backend::*;
use ollama_wgpu::quant::QuantType;

/// Rows and columns of the products: a feed-forward matrix of a model of about 1B parameters.
const ROWS: usize = 2048;
const COLS: usize = 2048;
/// Bytes of the copy that other figures are compared with: too large for any cache.
const COPY_ROWS: usize = 256;
const COPY_COLS: usize = 65_536;

/// A prepared plan and the batch to run it with.
struct Step {
    backend: Box<dyn Backend>,
    plan: PreparedId,
    batch: Batch,
}

impl Step {
    /// Records `ops` over an embedding of `n` rows of a random table and the weight `w`.
    fn new(
        device: &str,
        phase: Phase,
        n: usize,
        source_cols: usize,
        weight: Option<QuantType>,
        ops: impl FnOnce(&mut PlanBuilder, View),
    ) -> Step {
        let mut r = Random::new(7);
        let mut file = File::default();
        file.floats("source", n, source_cols, &r.floats(n * source_cols));
        if let Some(quant) = weight {
            file.random("w", quant, ROWS, COLS, &mut r);
        }
        let file = file.open();
        let names = ["source", "w"];
        let specs: Vec<WeightSpec> = names[..1 + usize::from(weight.is_some())]
            .iter()
            .map(|name| WeightSpec::join(&file, &[name]).expect("in the file"))
            .collect();
        let mut backend = devices::open(device);
        for spec in &specs {
            backend.load(spec).expect("it fits");
        }
        let shape = BatchShape {
            phase,
            n_tokens: n,
            n_outputs: n,
        };
        let mut builder = PlanBuilder::new(shape, &specs, vec![]);
        let source = builder.embed(WeightId(0), 1.0);
        ops(&mut builder, source);
        let plan = backend.prepare(builder.finish()).expect("a valid plan");
        let tokens: Vec<u32> = (0..n as u32).collect();
        let mut batch = Batch::single(phase, &tokens, 0, tokens.clone());
        batch.slots = vec![NO_SLOT; n];
        Step {
            backend,
            plan,
            batch,
        }
    }

    fn run(&mut self) {
        black_box(self.backend.run(self.plan, &self.batch).expect("it runs"));
    }

    /// Median seconds of a run.
    fn seconds(&mut self) -> f64 {
        self.run();
        let mut times: Vec<f64> = (0..7)
            .map(|_| {
                let start = Instant::now();
                self.run();
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }
}

/// Bytes read per second while rows are copied on the device: the cost of the embedding that
/// feeds the copy is taken off.
fn copy_speed(device: &str) -> f64 {
    let plan = |copies: usize| {
        move |b: &mut PlanBuilder, x: View| {
            for _ in 0..copies {
                let y = b.select_rows(x);
                b.output(y);
            }
        }
    };
    let time = |copies| {
        Step::new(
            device,
            Phase::Prefill,
            COPY_ROWS,
            COPY_COLS,
            None,
            plan(copies),
        )
        .seconds()
    };
    let bytes = (COPY_ROWS * COPY_COLS * 4) as f64;
    2.0 * bytes / (time(3) - time(1)).max(1e-9)
}

fn is_wanted(quant: QuantType) -> bool {
    let listed = std::env::var("OLLAMA_WGPU_BENCH_TYPES").unwrap_or_default();
    let mut names = listed.split(',');
    listed.is_empty() || names.any(|name| name.eq_ignore_ascii_case(quant.name()))
}

fn matmul(c: &mut Criterion) {
    for device in devices::names() {
        let copy = copy_speed(&device);
        println!("{device}: copies {:.2} GB/s", copy / 1e9);
        let mut group = c.benchmark_group(format!("matmul/{device}"));
        group.sample_size(10);
        for quant in QuantType::all().filter(|quant| is_wanted(*quant)) {
            for (phase, n) in [
                (Phase::Decode, 1),
                (Phase::Decode, 8),
                (Phase::Prefill, 128),
            ] {
                let bytes = (ROWS * quant.row_bytes(COLS)) as u64;
                let mut step = Step::new(&device, phase, n, COLS, Some(quant), |b, x| {
                    let y = b.matmul(x, WeightId(1), None, None);
                    b.output(y);
                });
                let speed = bytes as f64 / step.seconds();
                println!(
                    "{device}: {} {phase:?} x {n}: {:.2} GB/s of weights, {:.0} % of the copy speed, {:.1} GFLOP/s",
                    quant.name(),
                    speed / 1e9,
                    100.0 * speed / copy,
                    speed / bytes as f64 * (2 * ROWS * COLS * n) as f64 / 1e9,
                );
                group.throughput(Throughput::Bytes(bytes));
                let id = BenchmarkId::new(format!("{} {phase:?}", quant.name()), n);
                group.bench_function(id, |b| b.iter(|| step.run()));
            }
        }
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
