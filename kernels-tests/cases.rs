//! The table of cases. Odd sizes are in every family: one row, one token, tails, page edges,
//! window edges.

use std::sync::Arc;

use ollama_wgpu::backend::*;
use ollama_wgpu::quant::QuantType;

use crate::case::{Case, Weight};
use crate::encoder;
use crate::file::{File, Random};
use crate::{cases_attention, cases_experts, cases_runs, low_rank, recurrent};

/// All cases; where `OLLAMA_WGPU_TEST_CASES` is set, those whose name contains one of its parts.
pub fn all() -> Vec<Case> {
    of_types(&QuantType::all().collect::<Vec<_>>())
}

/// As [`all`]; of those that are the same for every type, the given ones.
pub fn of_types(types: &[QuantType]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &quant in types {
        embed(&mut cases, quant);
        matmul(&mut cases, quant);
    }
    matmul_glu(&mut cases);
    normed_products(&mut cases);
    cases_runs::all(&mut cases);
    embed_rows(&mut cases);
    rowwise(&mut cases);
    cases_attention::all(&mut cases);
    encoder::all(&mut cases);
    recurrent::cases(&mut cases);
    low_rank::cases(&mut cases);
    top_k(&mut cases);
    cases_experts::all(&mut cases, types);
    if let Ok(parts) = std::env::var("OLLAMA_WGPU_TEST_CASES") {
        cases.retain(|case| parts.split(',').any(|part| case.name.contains(part)));
    }
    cases
}

/// Those whose kernels add over a workgroup, or over lanes of it.
pub fn reductions() -> Vec<Case> {
    let reduces = [
        "rms_norm",
        "layer_norm",
        "match_length",
        "gaussian_top_k",
        "top_k",
        "moe_route",
        "delta_net",
    ];
    let mut cases = of_types(&[QuantType::F16]);
    cases.retain(|case| {
        let is_vector = case.name.contains("matmul") && !case.name.contains("Prefill");
        is_vector || reduces.iter().any(|name| case.name.contains(name))
    });
    cases
}

/// A batch of one sequence whose token `i` is row `i` of the source table.
pub fn rows(phase: Phase, n: usize) -> Batch {
    let tokens: Vec<u32> = (0..n as u32).collect();
    let mut batch = Batch::single(phase, &tokens, 0, Vec::new());
    if phase == Phase::Decode {
        // Decode steps hold one row per sequence.
        batch.sequences = tokens;
        batch.positions = vec![0; n];
        batch.tables = vec![vec![0]; n];
        batch.states = (0..n as u32).collect();
    }
    batch.slots = vec![NO_SLOT; n];
    batch
}

fn embed(cases: &mut Vec<Case>, quant: QuantType) {
    let mut r = Random::new(1);
    let (n_rows, cols) = (5, 256 * 3);
    let mut file = File::default();
    file.random("w", quant, n_rows, cols, &mut r);
    let file = file.open();
    for phase in [Phase::Prefill, Phase::Decode] {
        let mut batch = rows(phase, 3);
        batch.tokens = vec![4, 0, 4];
        cases.push(Case {
            name: format!("embed {} {phase:?}", quant.name()),
            file: Arc::clone(&file),
            weights: vec!["w".into()],
            cache: None,
            steps: vec![batch],
            record: Box::new(|b| b.embed(WeightId(0), 3.5)),
            top_k: None,
        });
    }
}

/// Rows by position, and one row for all.
fn embed_rows(cases: &mut Vec<Case>) {
    for (row, cols) in [(EmbedRow::Position, 96), (EmbedRow::Fixed(2), 45)] {
        let mut file = File::default();
        let mut r = Random::new(cols as u64);
        file.random("w", QuantType::F16, 9, cols, &mut r);
        let file = file.open();
        for phase in [Phase::Prefill, Phase::Decode] {
            let mut batch = rows(phase, 3);
            batch.positions = vec![5, 6, 8];
            cases.push(Case {
                name: format!("embed {row:?} {phase:?}"),
                file: Arc::clone(&file),
                weights: vec!["w".into()],
                cache: None,
                steps: vec![batch],
                record: Box::new(move |b| b.embed_rows(WeightId(0), row, 0.5)),
                top_k: None,
            });
        }
    }
}

/// Types whose products have every size. Sizes matter to a kernel and not to a type, so the others
/// have a few.
const EVERY_SIZE: &[QuantType] = &[
    QuantType::F32,
    QuantType::F16,
    QuantType::Q4_0,
    QuantType::Q8_0,
    QuantType::Q4_K,
    QuantType::Q6_K,
];

