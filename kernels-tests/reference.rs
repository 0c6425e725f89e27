//! The oracle: every op as the plainest loop, in f64 over decoded weights.

mod attention;
mod experts;
mod low_rank;
pub mod sample;
mod streams;

use std::collections::HashMap;
use std::ops::Range;

use ollama_wgpu::backend::*;

use crate::recurrent::{self, States};

/// A backend that is slow and right.
#[derive(Default)]
pub struct Reference {
    weights: Vec<Matrix>,
    cache: Option<CacheSpec>,
    /// Keys and values by (layer, slot).
    keys: HashMap<(usize, u32), Vec<f64>>,
    values: HashMap<(usize, u32), Vec<f64>>,
    /// Recurrent states by (number, slot).
    states: States,
    plans: Vec<Plan>,
    buffers: Vec<Vec<f64>>,
}

struct Matrix {
    rows: usize,
    cols: usize,
    n_experts: usize,
    n_parts: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.cols..][..self.cols]
    }
}

impl Backend for Reference {
    fn device(&self) -> DeviceInfo {
        DeviceInfo {
            name: "f64 reference".into(),
            api: "none".into(),
            is_gpu: false,
            memory_bytes: None,
        }
    }

    fn load(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError> {
        let mut values = Vec::new();
        for (rows, bytes) in weight.parts() {
            let mut decoded = vec![0.0; rows * weight.cols];
            weight.quant.decode(bytes, &mut decoded);
            values.extend(decoded.into_iter().map(f64::from));
        }
        self.weights.push(Matrix {
            rows: weight.rows,
            cols: weight.cols,
            n_experts: weight.n_experts,
            n_parts: weight.parts_per_expert(),
            values,
        });
        Ok(WeightId(self.weights.len() - 1))
    }

    fn alloc_cache(&mut self, cache: &CacheSpec) -> Result<(), BackendError> {
        self.cache = Some(cache.clone());
        Ok(())
    }

    fn prepare(&mut self, plan: Plan) -> Result<PreparedId, BackendError> {
        self.plans.push(plan);
        Ok(PreparedId(self.plans.len() - 1))
    }

    fn run(&mut self, plan: PreparedId, batch: &Batch) -> Result<Vec<Candidates>, BackendError> {
        let plan = self.plans[plan.0].clone();
        self.buffers = vec![Vec::new(); plan.buffers.len()];
        let mut candidates = Vec::new();
        for op in &plan.ops {
            match op {
                Op::TopK { input, k } => candidates = self.top_k(&plan, batch, *input, *k),
                Op::KvWrite { layer, k, v } => self.kv_write(&plan, batch, *layer, *k, *v),
                Op::ShortConv { out, .. } | Op::DeltaNet { out, .. } => {
                    self.buffers[out.0] = self.recur(&plan, batch, op);
                }
                op => {
                    let out = op.out().expect("all other ops write a buffer");
                    self.buffers[out.0] = self.compute(&plan, batch, op);
                }
            }
        }
        Ok(candidates)
    }

    fn write(&mut self, _: PreparedId, _: BufferId, _: &[f32]) -> Result<(), BackendError> {
        Err(BackendError::Invalid("the oracle runs whole plans".into()))
    }

    fn read(
        &mut self,
        plan: PreparedId,
        buffer: BufferId,
        rows: Range<usize>,
    ) -> Result<Vec<f32>, BackendError> {
        let cols = self.plans[plan.0].buffers[buffer.0].cols;
        let values = &self.buffers[buffer.0][rows.start * cols..rows.end * cols];
        Ok(values.iter().map(|&v| v as f32).collect())
    }

    fn decode_equals_prefill(&self) -> bool {
        true
    }
}

impl Reference {
    fn n_rows(&self, plan: &Plan, batch: &Batch, buffer: BufferId) -> usize {
        match plan.buffers[buffer.0].rows {
            Rows::Tokens => batch.n_tokens(),
            Rows::Outputs => batch.outputs.len(),
        }
    }

