//! Products of a plan that follow each other and do not feed each other: they share one fork of the
//! threads, as query, key and value do where their types differ, or a weight and its adapter's.

use super::CpuBackend;
use super::buffer::{Buffer, Matrix, Shared};
use super::matmul::{self, Product, matmul_all, prepare};
use super::plan::Prepared;
use super::pool::PoolError;
use super::step::{Storages, vector};
use super::weight::WeightRows;
use crate::backend::{MAX_RUN, Op, Plan, Rows, View};

/// How many ops from `at` on are such products; none where op `at` is no product.
pub fn products_at(plan: &Plan, at: usize) -> usize {
    let run = &plan.ops[at..plan.ops.len().min(at + MAX_RUN)];
    let joins = |i: usize| match &run[i] {
        Op::Matmul { .. } if i == 0 => true,
        op @ Op::Matmul { .. } => {
            let feeds = |earlier: &Op| op.inputs().any(|view| Some(view.buffer) == earlier.out());
            !run[..i].iter().any(feeds)
        }
        _ => false,
    };
    (0..run.len()).take_while(|&i| joins(i)).count()
}

impl CpuBackend {
    /// Runs the products of a plan from op `at` on, as many as [`products_at`] says.
    pub(super) fn run_products(
        &mut self,
        prepared: &mut Prepared,
        at: usize,
        n_products: usize,
    ) -> Result<(), PoolError> {
        let ops = &prepared.plan.ops[at..at + n_products];
        let buffers = &prepared.plan.buffers;
        let (n_tokens, n_outputs) = (prepared.n_tokens, prepared.n_outputs);
        let mut storages = Storages {
            kept: &mut prepared.kept,
            scratch: &mut self.scratch,
        };
        // The results are no operand's storage and each in its own: see `MAX_RUN`.
        let infos = || ops.iter().filter_map(Op::out).map(|out| buffers[out.0]);
        let mut taken: Vec<Buffer> = infos()
            .map(|info| std::mem::take(storages.get(info.storage)))
            .collect();
        let view = |view: View| {
            let info = buffers[view.buffer.0];
            let floats = storages.floats(info.storage);
            Matrix::new(floats, info.cols, view.offset, view.cols)
        };
        let result = (|| {
            let mut products = Vec::with_capacity(n_products);
            let mut outs = Vec::with_capacity(n_products);
            let operands = ops.iter().zip(infos()).zip(&mut taken);
            for (((op, info), out), changed) in operands.zip(&mut self.changed) {
                let &Op::Matmul {
                    input,
                    weight,
                    bias,
                    residual,
                    ..
                } = op
                else {
                    unreachable!("`products_at` counts products");
                };
                let n_rows = match info.rows {
                    Rows::Tokens => n_tokens,
                    Rows::Outputs => n_outputs,
                };
                if n_rows == 0 {
                    continue;
                }
                outs.push(Shared::new(&mut out.floats_mut()[..n_rows * info.cols]));
                let weight = WeightRows::new(&self.weights[weight.0]);
                let input = view(input);
                let (isa, pool) = (self.isa, &mut self.pool);
                let input = prepare(isa, pool, weight.quant, input, n_rows, changed)?;
                products.push(Product {
                    weight,
                    input,
                    rows: matmul::Rows::All(n_rows),
                    bias: bias.map(|id| vector(&self.vectors, id)),
                    residual: residual.map(view),
                });
            }
            matmul_all(self.isa, &mut self.pool, &products, |i| &outs[i])
        })();
        for (info, taken) in infos().zip(taken) {
            *storages.get(info.storage) = taken;
        }
        result
    }
}
