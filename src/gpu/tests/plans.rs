//! The plans whose launches the tests look at: every op, type and shape that chooses a kernel.

use super::experts;
use crate::backend::{
    Activation, Attention, BatchShape, BufferId, BufferInfo, DeltaHeads, EmbedRow, KvDims, Op,
    Phase, Plan, RopeOrder, RopeScaling, RopeTable, Routing, Rows, View, WeightId,
};
use crate::gpu::buffer::{Shard, WeightShape};
use crate::quant::QuantType;
use crate::quant::device::DeviceLayout;

/// Columns of every matrix, but for floats that end inside a span.
pub(super) const COLS: usize = 256;
pub(super) const ROWS: usize = 100;

pub(super) fn weight(quant: QuantType, cols: usize, rows: usize, shard_rows: usize) -> WeightShape {
    let shards = (0..rows).step_by(shard_rows).map(|first_row| Shard {
        first_row,
        rows: shard_rows.min(rows - first_row),
    });
    WeightShape {
        name: quant.name().into(),
        rows,
        n_experts: 1,
        parts_per_expert: 1,
        layout: DeviceLayout::new(quant, cols),
        shards: shards.collect(),
    }
}

pub(super) fn plan(shape: BatchShape, buffers: &[(Rows, usize)], ops: Vec<Op>) -> Plan {
    let none = RopeScaling::Linear { factor: 1.0 };
    let infos = buffers.iter().enumerate();
    Plan {
        shape,
        labels: ops.iter().map(|op| op.name().into()).collect(),
        layers: vec![None; ops.len()],
        ops,
        buffers: infos
            .map(|(storage, &(rows, cols))| BufferInfo {
                rows,
                cols,
                storage,
            })
            .collect(),
        rope_tables: vec![RopeTable::new(1e4, 32, &none, None).expect("table"); 2],
        outputs: vec![],
        inputs: vec![],
    }
}

pub(super) fn view(buffer: usize, offset: usize, cols: usize) -> View {
    View {
        buffer: BufferId(buffer),
        offset,
        cols,
    }
}

/// Embedding and products with a weight of one type, whole and in parts, aligned and not.
pub(super) fn weight_plans(shape: BatchShape, quant: QuantType) -> Vec<(Plan, Vec<WeightShape>)> {
    let cols = if quant.is_float() { 250 } else { COLS };
    let product = |offset, cols, bias: Option<usize>, residual: Option<View>| Op::Matmul {
        input: view(0, offset, cols),
        weight: WeightId(0),
        bias: bias.map(WeightId),
        residual,
        out: BufferId(1),
    };
    let embed = |row| Op::Embed {
        weight: WeightId(0),
        row,
        scale: 0.5,
        out: BufferId(1),
    };
    let mut plans = Vec::new();
    for (cols, shard_rows, kind) in [
        (COLS, ROWS, Rows::Tokens),
        (COLS, 64, Rows::Outputs),
        (cols, ROWS, Rows::Tokens),
    ] {
        let weights = vec![
            weight(quant, cols, ROWS, shard_rows),
            weight(QuantType::F32, ROWS, 1, 1),
        ];
        let vectors = [(cols, 1), (cols, ROWS)];
        let vectors = vectors.map(|(cols, rows)| weight(QuantType::F32, cols, rows, rows));
        let weights = [weights, vectors.to_vec()].concat();
        let buffers = [(kind, 3 * COLS), (kind, ROWS), (kind, ROWS), (kind, cols)];
        let ops = vec![
            product(0, cols, None, None),
            product(1, cols, Some(1), Some(view(2, 0, ROWS))),
        ];
        plans.push((plan(shape, &buffers, ops), weights.clone()));
        let gated = vec![
            product(0, cols, Some(1), None),
            Op::Glu {
                gate: view(1, ROWS / 2, ROWS / 2),
                up: view(1, 0, ROWS / 2),
                activation: Activation::Silu,
                out: BufferId(2),
            },
        ];
        let norm = Op::RmsNorm {
            input: view(0, 0, cols),
            weight: Some(WeightId(2)),
            group: cols,
            eps: 1e-5,
            out: BufferId(3),
        };
        let of_norm = Op::Matmul {
            input: view(3, 0, cols),
            weight: WeightId(0),
            bias: Some(WeightId(1)),
            residual: None,
            out: BufferId(1),
        };
        let normed = vec![norm.clone(), of_norm.clone()];
        plans.push((plan(shape, &buffers, normed), weights.clone()));
        let normed_gated = vec![norm, of_norm, gated[1].clone()];
        plans.push((plan(shape, &buffers, normed_gated), weights.clone()));
        plans.push((plan(shape, &buffers, gated), weights.clone()));
        plans.push((beside_plan(shape, cols), weights.clone()));
        let buffers = [(Rows::Tokens, 1), (Rows::Tokens, cols)];
        let rows = [EmbedRow::Token, EmbedRow::Position, EmbedRow::Fixed(1)];
        let embeds = rows.map(embed).into();
        plans.push((plan(shape, &buffers, embeds), weights));
    }
    plans.push(experts::products(shape, quant, cols));
    plans.push(experts::runs(shape, quant, cols));
    plans
}

