//! Cases of ops that one launch does on a GPU, and of launches that it does side by side.

use ollama_wgpu::backend::*;
use ollama_wgpu::quant::QuantType;

use crate::case::{Case, Weight};
use crate::cases::rows;
use crate::file::{File, Random};

/// Columns of the input, and of what products make.
const COLS: usize = 256;
const MADE: usize = 96;

/// What is done to an input of `COLS` and `MADE` columns, with these weights.
type Record = fn(&mut PlanBuilder, View) -> View;

/// `[MADE, COLS]`, of two types.
const FIRST: WeightId = WeightId(1);
const SECOND: WeightId = WeightId(2);
/// `[1, COLS]`, `[1, MADE]` and `[1, 32]`
const SCALES: WeightId = WeightId(3);
const BIAS: WeightId = WeightId(4);
const HEAD_SCALES: WeightId = WeightId(5);
/// Three experts of `[MADE, COLS]`.
const EXPERTS: WeightId = WeightId(6);
/// `[3, COLS]`
const ROUTER: WeightId = WeightId(7);

/// All of them.
pub fn all(cases: &mut Vec<Case>) {
    let table: &[(&str, Record)] = &[
        ("matmul, activate", |b, x| {
            let made = b.matmul(x.columns(0, COLS), FIRST, Some(BIAS), None);
            b.activate(made, Activation::GeluTanh)
        }),
        ("rms_norm, matmul, activate clamped", |b, x| {
            let normed = b.rms_norm(x.columns(0, COLS), SCALES, 1e-5);
            let made = b.matmul(normed, FIRST, Some(BIAS), None);
            b.activate(made, Activation::ClampedSwish)
        }),
        ("matmul, glu with another", |b, x| {
            let gate = b.matmul(x.columns(0, COLS), FIRST, Some(BIAS), None);
            b.glu(gate, x.columns(COLS, MADE), Activation::GeluTanh)
        }),
        ("matmul, scale, add", |b, x| {
            let made = b.matmul(x.columns(0, COLS), FIRST, Some(BIAS), None);
            let scaled = b.scale(made, 0.22);
            b.add(x.columns(COLS, MADE), scaled)
        }),
        // The sum alone is scaled.
        ("matmul, add, scale", |b, x| {
            let made = b.matmul(x.columns(0, COLS), FIRST, None, None);
            let sum = b.add(x.columns(COLS, MADE), made);
            b.scale(sum, 0.22)
        }),
        ("rms_norm, add, scale", |b, x| {
            let normed = b.rms_norm(x.columns(0, MADE), BIAS, 1e-5);
            let sum = b.add(x.columns(COLS, MADE), normed);
            b.scale(sum, -0.7)
        }),
        ("rms_norm and a bias", |b, x| {
            let normed = b.rms_norm(x.columns(0, COLS), SCALES, 1e-5);
            let bias = b.repeat(SCALES, normed);
            b.add(normed, bias)
        }),
        ("rms_norm of heads, glu", |b, x| {
            let normed = b.rms_norm(x.columns(0, MADE), HEAD_SCALES, 1e-5);
            b.glu(x.columns(COLS, MADE), normed, Activation::Silu)
        }),
        ("products of one norm side by side", |b, x| {
            let normed = b.rms_norm(x.columns(0, COLS), SCALES, 1e-5);
            let first = b.matmul(normed, FIRST, Some(BIAS), None);
            let second = b.matmul(normed, SECOND, None, None);
            b.glu(first, second, Activation::Identity)
        }),
        // The router stands beside the first product, the choice beside the second.
        ("experts beside a block of their own", |b, x| {
            let input = b.scale(x.columns(0, COLS), 0.3);
            let shared = b.matmul(input, FIRST, None, None);
            let shared = b.activate(shared, Activation::Silu);
            let sum = b.add(x.columns(COLS, MADE), shared);
            let scores = b.matmul(input, ROUTER, None, None);
            let route = b.moe_route(scores, None, Routing::softmax(2, true));
            let made = b.matmul_experts(ExpertProducts {
                input,
                slot_stride: 0,
                route: Some(route),
                n_used: 2,
                weight: EXPERTS,
                bias: None,
            });
            let made = b.activate(made, Activation::ReluSquared);
            b.moe_combine(made, route, Some(sum))
        }),
        ("rope, scale and norm side by side", |b, x| {
            let turned = b.rope(x.columns(0, MADE), 32, 0, RopeOrder::Neox);
            let scaled = b.scale(x.columns(MADE, MADE), 2.0);
            let normed = b.plain_rms_norm(x.columns(2 * MADE, MADE), 32, 1e-6);
            let sum = b.add(turned, scaled);
            b.glu(sum, normed, Activation::Sigmoid)
        }),
    ];
    for &(name, record) in table {
        for (phase, n) in [(Phase::Decode, 1), (Phase::Decode, 9), (Phase::Prefill, 5)] {
            cases.push(case(name, record, phase, n));
        }
    }
}

fn case(name: &str, record: Record, phase: Phase, n: usize) -> Case {
    let mut r = Random::new((name.len() + n) as u64);
    let mut file = File::default();
    let source = COLS + MADE;
    file.floats("source", n, source, &r.floats(n * source));
    file.random("first", QuantType::Q5_K, MADE, COLS, &mut r);
    file.random("second", QuantType::Q8_0, MADE, COLS, &mut r);
    for (name, columns) in [("scales", COLS), ("bias", MADE), ("head scales", 32)] {
        file.floats(name, 1, columns, &r.floats(columns));
    }
    file.random("experts", QuantType::Q4_0, 3 * MADE, COLS, &mut r);
    file.floats("router", 3, COLS, &r.floats(3 * COLS));
    Case {
        name: format!("{name} x {n} {phase:?}"),
        file: file.open(),
        weights: vec![
            "source".into(),
            "first".into(),
            "second".into(),
            "scales".into(),
            "bias".into(),
            "head scales".into(),
            Weight::Experts(vec!["experts".into()], 3),
            "router".into(),
        ],
        cache: None,
        steps: vec![rows(phase, n)],
        record: Box::new(move |b| {
            let source = b.embed(WeightId(0), 1.0);
            record(b, source)
        }),
        top_k: None,
    }
}
