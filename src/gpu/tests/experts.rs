//! Plans of experts and heads.

use super::plans::{COLS, ROWS, plan, view, weight};
use crate::backend::{
    Activation, BatchShape, BufferId, ExpertProducts, Gating, Heads, Op, Plan, Routing, Rows,
    WeightId,
};
use crate::gpu::buffer::WeightShape;
use crate::quant::QuantType;

/// Products with a weight of eight experts in parts that cut through them, routed and in order.
pub fn products(shape: BatchShape, quant: QuantType, cols: usize) -> (Plan, Vec<WeightShape>) {
    let product = |route, slot_stride: usize, bias: Option<usize>| Op::MatmulExperts {
        products: ExpertProducts {
            input: view(0, 0, 8 * cols),
            slot_stride,
            route,
            n_used: 8,
            weight: WeightId(0),
            bias: bias.map(WeightId),
        },
        out: BufferId(1),
    };
    let experts = WeightShape {
        n_experts: 8,
        parts_per_expert: 2,
        ..weight(quant, cols, 8 * ROWS, 3 * ROWS / 2)
    };
    let weights = vec![experts, weight(QuantType::F32, 8 * ROWS, 1, 1)];
    let buffers = [
        (Rows::Tokens, 8 * COLS),
        (Rows::Tokens, 8 * ROWS),
        (Rows::Tokens, 16),
    ];
    let ops = vec![
        product(Some(view(2, 0, 16)), 0, Some(1)),
        product(None, cols, None),
    ];
    (plan(shape, &buffers, ops), weights)
}

/// The two runs of ops that one launch does for single tokens: products that gate each other, products that are
/// combined.
pub fn runs(shape: BatchShape, quant: QuantType, cols: usize) -> (Plan, Vec<WeightShape>) {
    let product = |weight, out, bias: Option<usize>| Op::MatmulExperts {
        products: ExpertProducts {
            input: view(0, 0, cols),
            slot_stride: 0,
            route: Some(view(1, 0, 8)),
            n_used: 4,
            weight: WeightId(weight),
            bias: bias.map(WeightId),
        },
        out: BufferId(out),
    };
    let experts = |parts_per_expert| WeightShape {
        n_experts: 8,
        parts_per_expert,
        ..weight(quant, cols, 8 * ROWS, 8 * ROWS)
    };
    let weights = vec![
        experts(2),
        experts(1),
        weight(QuantType::F32, 8 * ROWS, 1, 1),
    ];
    let half = 2 * ROWS;
    let buffers = [COLS, 8, 2 * half, half, 4 * ROWS, ROWS].map(|n| (Rows::Tokens, n));
    let ops = vec![
        product(0, 2, Some(2)),
        Op::Glu {
            gate: view(2, 0, half),
            up: view(2, half, half),
            activation: Activation::Silu,
            out: BufferId(3),
        },
        product(1, 4, Some(2)),
        Op::MoeCombine {
            experts: view(4, 0, 4 * ROWS),
            route: view(1, 0, 8),
            residual: Some(view(0, 0, ROWS)),
            out: BufferId(5),
        },
    ];
    (plan(shape, &buffers, ops), weights)
}

/// Ops of experts without their weights.
pub fn others(shape: BatchShape) -> Plan {
    let out = BufferId(1);
    let route = |gating, bias: Option<usize>, n_groups: usize| Op::MoeRoute {
        scores: view(0, 0, 64),
        bias: bias.map(WeightId),
        factors: bias.map(WeightId),
        routing: Routing {
            gating,
            n_used: 6,
            n_groups,
            n_groups_used: n_groups.min(2),
            normalise: true,
            scale: 2.5,
        },
        out,
    };
    let combine = |residual| Op::MoeCombine {
        experts: view(0, 0, 128),
        route: view(0, 128, 4),
        residual,
        out: BufferId(2),
    };
    let heads = |offset, stride, width| Heads {
        view: view(0, offset, 128),
        stride,
        width,
    };
    let concat = |b| Op::ConcatHeads {
        n_heads: 4,
        a: heads(0, 32, 8),
        b,
        out: BufferId(2),
    };
    let ops = vec![
        route(Gating::Softmax, None, 1),
        route(Gating::Sigmoid, Some(0), 8),
        route(Gating::SoftmaxOfChosen, None, 1),
        combine(None),
        combine(Some(view(0, 0, 64))),
        concat(None),
        concat(Some(heads(64, 0, 8))),
    ];
    let buffers = [(Rows::Tokens, 256), (Rows::Tokens, 12), (Rows::Tokens, 64)];
    plan(shape, &buffers, ops)
}