fn attention(
    (head_dim, value_dim): (usize, usize),
    group: usize,
    window: Option<usize>,
    soft_cap: Option<f32>,
) -> Op {
    Op::Attention {
        attention: Attention {
            layer: 0,
            q: view(0, 0, 2 * group * head_dim),
            n_heads: 2 * group,
            n_kv_heads: 2,
            head_dim,
            value_dim,
            scale: 0.125,
            causal: true,
            window,
            soft_cap,
            sinks: window.map(|_| WeightId(0)),
            alibi: None,
        },
        out: BufferId(1),
    }
}

/// As encoders attend.
fn both_ways(mut op: Op, biases: Option<f32>) -> Op {
    if let Op::Attention { attention, .. } = &mut op {
        attention.causal = false;
        attention.alibi = biases;
    }
    op
}

/// All ops without a quantised weight.
pub(super) fn other_plans(shape: BatchShape) -> Vec<(Plan, Vec<WeightShape>, KvDims)> {
    let mut plans = Vec::new();
    for (dims, group) in [
        ((64, 64), 3),
        ((80, 80), 5),
        ((128, 128), 8),
        ((256, 256), 4),
        ((256, 256), 1),
        ((192, 128), 2),
        ((576, 512), 16),
    ] {
        let (head_dim, value_dim) = dims;
        let wide = 2 * group * head_dim;
        let buffers = [(Rows::Tokens, 2 * wide), (Rows::Tokens, wide)];
        let mut ops = vec![
            attention(dims, group, None, None),
            attention(dims, group, Some(512), Some(50.0)),
            Op::KvWrite {
                layer: 0,
                k: view(0, 0, 2 * head_dim),
                v: view(0, 2 * head_dim, 2 * value_dim),
            },
        ];
        if shape.phase == Phase::Prefill {
            ops.push(both_ways(attention(dims, group, None, None), Some(8.0)));
            ops.push(both_ways(attention(dims, group, Some(512), None), None));
        }
        let kv = KvDims {
            keys: 2 * head_dim,
            values: 2 * value_dim,
        };
        let sinks = weight(QuantType::F32, 2 * group, 1, 1);
        plans.push((plan(shape, &buffers, ops), vec![sinks], kv));
        for order in [RopeOrder::Norm, RopeOrder::Neox] {
            plans.push((rope_kv_plan(shape, dims, group, order), vec![], kv));
            let scales = weight(QuantType::F32, head_dim, 1, 1);
            let plan = norm_rope_kv_plan(shape, dims, group, order);
            plans.push((
                attended(plan.clone(), dims, group),
                vec![scales.clone()],
                kv,
            ));
            plans.push((plan, vec![scales], kv));
            let plan = attended(rope_kv_plan(shape, dims, group, order), dims, group);
            plans.push((plan, vec![], kv));
        }
    }
    plans.push((
        recurrent_plan(shape),
        vec![weight(QuantType::F32, 4 * 512, 1, 1)],
        KvDims::default(),
    ));
    plans.push((
        experts::others(shape),
        vec![weight(QuantType::F32, 64, 1, 1)],
        KvDims { keys: 8, values: 8 },
    ));
    for rows in [Rows::Tokens, Rows::Outputs] {
        plans.push((
            rowwise_plan(shape, rows),
            vec![weight(QuantType::F32, 64, 1, 1)],
            KvDims { keys: 8, values: 8 },
        ));
    }
    plans
}

