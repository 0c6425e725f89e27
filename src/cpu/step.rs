//! One step of a prepared plan: one arm per operation.

use super::CpuBackend;
use super::attention::{self, Attention};
use super::buffer::{Buffer, Matrix, OutOfMemory};
use super::experts::{Experts, matmul_experts};
use super::low_rank::{LowRank, add_low_rank};
use super::plan::Prepared;
use super::pool::PoolError;
use super::products::products_at;
use super::recurrent::{self, DeltaNet, ShortConv};
use super::route::{Combine, Route};
use super::rowwise::{self, Glu, LayerNorm, Map, Rope, SoftCap, each_row};
use super::streams::{GaussianTopK, MatchLength, StreamMix};
use super::top_k::top_k;
use super::weight::WeightRows;
use crate::backend::{
    BackendError, Batch, Candidates, EmbedRow, Op, Plan, PreparedId, Rows, View, WeightId,
};

/// The memory of a step: every storage, of the plan or shared.
pub(super) struct Storages<'a> {
    pub kept: &'a mut [Option<Buffer>],
    pub scratch: &'a mut [Buffer],
}

impl Storages<'_> {
    pub fn get(&mut self, i: usize) -> &mut Buffer {
        self.kept[i].as_mut().unwrap_or(&mut self.scratch[i])
    }

    pub fn floats(&self, i: usize) -> &[f32] {
        self.kept[i].as_ref().unwrap_or(&self.scratch[i]).floats()
    }
}

pub(super) fn vector(vectors: &[Option<Vec<f32>>], id: WeightId) -> &[f32] {
    vectors[id.0].as_deref().expect("prepare decoded it")
}

impl CpuBackend {
    /// Runs one step.
    pub(super) fn run_plan(
        &mut self,
        id: PreparedId,
        batch: &Batch,
    ) -> Result<Vec<Candidates>, BackendError> {
        self.check_batch(id, batch)?;
        let mut prepared = std::mem::replace(&mut self.plans[id.0], Prepared::new(EMPTY));
        prepared.n_tokens = batch.n_tokens();
        prepared.n_outputs = batch.outputs.len();
        let result = self.run_ops(&mut prepared, batch);
        self.plans[id.0] = prepared;
        result
    }

    fn run_ops(
        &mut self,
        prepared: &mut Prepared,
        batch: &Batch,
    ) -> Result<Vec<Candidates>, BackendError> {
        self.grow_storages(prepared)?;
        let angles = angles(&prepared.plan, batch);
        let mut candidates = Vec::new();
        let mut i = 0;
        while i < prepared.plan.ops.len() {
            let n_products = products_at(&prepared.plan, i);
            let result = match n_products {
                0 => self.run_op(prepared, i, batch, &angles, &mut candidates),
                n => self.run_products(prepared, i, n),
            };
            result.map_err(|e| self.pool_error(&prepared.plan.labels[i], e))?;
            i += n_products.max(1);
        }
        Ok(candidates)
    }

    /// Makes room for the rows of this batch.
    fn grow_storages(&mut self, prepared: &mut Prepared) -> Result<(), BackendError> {
        if self.scratch.len() < prepared.kept.len() {
            self.scratch
                .resize_with(prepared.kept.len(), Buffer::default);
        }
        for buffer in &prepared.plan.buffers {
            let n_floats = prepared.n_rows(buffer.rows) * buffer.cols;
            let storage = match &mut prepared.kept[buffer.storage] {
                Some(kept) => kept,
                None => &mut self.scratch[buffer.storage],
            };
            let grown = storage.grow_floats(n_floats);
            grown.map_err(|OutOfMemory| self.out_of_memory("activations", 4 * n_floats as u64))?;
        }
        Ok(())
    }