/// Rows, columns and tokens of products. Column counts must be whole blocks.
fn matmul_sizes(quant: QuantType) -> Vec<(usize, usize, usize)> {
    if !EVERY_SIZE.contains(&quant) {
        return vec![(7, 512, 1), (33, 768, 3), (65, 512, 9)];
    }
    let block = quant.block_len();
    let mut sizes = vec![
        (1, 256, 1),
        (7, 512, 1),
        (64, 256, 2),
        (33, 768, 3),
        (130, 256, 8),
        (65, 512, 9),
        (96, 256, 33),
    ];
    match block {
        1 => sizes.extend([(5, 1, 1), (9, 37, 5), (70, 129, 40), (3, 30, 70)]),
        32 => sizes.extend([(5, 32, 1), (17, 96, 4), (66, 160, 35), (40, 576, 65)]),
        _ => {}
    }
    sizes
}

fn matmul(cases: &mut Vec<Case>, quant: QuantType) {
    for (i, (n_rows, cols, n)) in matmul_sizes(quant).into_iter().enumerate() {
        for phase in [Phase::Prefill, Phase::Decode] {
            let (bias, residual) = (i % 2 == 1, i % 3 == 1);
            cases.push(product(quant, n_rows, cols, n, phase, bias, residual));
        }
    }
}

fn product(
    quant: QuantType,
    n_rows: usize,
    cols: usize,
    n: usize,
    phase: Phase,
    bias: bool,
    residual: bool,
) -> Case {
    let mut r = Random::new((n_rows * cols + n) as u64);
    let mut file = File::default();
    // The source holds the residual beside the input, so that both are views into wider rows.
    let source = cols + n_rows;
    file.floats("source", n, source, &r.floats(n * source));
    file.random("w", quant, n_rows, cols, &mut r);
    file.floats("bias", 1, n_rows, &r.floats(n_rows));
    Case {
        name: format!(
            "matmul {} [{n_rows}, {cols}] x {n} {phase:?} bias {bias} residual {residual}",
            quant.name()
        ),
        file: file.open(),
        weights: vec!["source".into(), "w".into(), "bias".into()],
        cache: None,
        steps: vec![rows(phase, n)],
        record: Box::new(move |b| {
            let source = b.embed(WeightId(0), 1.0);
            b.matmul(
                source.columns(0, cols),
                WeightId(1),
                bias.then_some(WeightId(2)),
                residual.then_some(source.columns(cols, n_rows)),
            )
        }),
        top_k: None,
    }
}

/// Gates and what they gate as one product, in both orders, with and without bias.
fn matmul_glu(cases: &mut Vec<Case>) {
    let sizes = [(1, 256, 1), (37, 512, 3), (70, 256, 8), (33, 256, 9)];
    for quant in [QuantType::F16, QuantType::Q5_0, QuantType::Q4_K] {
        for (i, (n_columns, cols, n)) in sizes.into_iter().enumerate() {
            for phase in [Phase::Prefill, Phase::Decode] {
                cases.push(gated_product(quant, n_columns, cols, n, phase, i % 2 == 1));
            }
        }
    }
}

fn gated_product(
    quant: QuantType,
    n_columns: usize,
    cols: usize,
    n: usize,
    phase: Phase,
    bias: bool,
) -> Case {
    let mut r = Random::new((n_columns * cols + n) as u64);
    let mut file = File::default();
    // Small inputs, so that activations are neither flat nor straight.
    let source: Vec<f32> = r.floats(n * cols).iter().map(|v| 0.1 * v).collect();
    file.floats("source", n, cols, &source);
    file.random("w", quant, 2 * n_columns, cols, &mut r);
    file.floats("bias", 1, 2 * n_columns, &r.floats(2 * n_columns));
    Case {
        name: format!(
            "matmul_glu {} 2 x [{n_columns}, {cols}] x {n} {phase:?} bias {bias}",
            quant.name()
        ),
        file: file.open(),
        weights: vec!["source".into(), "w".into(), "bias".into()],
        cache: None,
        steps: vec![rows(phase, n)],
        record: Box::new(move |b| {
            let source = b.embed(WeightId(0), 1.0);
            let both = b.matmul(source, WeightId(1), bias.then_some(WeightId(2)), None);
            let (first, second) = (
                both.columns(0, n_columns),
                both.columns(n_columns, n_columns),
            );
            match bias {
                true => b.glu(second, first, Activation::GeluTanh),
                false => b.glu(first, second, Activation::Silu),
            }
        }),
        top_k: None,
    }
}

/// Products of a norm's result, gated or not. Rows differ in size, so that each needs its own norm.
fn normed_products(cases: &mut Vec<Case>) {
    let sizes = [(1, 256, 1), (37, 512, 3), (70, 256, 8), (33, 768, 9)];
    for quant in [QuantType::F16, QuantType::Q5_0, QuantType::Q4_K] {
        for (n_columns, cols, n) in sizes {
            for gated in [false, true] {
                cases.push(normed_product(quant, n_columns, cols, n, gated));
            }
        }
    }
}