/// Queries and keys that are turned, keys that are then stored.
pub(super) fn rope_kv_plan(
    shape: BatchShape,
    (head_dim, value_dim): (usize, usize),
    group: usize,
    order: RopeOrder,
) -> Plan {
    let (q_cols, k_cols, v_cols) = (2 * group * head_dim, 2 * head_dim, 2 * value_dim);
    let rope = |input, out| Op::Rope {
        input,
        head_dim,
        table: 1,
        order,
        out: BufferId(out),
    };
    let ops = vec![
        rope(view(0, 0, q_cols), 1),
        rope(view(0, q_cols, k_cols), 2),
        Op::KvWrite {
            layer: 0,
            k: view(2, 0, k_cols),
            v: view(0, q_cols + k_cols, v_cols),
        },
    ];
    let tokens = |cols| (Rows::Tokens, cols);
    let buffers = [
        tokens(q_cols + k_cols + v_cols),
        tokens(q_cols),
        tokens(k_cols),
    ];
    plan(shape, &buffers, ops)
}

/// As [`rope_kv_plan`], with norms of the heads before.
pub(super) fn norm_rope_kv_plan(
    shape: BatchShape,
    dims: (usize, usize),
    group: usize,
    order: RopeOrder,
) -> Plan {
    let mut plan = rope_kv_plan(shape, dims, group, order);
    let n_given = plan.buffers.len();
    let mut ops = Vec::new();
    for (i, mut op) in plan.ops.drain(..).enumerate() {
        if let Op::Rope { input, .. } = &mut op {
            let out = BufferId(n_given + i);
            ops.push(Op::RmsNorm {
                input: *input,
                weight: Some(WeightId(0)),
                group: dims.0,
                eps: 1e-5,
                out,
            });
            *input = view(out.0, 0, input.cols);
        }
        ops.push(op);
    }
    let tokens = |i: usize| (plan.buffers[i].rows, plan.buffers[i].cols);
    let buffers = [0, 1, 2, 1, 2].map(tokens);
    self::plan(shape, &buffers, ops)
}

/// A plan that ends in a kv_write, with attention behind it.
pub(super) fn attended(mut plan: Plan, dims: (usize, usize), group: usize) -> Plan {
    let mut op = attention(dims, group, None, None);
    if let Op::Attention { attention, out } = &mut op {
        attention.q = view(1, 0, attention.q.cols);
        *out = BufferId(plan.buffers.len());
    }
    plan.ops.push(op);
    let buffers = plan.buffers.iter().map(|b| (b.rows, b.cols));
    let result = (Rows::Tokens, 2 * group * dims.1);
    let buffers: Vec<_> = buffers.chain([result]).collect();
    self::plan(plan.shape, &buffers, plan.ops)
}

/// Two products of one norm, with the weights 0 and 1 of [`weight_plans`], and a choice of experts by a third one's
/// result: all but the last need nothing of each other.
pub(super) fn beside_plan(shape: BatchShape, cols: usize) -> Plan {
    let product = |weight, out| Op::Matmul {
        input: view(1, 0, cols),
        weight: WeightId(weight),
        bias: None,
        residual: None,
        out: BufferId(out),
    };
    let ops = vec![
        Op::RmsNorm {
            input: view(0, 0, cols),
            weight: Some(WeightId(2)),
            group: cols,
            eps: 1e-5,
            out: BufferId(1),
        },
        product(0, 2),
        product(3, 3),
        Op::MoeRoute {
            scores: view(3, 0, ROWS),
            bias: None,
            factors: None,
            routing: Routing::softmax(4, true),
            out: BufferId(4),
        },
        Op::SoftCap {
            input: view(2, 0, ROWS),
            cap: 30.0,
            out: BufferId(5),
        },
    ];
    let buffers = [cols, cols, ROWS, ROWS, 8, ROWS].map(|n| (Rows::Tokens, n));
    plan(shape, &buffers, ops)
}