    /// Row `i` of a view.
    fn row(&self, plan: &Plan, view: View, i: usize) -> &[f64] {
        let cols = plan.buffers[view.buffer.0].cols;
        &self.buffers[view.buffer.0][i * cols + view.offset..][..view.cols]
    }

    fn compute(&self, plan: &Plan, batch: &Batch, op: &Op) -> Vec<f64> {
        let n = self.n_rows(plan, batch, op.out().expect("writes"));
        let row = |view: View, i: usize| self.row(plan, view, i);
        (0..n)
            .flat_map(|i| match *op {
                Op::Embed {
                    weight,
                    row: kind,
                    scale,
                    ..
                } => {
                    let row = match kind {
                        EmbedRow::Token => batch.tokens[i] as usize,
                        EmbedRow::Position => batch.positions[i] as usize,
                        EmbedRow::Fixed(row) => row,
                    };
                    let table = self.weights[weight.0].row(row);
                    table.iter().map(|w| w * f64::from(scale)).collect()
                }
                Op::SelectRows { input, .. } => row(input, batch.outputs[i] as usize).to_vec(),
                Op::RmsNorm {
                    input,
                    weight,
                    group,
                    eps,
                    ..
                } => {
                    let weight = weight.map(|id| self.weights[id.0].row(0));
                    rms_norm(row(input, i), weight, group, eps)
                }
                Op::LayerNorm {
                    input,
                    weight,
                    bias,
                    group,
                    eps,
                    ..
                } => {
                    let vector = |id: WeightId| self.weights[id.0].row(0);
                    let (weight, bias) = (weight.map(vector), bias.map(vector));
                    layer_norm(row(input, i), weight, bias, group, eps)
                }
                Op::Matmul {
                    input,
                    weight,
                    bias,
                    residual,
                    ..
                } => {
                    let x = row(input, i);
                    let w = &self.weights[weight.0];
                    let mut y: Vec<f64> = (0..w.rows).map(|r| dot(w.row(r), x)).collect();
                    if let Some(bias) = bias {
                        add(&mut y, &self.weights[bias.0].values);
                    }
                    if let Some(residual) = residual {
                        add(&mut y, row(residual, i));
                    }
                    y
                }
                Op::MoeRoute {
                    scores,
                    bias,
                    factors,
                    ref routing,
                    ..
                } => {
                    let vector = |id: WeightId| &self.weights[id.0].values[..];
                    let (bias, factors) = (bias.map(vector), factors.map(vector));
                    experts::moe_route(row(scores, i), bias, factors, routing)
                }
                Op::MatmulExperts { ref products, .. } => {
                    let route = products.route.map(|route| row(route, i));
                    let weight = &self.weights[products.weight.0];
                    let bias = products.bias.map(|id| &self.weights[id.0].values[..]);
                    experts::matmul_experts(products, row(products.input, i), route, weight, bias)
                }
                Op::MoeCombine {
                    experts,
                    route,
                    residual,
                    ..
                } => {
                    let residual = residual.map(|r| row(r, i));
                    experts::moe_combine(row(experts, i), row(route, i), residual)
                }
                Op::ConcatHeads { n_heads, a, b, .. } => {
                    let parts = [Some(a), b].into_iter().flatten();
                    let parts: Vec<_> = parts.map(|heads| (heads, row(heads.view, i))).collect();
                    experts::concat_heads(n_heads, &parts)
                }
                Op::Rope {
                    input,
                    head_dim,
                    table,
                    order,
                    ..
                } => {
                    let mut turns = Vec::new();
                    plan.rope_tables[table].append(batch.positions[i], &mut turns);
                    rope(row(input, i), head_dim, &turns, order)
                }
                Op::Attention { attention, .. } => self.attention(plan, batch, &attention, i),
                Op::Pool { input, .. } => {
                    let last = batch.outputs[i] as usize;
                    let same = |r: &usize| batch.sequences[*r] == batch.sequences[last];
                    let rows: Vec<usize> = (0..=last).filter(same).collect();
                    let mut y = vec![0.0; input.cols];
                    rows.iter().for_each(|&r| add(&mut y, row(input, r)));
                    y.iter().map(|y| y / rows.len() as f64).collect()
                }
                Op::Glu {
                    gate,
                    up,
                    activation,
                    ..
                } => {
                    let pairs = row(gate, i).iter().zip(row(up, i));
                    pairs
                        .map(|(&g, &u)| activate(activation, g) * gated(activation, u))
                        .collect()
                }
                Op::Activate {
                    input, activation, ..
                } => {
                    let x = row(input, i).iter();
                    x.map(|&x| activate(activation, x)).collect()
                }
                Op::Scale { input, factor, .. } => {
                    let x = row(input, i).iter();
                    x.map(|x| x * f64::from(factor)).collect()
                }
                Op::Add { a, b, .. } => {
                    let mut y = row(a, i).to_vec();
                    add(&mut y, row(b, i));
                    y
                }
                Op::AddLowRank {
                    sum,
                    down,
                    up,
                    ref blocks,
                    scale,
                    ..
                } => {
                    let mut y = row(sum, i).to_vec();
                    let up = |r| self.weights[up.0].row(r);
                    low_rank::add(&mut y, row(down, i), up, blocks, f64::from(scale));
                    y
                }
                Op::StreamMix {
                    streams,
                    others,
                    mix,
                    plus,
                    width,
                    ..
                } => {
                    let others = (row(others, i), width);
                    streams::stream_mix(row(streams, i), others, row(mix, i), f64::from(plus))
                }
                Op::MatchLength { input, like, .. } => {
                    streams::match_length(row(input, i), row(like, i))
                }
                Op::GaussianTopK { input, cutoff, .. } => {
                    streams::gaussian_top_k(row(input, i), f64::from(cutoff))
                }
                Op::SoftCap { input, cap, .. } => {
                    let cap = f64::from(cap);
                    let capped = row(input, i).iter().map(|x| cap * (x / cap).tanh());
                    capped.collect()
                }
                Op::ShortConv { .. } | Op::DeltaNet { .. } => unreachable!("these have states"),
                Op::KvWrite { .. } | Op::TopK { .. } => unreachable!("these write no buffer"),
            })
            .collect()
    }