    /// One arm per operation. `angles` are those of each table, `[n_tokens, half_dim, 2]`.
    fn run_op(
        &mut self,
        prepared: &mut Prepared,
        i: usize,
        batch: &Batch,
        angles: &[Vec<f32>],
        candidates: &mut Vec<Candidates>,
    ) -> Result<(), PoolError> {
        let plan = &prepared.plan;
        let op = &plan.ops[i];
        let (isa, pool) = (self.isa, &mut self.pool);
        let mut storages = Storages {
            kept: &mut prepared.kept,
            scratch: &mut self.scratch,
        };
        let rows_of = |rows| match rows {
            Rows::Tokens => batch.n_tokens(),
            Rows::Outputs => batch.outputs.len(),
        };
        let view_rows = |view: View| rows_of(plan.buffers[view.buffer.0].rows);
        // The output is no operand's storage, so it can be taken out while the op runs.
        let out_info = op.out().map(|out| plan.buffers[out.0]);
        let mut taken = out_info.map_or_else(Buffer::default, |info| {
            std::mem::take(storages.get(info.storage))
        });
        let n_rows = out_info.map_or_else(
            || op.inputs().next().map_or(0, view_rows),
            |info| rows_of(info.rows),
        );
        let cols = out_info.map_or(0, |info| info.cols);
        let out = &mut taken.floats_mut()[..n_rows * cols];
        let view = |view: View| {
            let info = plan.buffers[view.buffer.0];
            Matrix::new(
                storages.floats(info.storage),
                info.cols,
                view.offset,
                view.cols,
            )
        };
        let result = match *op {
            _ if n_rows == 0 => Ok(()),
            Op::Embed {
                weight, row, scale, ..
            } => {
                let weight = WeightRows::new(&self.weights[weight.0]);
                each_row(pool, cols, out, |i, out| {
                    let row = match row {
                        EmbedRow::Token => batch.tokens[i] as usize,
                        EmbedRow::Position => batch.positions[i] as usize,
                        EmbedRow::Fixed(row) => row,
                    };
                    rowwise::embed(&weight, row, scale, out);
                })
            }
            Op::SelectRows { input, .. } => {
                let input = view(input);
                each_row(pool, cols, out, |i, out| {
                    out.copy_from_slice(input.row(batch.outputs[i] as usize));
                })
            }
            Op::RmsNorm {
                input,
                weight,
                group,
                eps,
                ..
            } => {
                let weight = weight.map(|id| vector(&self.vectors, id));
                rowwise::rms_norm(isa, pool, view(input), (weight, group), eps, out)
            }
            Op::LayerNorm {
                input,
                weight,
                bias,
                group,
                eps,
                ..
            } => {
                let input = view(input);
                let weight = weight.map(|id| vector(&self.vectors, id));
                let bias = bias.map(|id| vector(&self.vectors, id));
                each_row(pool, cols, out, |i, out| {
                    isa.run(LayerNorm {
                        x: input.row(i),
                        weight,
                        bias,
                        group,
                        eps,
                        out,
                    });
                })
            }
            Op::Matmul { .. } => unreachable!("`run_products` runs these"),
            Op::MoeRoute {
                scores,
                bias,
                factors,
                routing,
                ..
            } => {
                let scores = view(scores);
                let bias = bias.map(|id| vector(&self.vectors, id));
                let factors = factors.map(|id| vector(&self.vectors, id));
                each_row(pool, cols, out, |i, out| {
                    isa.run(Route {
                        scores: scores.row(i),
                        bias,
                        factors,
                        routing,
                        out,
                    });
                })
            }
            Op::MatmulExperts { products: p, .. } => {
                let weight = &self.weights[p.weight.0];
                // One slot of a row at a time.
                let slot = View {
                    cols: weight.cols,
                    ..p.input
                };
                let experts = Experts {
                    weight,
                    input: view(slot),
                    slot_stride: p.slot_stride,
                    route: p.route.map(view),
                    n_used: p.n_used,
                    n_rows,
                    bias: p.bias.map(|id| vector(&self.vectors, id)),
                };
                matmul_experts(isa, pool, &mut self.changed, experts, out)
            }
            Op::MoeCombine {
                experts,
                route,
                residual,
                ..
            } => {
                let (experts, route) = (view(experts), view(route));
                let residual = residual.map(view);
                each_row(pool, cols, out, |i, out| {
                    isa.run(Combine {
                        experts: experts.row(i),
                        route: route.row(i),
                        residual: residual.map(|r| r.row(i)),
                        out,
                    });
                })
            }
            Op::ConcatHeads { n_heads, a, b, .. } => {
                let parts = [Some(a), b].map(|heads| heads.map(|h| (view(h.view), h)));
                each_row(pool, cols, out, |i, out| {
                    rowwise::concat_heads(n_heads, i, &parts, out);
                })
            }
            Op::Rope {
                input,
                head_dim,
                table,
                order,
                ..
            } => {
                let input = view(input);
                let half = plan.rope_tables[table].half_dim();
                each_row(pool, cols, out, |i, out| {
                    let angles = &angles[table][2 * half * i..][..2 * half];
                    isa.run(Rope {
                        x: input.row(i),
                        angles,
                        head_dim,
                        order,
                        out,
                    });
                })
            }
            Op::KvWrite { layer, k, v } => {
                attention::kv_write(isa, &mut self.layers[layer], batch, view(k), view(v));
                Ok(())
            }
            Op::Attention { attention: a, .. } => {
                let op = Attention {
                    q: view(a.q),
                    n_heads: a.n_heads,
                    n_kv_heads: a.n_kv_heads,
                    head_dim: a.head_dim,
                    value_dim: a.value_dim,
                    scale: a.scale,
                    causal: a.causal,
                    window: a.window,
                    soft_cap: a.soft_cap,
                    sinks: a.sinks.map(|id| vector(&self.vectors, id)),
                    alibi: a.alibi,
                };
                attention::attention(isa, pool, &self.layers[a.layer], batch, &op, out)
            }
            Op::Pool { input, .. } => {
                let input = view(input);
                each_row(pool, cols, out, |i, out| {
                    let last = batch.outputs[i] as usize;
                    rowwise::mean(&input, last - batch.positions[last] as usize..=last, out);
                })
            }
            Op::ShortConv {
                state,
                input,
                weight,
                kernel,
                silu,
                ..
            } => {
                let op = ShortConv {
                    input: view(input),
                    weight: vector(&self.vectors, weight),
                    kernel,
                    silu,
                };
                recurrent::short_conv(isa, pool, &mut self.states[state], batch, &op, out)
            }
            Op::DeltaNet {
                state,
                qkv,
                alpha,
                beta,
                decay,
                bias,
                heads,
                eps,
                ..
            } => {
                let op = DeltaNet {
                    qkv: view(qkv),
                    alpha: view(alpha),
                    beta: view(beta),
                    decay: vector(&self.vectors, decay),
                    bias: vector(&self.vectors, bias),
                    heads,
                    eps,
                };
                recurrent::delta_net(isa, pool, &mut self.states[state], batch, &op, out)
            }
            Op::Glu {
                gate,
                up,
                activation,
                ..
            } => {
                let (gate, up) = (view(gate), view(up));
                each_row(pool, cols, out, |i, out| {
                    isa.run(Glu {
                        gate: gate.row(i),
                        up: up.row(i),
                        activation,
                        out,
                    });
                })
            }
            Op::Activate {
                input, activation, ..
            } => {
                let input = view(input);
                each_row(pool, cols, out, |i, out| {
                    isa.run(Map {
                        x: input.row(i),
                        f: activation,
                        out,
                    });
                })
            }
            Op::Scale { input, factor, .. } => {
                let input = view(input);
                each_row(pool, cols, out, |i, out| {
                    rowwise::scale(input.row(i), factor, out)
                })
            }
            Op::Add { a, b, .. } => {
                let (a, b) = (view(a), view(b));
                each_row(pool, cols, out, |i, out| {
                    rowwise::add(a.row(i), b.row(i), out)
                })
            }
            Op::AddLowRank {
                sum,
                down,
                up,
                ref blocks,
                scale,
                ..
            } => {
                let op = LowRank {
                    sum: view(sum),
                    down: view(down),
                    up: self.updates[up.0].as_ref().expect("prepare laid it out"),
                    blocks,
                    scale,
                };
                add_low_rank(isa, pool, &op, out)
            }
            Op::StreamMix {
                streams,
                others,
                mix,
                plus,
                width,
                ..
            } => {
                let (streams, others, mix) = (view(streams), view(others), view(mix));
                each_row(pool, cols, out, |i, out| {
                    isa.run(StreamMix {
                        streams: streams.row(i),
                        others: others.row(i),
                        mix: mix.row(i),
                        plus,
                        width,
                        out,
                    });
                })
            }
            Op::MatchLength { input, like, .. } => {
                let (input, like) = (view(input), view(like));
                each_row(pool, cols, out, |i, out| {
                    isa.run(MatchLength {
                        x: input.row(i),
                        like: like.row(i),
                        out,
                    });
                })
            }
            Op::GaussianTopK { input, cutoff, .. } => {
                let input = view(input);
                each_row(pool, cols, out, |i, out| {
                    isa.run(GaussianTopK {
                        x: input.row(i),
                        cutoff,
                        out,
                    });
                })
            }
            Op::SoftCap { input, cap, .. } => {
                let input = view(input);
                each_row(pool, cols, out, |i, out| {
                    isa.run(Map {
                        x: input.row(i),
                        f: SoftCap(cap),
                        out,
                    });
                })
            }
            Op::TopK { input, k } => top_k(isa, pool, view(input), n_rows, k).map(|found| {
                *candidates = found;
            }),
        };
        if let Some(info) = out_info {
            *storages.get(info.storage) = taken;
        }
        result
    }
}

/// Angles of every token for each table of the plan, `[n_tokens, half_dim, 2]`.
fn angles(plan: &Plan, batch: &Batch) -> Vec<Vec<f32>> {
    let table = |table: &crate::backend::RopeTable| {
        let mut angles = Vec::with_capacity(batch.n_tokens() * 2 * table.half_dim());
        batch
            .positions
            .iter()
            .for_each(|&p| table.append(p, &mut angles));
        angles
    };
    plan.rope_tables.iter().map(table).collect()
}

/// Stands in for a plan while it runs.
const EMPTY: Plan = Plan {
    shape: crate::backend::BatchShape {
        phase: crate::backend::Phase::Decode,
        n_tokens: 0,
        n_outputs: 0,
    },
    ops: Vec::new(),
    labels: Vec::new(),
    layers: Vec::new(),
    buffers: Vec::new(),
    rope_tables: Vec::new(),
    outputs: Vec::new(),
    inputs: Vec::new(),
};