fn normed_product(quant: QuantType, n_columns: usize, cols: usize, n: usize, gated: bool) -> Case {
    let mut r = Random::new((n_columns * cols + n) as u64);
    let mut file = File::default();
    let source = r.floats(n * cols).into_iter().enumerate();
    let source: Vec<f32> = source.map(|(i, v)| v * (1 + i / cols) as f32).collect();
    file.floats("source", n, cols, &source);
    file.random("w", quant, 2 * n_columns, cols, &mut r);
    file.floats("bias", 1, 2 * n_columns, &r.floats(2 * n_columns));
    let scales: Vec<f32> = r.floats(cols).iter().map(|v| 0.1 * v).collect();
    file.floats("scales", 1, cols, &scales);
    Case {
        name: format!(
            "rms_norm, matmul {} 2 x [{n_columns}, {cols}] x {n} gated {gated}",
            quant.name()
        ),
        file: file.open(),
        weights: vec!["source".into(), "w".into(), "bias".into(), "scales".into()],
        cache: None,
        steps: vec![rows(Phase::Decode, n)],
        record: Box::new(move |b| {
            let source = b.embed(WeightId(0), 1.0);
            let normed = b.rms_norm(source, WeightId(3), 1e-5);
            let both = b.matmul(normed, WeightId(1), Some(WeightId(2)), None);
            if !gated {
                return both;
            }
            let half = |i| both.columns(i * n_columns, n_columns);
            b.glu(half(0), half(1), Activation::Silu)
        }),
        top_k: None,
    }
}

type Record = fn(&mut PlanBuilder, View) -> View;

fn rowwise(cases: &mut Vec<Case>) {
    let table: &[(&str, usize, Record)] = &[
        ("select_rows", 33, |b, x| b.select_rows(x.columns(1, 31))),
        ("rms_norm whole", 128, |b, x| {
            b.rms_norm(x, WeightId(2), 1e-5)
        }),
        ("rms_norm and add", 320, |b, x| {
            let normed = b.rms_norm(x.columns(0, 128), WeightId(2), 1e-5);
            b.add(x.columns(190, 128), normed)
        }),
        ("rms_norm without weights", 96, |b, x| {
            b.plain_rms_norm(x.columns(32, 64), 32, 1e-6)
        }),
        ("rms_norm per head", 96, |b, x| {
            b.rms_norm(x.columns(32, 64), WeightId(1), 1e-6)
        }),
        ("layer_norm whole", 131, |b, x| {
            let x = x.columns(2, 128);
            b.layer_norm(x, Some(WeightId(2)), Some(WeightId(3)), 128, 1e-5)
        }),
        ("layer_norm without bias", 96, |b, x| {
            b.layer_norm(x.columns(0, 64), Some(WeightId(1)), None, 32, 1e-5)
        }),
        ("layer_norm, a weight per head", 300, |b, x| {
            b.layer_norm(x.columns(40, 256), Some(WeightId(2)), None, 32, 1e-6)
        }),
        ("layer_norm without weight", 99, |b, x| {
            b.layer_norm(x, None, None, 33, 1e-5)
        }),
        ("layer_norm of a long row", 1000, |b, x| {
            b.layer_norm(x, None, None, 1000, 1e-5)
        }),
        ("activate silu", 101, |b, x| {
            b.activate(x.columns(1, 99), Activation::Silu)
        }),
        ("activate gelu_tanh", 64, |b, x| {
            b.activate(x, Activation::GeluTanh)
        }),
        ("activate gelu_erf", 77, |b, x| {
            b.activate(x, Activation::GeluErf)
        }),
        ("activate relu_squared", 40, |b, x| {
            b.activate(x, Activation::ReluSquared)
        }),
        ("activate clamped swish", 71, |b, x| {
            b.activate(x, Activation::ClampedSwish)
        }),
        ("glu clamped swish", 130, |b, x| {
            // Wide enough to meet the bounds.
            let wide = b.scale(x, 2.5);
            let (gate, up) = (wide.columns(1, 64), wide.columns(65, 64));
            b.glu(gate, up, Activation::ClampedSwish)
        }),
        ("scale", 70, |b, x| b.scale(x.columns(3, 64), -0.3)),
        ("rope norm", 96, |b, x| {
            b.rope(x.columns(48, 48), 24, 0, RopeOrder::Norm)
        }),
        ("rope neox", 96, |b, x| {
            b.rope(x.columns(0, 96), 16, 0, RopeOrder::Neox)
        }),
        ("rope neox partial", 80, |b, x| {
            b.rope(x.columns(20, 60), 20, 0, RopeOrder::Neox)
        }),
        ("glu silu", 202, |b, x| {
            b.glu(x.columns(0, 101), x.columns(101, 101), Activation::Silu)
        }),
        ("glu gelu", 64, |b, x| {
            b.glu(x.columns(32, 32), x.columns(0, 32), Activation::GeluTanh)
        }),
        ("glu sigmoid", 64, |b, x| {
            b.glu(x.columns(32, 32), x.columns(0, 32), Activation::Sigmoid)
        }),
        ("glu identity", 64, |b, x| {
            b.glu(x.columns(32, 32), x.columns(0, 32), Activation::Identity)
        }),
        ("glu gelu_erf", 66, |b, x| {
            b.glu(x.columns(1, 33), x.columns(33, 33), Activation::GeluErf)
        }),
        ("add", 70, |b, x| b.add(x.columns(0, 35), x.columns(35, 35))),
        ("soft_cap", 65, |b, x| b.soft_cap(x.columns(1, 64), 2.0)),
        ("stream_mix of four", 205, |b, x| {
            let streams = x.columns(0, 132);
            b.stream_mix(streams, (streams, 33), x.columns(150, 16), 0.0)
        }),
        ("stream_mix of one", 200, |b, x| {
            let (streams, other) = (x.columns(3, 99), x.columns(110, 33));
            b.stream_mix(streams, (other, 33), x.columns(160, 3), 1.0)
        }),
        ("match_length", 170, |b, x| {
            b.match_length(x.columns(1, 105), x.columns(120, 35))
        }),
        ("match_length of nothing", 90, |b, x| {
            let none = b.scale(x.columns(0, 40), 0.0);
            b.match_length(none, x.columns(50, 40))
        }),
        ("gaussian_top_k", 333, |b, x| {
            // Not around zero, and tested with a long row too.
            let x = x.columns(2, 301);
            let shifted = b.activate(x, Activation::Silu);
            b.gaussian_top_k(shifted, 1.5)
        }),
    ];
    for &(name, cols, record) in table {
        for (phase, n) in [
            (Phase::Decode, 1),
            (Phase::Prefill, 5),
            (Phase::Prefill, 67),
        ] {
            cases.push(rowwise_case(name, cols, record, phase, n));
        }
    }
}

