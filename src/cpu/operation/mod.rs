//! The operations of a plan: each finds its operands and hands them to a kernel.

mod rows;
mod tokens;

use super::attention;
use super::buffer::{Buffer, Matrix};
use super::cache::LayerCache;
use super::low_rank::Update;
use super::pool::{Pool, PoolError};
use super::recurrent::DeltaNet;
use super::rowwise::{SoftCap, each_row};
use super::simd::InstructionSet;
use super::step::{Storages, vector};
use super::top_k::top_k;
use crate::backend::{Batch, Candidates, MAX_RUN, Op, Plan, View, WeightId, WeightSpec};

/// One operation that is to run, and all that it may read and write.
pub struct Operation<'a> {
    pub isa: InstructionSet,
    pub pool: &'a mut Pool,
    pub weights: &'a [WeightSpec],
    pub vectors: &'a [Option<Vec<f32>>],
    pub updates: &'a [Option<Update>],
    pub layers: &'a mut [LayerCache],
    pub states: &'a mut [Buffer],
    /// Memory for inputs of products that are not used as they are.
    pub changed: &'a mut [Buffer; MAX_RUN],
    pub plan: &'a Plan,
    pub batch: &'a Batch,
    /// Of each table, `[n_tokens, half_dim, 2]`.
    pub angles: &'a [Vec<f32>],
    pub storages: &'a Storages<'a>,
    /// Rows of the output; of the input where there is no output.
    pub n_rows: usize,
    pub cols: usize,
    /// `[n_rows, cols]`
    pub out: &'a mut [f32],
}

impl<'a> Operation<'a> {
    /// Runs it; `candidates` are replaced by what [`Op::TopK`] finds.
    ///
    /// # Errors
    /// Those of the pool.
    pub fn run(self, op: &Op, candidates: &mut Vec<Candidates>) -> Result<(), PoolError> {
        match *op {
            Op::Embed {
                weight, row, scale, ..
            } => self.embed(weight, row, scale),
            Op::SelectRows { input, .. } => self.select_rows(input),
            Op::RmsNorm {
                input,
                weight,
                group,
                eps,
                ..
            } => self.rms_norm(input, weight, group, eps),
            Op::LayerNorm {
                input,
                weight,
                bias,
                group,
                eps,
                ..
            } => self.layer_norm(input, weight, bias, group, eps),
            Op::Matmul { .. } => unreachable!("`run_products` runs these"),
            Op::MoeRoute {
                scores,
                bias,
                factors,
                routing,
                ..
            } => self.moe_route(scores, bias, factors, routing),
            Op::MatmulExperts { ref products, .. } => self.matmul_experts(products),
            Op::MoeCombine {
                experts,
                route,
                residual,
                ..
            } => self.moe_combine(experts, route, residual),
            Op::ConcatHeads { n_heads, a, b, .. } => self.concat_heads(n_heads, [Some(a), b]),
            Op::Rope {
                input,
                head_dim,
                table,
                order,
                ..
            } => self.rope(input, head_dim, table, order),
            Op::KvWrite { layer, k, v } => {
                let (k, v) = (self.view(k), self.view(v));
                attention::kv_write(self.isa, &mut self.layers[layer], self.batch, k, v);
                Ok(())
            }
            Op::Attention { ref attention, .. } => self.attention(attention),
            Op::Pool { input, .. } => self.pool_tokens(input),
            Op::ShortConv {
                state,
                input,
                weight,
                kernel,
                silu,
                ..
            } => self.short_conv(state, input, weight, kernel, silu),
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
                    qkv: self.view(qkv),
                    alpha: self.view(alpha),
                    beta: self.view(beta),
                    decay: self.vector(decay),
                    bias: self.vector(bias),
                    heads,
                    eps,
                };
                self.delta_net(state, &op)
            }
            Op::Glu {
                gate,
                up,
                activation,
                ..
            } => self.glu(gate, up, activation),
            Op::Activate {
                input, activation, ..
            } => self.map(input, activation),
            Op::Scale { input, factor, .. } => self.scale(input, factor),
            Op::Add { a, b, .. } => self.add(a, b),
            Op::AddLowRank {
                sum,
                down,
                up,
                ref blocks,
                scale,
                ..
            } => self.add_low_rank(sum, down, up, blocks, scale),
            Op::StreamMix {
                streams,
                others,
                mix,
                plus,
                width,
                ..
            } => self.stream_mix(streams, others, mix, plus, width),
            Op::MatchLength { input, like, .. } => self.match_length(input, like),
            Op::GaussianTopK { input, cutoff, .. } => self.gaussian_top_k(input, cutoff),
            Op::SoftCap { input, cap, .. } => self.map(input, SoftCap(cap)),
            Op::TopK { input, k } => {
                let input = self.view(input);
                *candidates = top_k(self.isa, self.pool, input, self.n_rows, k)?;
                Ok(())
            }
        }
    }

    /// The columns of a buffer that a view shows.
    fn view(&self, view: View) -> Matrix<'a> {
        let info = self.plan.buffers[view.buffer.0];
        let floats = self.storages.floats(info.storage);
        Matrix::new(floats, info.cols, view.offset, view.cols)
    }

    /// The numbers of a norm's weight or a bias.
    fn vector(&self, id: WeightId) -> &'a [f32] {
        vector(self.vectors, id)
    }

    /// Calls `f` with each row of the output.
    fn each_row(self, f: impl Fn(usize, &mut [f32]) + Sync) -> Result<(), PoolError> {
        each_row(self.pool, self.cols, self.out, f)
    }
}
