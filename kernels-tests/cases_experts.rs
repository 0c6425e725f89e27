//! Cases of experts and of heads with matrices of their own.

use std::sync::Arc;

use ollama_wgpu::backend::*;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::quant::QuantType;

use crate::case::{Case, Weight};
use crate::cases::rows;
use crate::file::{File, Random};

/// All of them, products with matrices of these types.
pub fn all(cases: &mut Vec<Case>, types: &[QuantType]) {
    route(cases);
    combine(cases);
    heads(cases);
    for &quant in types {
        let runs = [(Phase::Decode, 1), (Phase::Prefill, 3)];
        for run in runs {
            products(cases, quant, Sizes::new(5, 2, 7, 256), run, &[Way::Joined]);
        }
    }
    let ways = [Way::Joined, Way::EachSlot, Way::InOrder];
    for (quant, sizes, n) in [
        (QuantType::F16, Sizes::new(3, 3, 33, 40), 9),
        (QuantType::F16, Sizes::new(1, 1, 5, 7), 2),
        (QuantType::F16, Sizes::new(64, 8, 4, 32), 40),
        (QuantType::Q8_0, Sizes::new(4, 2, 130, 96), 67),
        // About half of the experts get more tokens than the CPU takes for few.
        (QuantType::Q4_K, Sizes::new(16, 2, 37, 512), 67),
    ] {
        for run in [(Phase::Decode, 1), (Phase::Decode, 3), (Phase::Prefill, n)] {
            products(cases, quant, sizes, run, &ways);
        }
        // What one launch does for single tokens.
        for run in [(Phase::Decode, 1), (Phase::Decode, 3)] {
            products(cases, quant, sizes, run, &[Way::Gated, Way::Combined]);
        }
    }
}

/// A case over one table `source`, of which every token takes a row.
fn case(
    name: String,
    phase: Phase,
    n: usize,
    file: &Arc<Gguf>,
    weights: Vec<Weight>,
    record: impl Fn(&mut PlanBuilder, View) -> View + Send + Sync + 'static,
) -> Case {
    let mut all = vec!["source".into()];
    all.extend(weights);
    Case {
        name: format!("{name} x {n} {phase:?}"),
        file: Arc::clone(file),
        weights: all,
        cache: None,
        steps: vec![rows(phase, n)],
        record: Box::new(move |b| {
            let source = b.embed(WeightId(0), 1.0);
            record(b, source)
        }),
        top_k: None,
    }
}

const RUNS: [(Phase, usize); 4] = [
    (Phase::Decode, 1),
    (Phase::Decode, 4),
    (Phase::Prefill, 5),
    (Phase::Prefill, 70),
];

fn route(cases: &mut Vec<Case>) {
    let plain = Routing::softmax(2, false);
    let sigmoid = Routing {
        gating: Gating::Sigmoid,
        normalise: true,
        scale: 2.5,
        ..plain
    };
    let table = [
        ("softmax", 4, false, plain),
        ("softmax all", 3, false, Routing::softmax(3, false)),
        ("softmax normalised", 128, false, Routing::softmax(8, true)),
        (
            "sigmoid",
            1,
            false,
            Routing {
                n_used: 1,
                normalise: false,
                scale: 1.0,
                ..sigmoid
            },
        ),
        ("sigmoid bias", 60, true, sigmoid),
        (
            "groups",
            64,
            true,
            Routing {
                n_groups: 8,
                n_groups_used: 3,
                n_used: 6,
                ..sigmoid
            },
        ),
        (
            "groups of one",
            6,
            false,
            Routing {
                n_groups: 6,
                n_groups_used: 4,
                ..sigmoid
            },
        ),
        (
            "softmax of chosen",
            32,
            false,
            Routing {
                gating: Gating::SoftmaxOfChosen,
                n_used: 4,
                ..plain
            },
        ),
        ("most", 512, false, Routing::softmax(10, true)),
    ];
    for (name, n_experts, bias, routing) in table {
        for (phase, n) in RUNS {
            let mut r = Random::new((n_experts + n) as u64);
            let mut file = File::default();
            // Steps of 1/8 make ties common.
            let scores = r.floats(n * (n_experts + 1));
            let scores: Vec<f32> = scores.iter().map(|s| (s * 32.0).round() / 8.0).collect();
            file.floats("source", n, n_experts + 1, &scores);
            file.floats("bias", 1, n_experts, &r.floats(n_experts));
            file.floats("factors", 1, n_experts, &r.floats(n_experts));
            let file = file.open();
            // Numbers and weights apart, since errors are measured by the size of all results.
            for (what, first) in [("numbers", 0), ("weights", routing.n_used)] {
                let record = move |b: &mut PlanBuilder, x: View| {
                    let scores = x.columns(1, n_experts);
                    // Both or neither.
                    let (factors, bias) = match bias {
                        true => (Some(WeightId(2)), Some(WeightId(1))),
                        false => (None, None),
                    };
                    let route = b.moe_route_by(scores, bias, factors, routing);
                    let half = Heads {
                        view: route.columns(first, routing.n_used),
                        stride: 0,
                        width: routing.n_used,
                    };
                    b.concat_heads(1, half, None)
                };
                let name = format!("moe_route {name} of {n_experts}, {what}");
                let vectors = vec!["bias".into(), "factors".into()];
                cases.push(case(name, phase, n, &file, vectors, record));
            }
        }
    }
}