fn rowwise_case(name: &str, cols: usize, record: Record, phase: Phase, n: usize) -> Case {
    let mut r = Random::new((cols + n) as u64);
    let mut file = File::default();
    let values: Vec<f32> = r.floats(n * cols).iter().map(|v| 6.0 * v).collect();
    file.floats("source", n, cols, &values);
    file.floats("norm 32", 1, 32, &r.floats(32));
    file.floats("norm 128", 1, 128, &r.floats(128));
    file.floats("bias 128", 1, 128, &r.floats(128));
    let mut batch = rows(phase, n);
    batch.outputs = (0..n as u32).filter(|i| i % 3 == 0).collect();
    if phase == Phase::Prefill {
        // Positions far into a context, in a page table that is long enough.
        batch.positions = (900..900 + n as u32).collect();
        batch.tables = vec![vec![0; 40]];
    }
    Case {
        name: format!("{name} x {n}"),
        file: file.open(),
        weights: ["source", "norm 32", "norm 128", "bias 128"]
            .map(Weight::from)
            .into(),
        cache: None,
        steps: vec![batch],
        record: Box::new(move |b| {
            let source = b.embed(WeightId(0), 1.0);
            record(b, source)
        }),
        top_k: None,
    }
}

pub fn below(r: &mut Random, n: usize) -> usize {
    (r.next() % n as u64) as usize
}

/// Candidates with many ties, over vocabularies smaller and larger than a workgroup.
fn top_k(cases: &mut Vec<Case>) {
    for (n_vocab, k, n) in [
        (1, 1, 1),
        (40, 40, 2),
        (499, 64, 3),
        (5000, 128, 1),
        (70_000, 128, 2),
    ] {
        let mut r = Random::new(n_vocab as u64);
        // Steps of 1/64 make ties common.
        let values: Vec<f32> = (0..n * n_vocab)
            .map(|_| (r.float() * 512.0).round() / 64.0)
            .collect();
        let mut file = File::default();
        file.floats("source", n, n_vocab, &values);
        let mut batch = rows(Phase::Decode, n);
        batch.outputs = (0..n as u32).collect();
        cases.push(Case {
            name: format!("top_k {k} of {n_vocab} x {n}"),
            file: file.open(),
            weights: vec!["source".into()],
            cache: None,
            steps: vec![batch],
            record: Box::new(|b| {
                let x = b.embed(WeightId(0), 1.0);
                b.select_rows(x)
            }),
            top_k: Some(k),
        });
    }
}