    fn kv_write(&mut self, plan: &Plan, batch: &Batch, layer: usize, k: View, v: View) {
        let kv_type = self.cache.as_ref().expect("a cache").kv_type;
        let stored = |row: &[f64]| -> Vec<f64> {
            let half = |x: f32| half::f16::from_f32(x).to_f64();
            let blocks = |of: fn(&[f32]) -> (f32, Vec<f64>)| -> Vec<f64> {
                let row: Vec<f32> = row.iter().map(|&x| x as f32).collect();
                let blocks = row.chunks(KV_BLOCK).map(of);
                blocks
                    .flat_map(|(d, codes)| codes.into_iter().map(move |code| half(d) * code))
                    .collect()
            };
            match kv_type {
                KvType::F32 => row.iter().map(|&x| f64::from(x as f32)).collect(),
                KvType::F16 => row.iter().map(|&x| half(x as f32)).collect(),
                KvType::Q8_0 => blocks(q8_0),
                KvType::Q4_0 => blocks(q4_0),
            }
        };
        for (i, &slot) in batch.slots.iter().enumerate() {
            if slot != NO_SLOT {
                let (key, value) = (stored(self.row(plan, k, i)), stored(self.row(plan, v, i)));
                self.keys.insert((layer, slot), key);
                self.values.insert((layer, slot), value);
            }
        }
    }

    fn recur(&mut self, plan: &Plan, batch: &Batch, op: &Op) -> Vec<f64> {
        let mut states = std::mem::take(&mut self.states);
        let row = |view: View, i: usize| self.row(plan, view, i);
        let vector = |id: WeightId| self.weights[id.0].values.as_slice();
        let out = recurrent::run(batch, op, row, vector, &mut states);
        self.states = states;
        out
    }