fn combine(cases: &mut Vec<Case>) {
    for (n_used, cols, residual) in [(1, 5, false), (2, 64, true), (8, 37, true)] {
        for (phase, n) in RUNS {
            let mut r = Random::new((n_used + n) as u64);
            let mut file = File::default();
            let source = n_used * cols + 2 * n_used + cols;
            file.floats("source", n, source, &r.floats(n * source));
            let record = move |b: &mut PlanBuilder, x: View| {
                let experts = x.columns(cols, n_used * cols);
                let route = x.columns((n_used + 1) * cols, 2 * n_used);
                b.moe_combine(experts, route, residual.then_some(x.columns(0, cols)))
            };
            let name = format!("moe_combine {n_used} of {cols} residual {residual}");
            cases.push(case(name, phase, n, &file.open(), vec![], record));
        }
    }
}

fn heads(cases: &mut Vec<Case>) {
    for (phase, n) in RUNS {
        let mut r = Random::new(n as u64);
        let mut file = File::default();
        file.floats("source", n, 100, &r.floats(n * 100));
        let file = file.open();
        let joined = |b: &mut PlanBuilder, x: View| {
            let a = Heads {
                view: x.columns(3, 50),
                stride: 10,
                width: 7,
            };
            let one = Heads {
                view: x.columns(60, 9),
                stride: 0,
                width: 9,
            };
            b.concat_heads(5, a, Some(one))
        };
        cases.push(case(
            "concat_heads two".into(),
            phase,
            n,
            &file,
            vec![],
            joined,
        ));
        let single = |b: &mut PlanBuilder, x: View| {
            let a = Heads {
                view: x.columns(5, 95),
                stride: 19,
                width: 11,
            };
            b.concat_heads(5, a, None)
        };
        cases.push(case(
            "concat_heads one".into(),
            phase,
            n,
            &file,
            vec![],
            single,
        ));
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    n_experts: usize,
    n_used: usize,
    rows: usize,
    cols: usize,
}

impl Sizes {
    fn new(n_experts: usize, n_used: usize, rows: usize, cols: usize) -> Sizes {
        Sizes {
            n_experts,
            n_used,
            rows,
            cols,
        }
    }
}

/// How products are asked for.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By a route, with matrices and biases joined within each expert, one input for all slots.
    Joined,
    /// By a route, one matrix, an input for each slot.
    EachSlot,
    /// All experts in order, an input for each.
    InOrder,
    /// As joined, of which one half gates the other.
    Gated,
    /// As for each slot, weighted and added to what was there before.
    Combined,
}

fn products(
    cases: &mut Vec<Case>,
    quant: QuantType,
    s: Sizes,
    (phase, n): (Phase, usize),
    ways: &[Way],
) {
    let Sizes {
        n_experts,
        n_used,
        rows,
        cols,
    } = s;
    let mut r = Random::new((n_experts * rows + cols + n) as u64);
    let mut file = File::default();
    let inputs = n_experts.max(n_used) * cols;
    let source = n_experts + inputs;
    file.floats("source", n, source, &r.floats(n * source));
    for name in ["gate", "up"] {
        file.random(name, quant, n_experts * rows, cols, &mut r);
        let biases = r.floats(n_experts * rows);
        file.floats(&format!("{name} bias"), n_experts, rows, &biases);
    }
    let file = file.open();
    let names = |a: &str, b: &str| vec![a.into(), b.into()];
    let weights = vec![
        Weight::Experts(names("gate", "up"), n_experts),
        Weight::Biases(names("gate bias", "up bias"), n_experts),
        Weight::Experts(vec!["up".into()], n_experts),
    ];
    for &way in ways {
        let record = move |b: &mut PlanBuilder, x: View| {
            let scores = x.columns(0, n_experts);
            // Weights that are sums would depend on the order in which a device adds them.
            let routing = Routing {
                gating: Gating::Sigmoid,
                ..Routing::softmax(n_used, false)
            };
            let products = |route, weight, bias| ExpertProducts {
                input: x.columns(n_experts, inputs),
                slot_stride: cols,
                route,
                n_used: route.map_or(n_experts, |_| n_used),
                weight: WeightId(weight),
                bias,
            };
            let products = match way {
                Way::Joined | Way::Gated => ExpertProducts {
                    slot_stride: 0,
                    ..products(
                        Some(b.moe_route(scores, None, routing)),
                        1,
                        Some(WeightId(2)),
                    )
                },
                Way::EachSlot | Way::Combined => {
                    products(Some(b.moe_route(scores, None, routing)), 3, None)
                }
                Way::InOrder => products(None, 3, None),
            };
            let made = b.matmul_experts(products);
            match way {
                Way::Joined | Way::EachSlot | Way::InOrder => made,
                Way::Gated => {
                    let width = n_used * rows;
                    let (gate, up) = (made.columns(0, width), made.columns(width, width));
                    b.glu(gate, up, Activation::ClampedSwish)
                }
                Way::Combined => {
                    let before = x.columns(n_experts, rows);
                    b.moe_combine(made, products.route.expect("routed"), Some(before))
                }
            }
        };
        let quant = quant.name();
        let name =
            format!("matmul_experts {quant} {way:?} [{n_experts}, {rows}, {cols}] used {n_used}");
        cases.push(case(name, phase, n, &file, weights.clone(), record));
    }
}