pub(super) const DELTA_HEADS: DeltaHeads = DeltaHeads {
    n_heads: 4,
    n_key_heads: 2,
    head_dim: 64,
    grouped: true,
};

fn recurrent_plan(shape: BatchShape) -> Plan {
    let conv = |silu| Op::ShortConv {
        state: 0,
        input: view(0, 512, 512),
        weight: WeightId(0),
        kernel: 4,
        silu,
        out: BufferId(1),
    };
    let delta = |grouped| Op::DeltaNet {
        state: 1,
        qkv: view(0, 0, DELTA_HEADS.qkv_dim()),
        alpha: view(1, 0, 4),
        beta: view(1, 4, 4),
        decay: WeightId(0),
        bias: WeightId(0),
        heads: DeltaHeads {
            grouped,
            ..DELTA_HEADS
        },
        eps: 1e-6,
        out: BufferId(2),
    };
    let buffers = [
        (Rows::Tokens, 1024),
        (Rows::Tokens, 512),
        (Rows::Tokens, DELTA_HEADS.out_dim()),
    ];
    let ops = vec![conv(false), conv(true), delta(false), delta(true)];
    plan(shape, &buffers, ops)
}

fn rowwise_plan(shape: BatchShape, rows: Rows) -> Plan {
    let (input, out) = (view(0, 0, 512), BufferId(1));
    let half = |i: usize| view(0, 512 * i, 512);
    let rope = |order| Op::Rope {
        input,
        head_dim: 128,
        table: 1,
        order,
        out,
    };
    let glu = |activation| Op::Glu {
        gate: half(0),
        up: half(1),
        activation,
        out,
    };
    let layer_norm = |weight: Option<WeightId>, group| Op::LayerNorm {
        input,
        weight,
        bias: weight,
        group,
        eps: 1e-5,
        out,
    };
    let mut ops = vec![
        layer_norm(Some(WeightId(0)), 64),
        layer_norm(None, 512),
        Op::Scale {
            input,
            factor: 0.5,
            out,
        },
        Op::RmsNorm {
            input,
            weight: Some(WeightId(0)),
            group: 64,
            eps: 1e-6,
            out,
        },
        Op::RmsNorm {
            input,
            weight: Some(WeightId(0)),
            group: 512,
            eps: 1e-5,
            out,
        },
        Op::RmsNorm {
            input,
            weight: Some(WeightId(0)),
            group: 64,
            eps: 1e-5,
            out: BufferId(5),
        },
        Op::Glu {
            gate: half(0),
            up: view(5, 0, 512),
            activation: Activation::GeluErf,
            out,
        },
        rope(RopeOrder::Norm),
        rope(RopeOrder::Neox),
        Op::Add {
            a: half(0),
            b: half(1),
            out,
        },
        Op::SoftCap {
            input,
            cap: 30.0,
            out,
        },
        Op::SelectRows {
            input: view(2, 0, 512),
            out: BufferId(3),
        },
        Op::Pool {
            input: view(2, 0, 512),
            out: BufferId(3),
        },
        Op::TopK {
            input: view(4, 0, 50_000),
            k: 128,
        },
    ];
    for activation in [
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Identity,
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::ReluSquared,
        Activation::ClampedSwish,
    ] {
        ops.push(glu(activation));
        ops.push(Op::Activate {
            input,
            activation,
            out,
        });
    }
    let buffers = [
        (rows, 1024),
        (rows, 512),
        (Rows::Tokens, 512),
        (Rows::Outputs, 512),
        (rows, 50_000),
        (rows, 512),
    ];
    plan(shape, &buffers, ops)
}