    fn top_k(&self, plan: &Plan, batch: &Batch, input: View, k: usize) -> Vec<Candidates> {
        (0..batch.outputs.len())
            .map(|i| {
                let row: Vec<f32> = self.row(plan, input, i).iter().map(|&v| v as f32).collect();
                let mut ids: Vec<u32> = (0..row.len() as u32).collect();
                ids.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
                ids.truncate(k);
                let max = f64::from(row[ids[0] as usize]);
                let sum: f64 = row.iter().map(|&v| (f64::from(v) - max).exp()).sum();
                Candidates {
                    logits: ids.iter().map(|&id| row[id as usize]).collect(),
                    ids,
                    log_sum_exp: (max + sum.ln()) as f32,
                }
            })
            .collect()
    }
}

/// Factor and codes of a block in Q8_0. Rounding is part of the format, so it is done in f32, as
/// the format is defined.
fn q8_0(block: &[f32]) -> (f32, Vec<f64>) {
    let d = block.iter().fold(0f32, |a, x| a.max(x.abs())) / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let code = |x: &f32| f64::from((x * inverse).round());
    (d, block.iter().map(code).collect())
}

/// As [`q8_0`] for Q4_0, whose codes are less eight.
fn q4_0(block: &[f32]) -> (f32, Vec<f64>) {
    let mut furthest = 0f32;
    for &x in block {
        if x.abs() > furthest.abs() {
            furthest = x;
        }
    }
    let d = furthest / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let code = |x: &f32| f64::from((x * inverse + 8.5).floor().min(15.0)) - 8.0;
    (d, block.iter().map(code).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(y: &mut [f64], x: &[f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

fn rms_norm(x: &[f64], weight: Option<&[f64]>, group: usize, eps: f32) -> Vec<f64> {
    x.chunks(group)
        .flat_map(|x| {
            let scale = 1.0 / (dot(x, x) / group as f64 + f64::from(eps)).sqrt();
            let factor = move |i: usize| weight.map_or(scale, |w| scale * w[i]);
            x.iter().enumerate().map(move |(i, x)| x * factor(i))
        })
        .collect()
}

fn layer_norm(
    x: &[f64],
    weight: Option<&[f64]>,
    bias: Option<&[f64]>,
    group: usize,
    eps: f32,
) -> Vec<f64> {
    let mut out = Vec::new();
    for run in x.chunks(group) {
        let mean = run.iter().sum::<f64>() / group as f64;
        let variance = run.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / group as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        out.extend(run.iter().map(|x| (x - mean) * scale));
    }
    for (c, x) in out.iter_mut().enumerate() {
        *x *= weight.map_or(1.0, |w| w[c % w.len()]);
        *x += bias.map_or(0.0, |b| b[c % b.len()]);
    }
    out
}

fn rope(x: &[f64], head_dim: usize, turns: &[f32], order: RopeOrder) -> Vec<f64> {
    let mut out = x.to_vec();
    let half = turns.len() / 2;
    for head in out.chunks_mut(head_dim) {
        for (i, turn) in turns.chunks(2).enumerate() {
            let (cos, sin) = (f64::from(turn[0]), f64::from(turn[1]));
            let (a, b) = match order {
                RopeOrder::Norm => (2 * i, 2 * i + 1),
                RopeOrder::Neox => (i, i + half),
            };
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
    }
    out
}

/// What a gate multiplies.
fn gated(activation: Activation, up: f64) -> f64 {
    let limit = f64::from(Activation::SWISH_LIMIT);
    match activation {
        Activation::ClampedSwish => up.clamp(-limit, limit) + 1.0,
        _ => up,
    }
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Identity => x,
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::ClampedSwish => {
            let y = x.min(f64::from(Activation::SWISH_LIMIT));
            y / (1.0 + (-f64::from(Activation::SWISH_SLOPE) * y).exp())
        }
    }
}

/// The error function by a series whose terms have one sign (Abramowitz and Stegun 1964, 7.1.6),
/// summed until nothing is added; past 6 it is 1 in 53 bits.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    let mut n = 0.0;
    while sum + term != sum {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}
