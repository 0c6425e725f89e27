//! Runs of ops that one launch does: the time of a small model is that of its launches.
//!
//! A run is taken together where nothing else reads what passes between its ops. In a plan that
//! keeps all buffers every op therefore has launches of its own, and can be compared.

use super::Dispatch;
use std::ops::Range;

use super::matmul::{Columns, Halves, Operands};
use super::norm::{Added, RmsNorm};
use crate::backend::{Activation, BufferId, EmbedRow, MAX_RUN, Op};
use crate::gpu::launch::Launch;
use crate::quant::QuantType;

/// Launches that stand for more ops than they are.
pub(super) struct Fused {
    pub launches: Vec<Launch>,
    pub n_ops: usize,
}

impl Fused {
    fn one(launch: Launch, n_ops: usize) -> Fused {
        Fused {
            launches: vec![launch],
            n_ops,
        }
    }
}

impl Dispatch<'_> {
    /// The run of ops that begins at op `at`, if fewer launches do it.
    ///
    /// # Errors
    /// As for the ops alone.
    pub(super) fn fused(&self, at: usize) -> Result<Option<Fused>, String> {
        let (launch, n_ops) = match &self.plan.ops[at..] {
            [Op::Rope { .. }, Op::Rope { .. }, Op::KvWrite { .. }, ..] => (self.rope_kv(at)?, 3),
            [
                Op::RmsNorm { .. },
                Op::Rope { .. },
                Op::RmsNorm { .. },
                Op::Rope { .. },
                Op::KvWrite { .. },
                ..,
            ] => (self.norm_rope_kv(at)?, 5),
            [Op::MatmulExperts { .. }, Op::Glu { .. }, ..] => (self.matmul_experts_glu(at)?, 2),
            [Op::MatmulExperts { .. }, Op::Activate { .. }, ..] => {
                (self.matmul_experts_activate(at)?, 2)
            }
            [Op::MatmulExperts { .. }, Op::MoeCombine { .. }, ..] => {
                (self.matmul_experts_sum(at)?, 2)
            }
            [Op::RmsNorm { .. }, Op::Matmul { .. }, ..] => return self.normed_products(at),
            [Op::Matmul { .. }, ..] => return self.finished_product(at, None),
            [Op::RmsNorm { .. }, ..] => return self.norm_and_more(at),
            _ => (None, 0),
        };
        Ok(launch.map(|launch| Fused::one(launch, n_ops)))
    }

    /// Whether op `reader` alone reads a buffer.
    pub(super) fn is_read_by(&self, buffer: BufferId, reader: usize) -> bool {
        self.is_read_within(buffer, reader..reader + 1)
    }

    /// Whether none but these ops read a buffer.
    fn is_read_within(&self, buffer: BufferId, readers: Range<usize>) -> bool {
        let reads = |op: &Op| op.inputs().any(|view| view.buffer == buffer);
        let mut ops = self.plan.ops.iter().enumerate();
        !self.plan.outputs.contains(&buffer)
            && ops.all(|(i, op)| readers.contains(&i) || !reads(op))
    }

    /// A norm and what becomes of its result: something is added, a vector or a view, and the sum is scaled; or it is
    /// gated.
    fn norm_and_more(&self, at: usize) -> Result<Option<Fused>, String> {
        let ops = &self.plan.ops;
        let Op::RmsNorm {
            input,
            weight,
            group,
            eps,
            out: normed,
        } = ops[at]
        else {
            return Ok(None);
        };
        let (added, sum, mut n_ops) = match ops[at + 1..] {
            [Op::Add { a, b, out }, ..] => {
                let (residual, added) = if a.buffer == normed { (b, a) } else { (a, b) };
                let fits = added == self.whole(normed) && residual.buffer != normed;
                (fits.then_some(Added::View(residual)), out, 2)
            }
            [
                Op::Embed {
                    weight: bias,
                    row: EmbedRow::Fixed(0),
                    scale: 1.0,
                    out: repeated,
                },
                Op::Add { a, b, out },
                ..,
            ] => {
                let fits = a == self.whole(normed)
                    && b == self.whole(repeated)
                    && self.weight(bias)?.layout.quant == QuantType::F32
                    && self.is_read_by(repeated, at + 2);
                (fits.then_some(Added::Vector(bias)), out, 3)
            }
            [
                Op::Glu {
                    gate,
                    up,
                    activation,
                    out,
                },
                ..,
            ] if activation != Activation::ClampedSwish => {
                let fits = up == self.whole(normed) && gate.buffer != normed;
                (fits.then_some(Added::Gate(gate, activation)), out, 2)
            }
            _ => (None, normed, 0),
        };
        let Some(added) = added.filter(|_| self.is_read_by(normed, at + n_ops - 1)) else {
            return Ok(None);
        };
        weight.map(|id| self.weight(id)).transpose()?;
        let (factor, out) = match ops.get(at + n_ops) {
            Some(&Op::Scale { input, factor, out })
                if input == self.whole(sum) && self.is_read_by(sum, at + n_ops) =>
            {
                n_ops += 1;
                (factor, out)
            }
            _ => (1.0, sum),
        };
        let norm = RmsNorm {
            input,
            weight,
            group,
            eps,
        };
        let launch = self.rms_norm(&norm, Some(added), factor, out);
        Ok(Some(Fused::one(launch, n_ops)))
    }

    /// Products with a norm's result that each norm their input on the way: as many as follow the norm at `at` and
    /// each other. One alone may be gated.
    fn normed_products(&self, at: usize) -> Result<Option<Fused>, String> {
        let ops = &self.plan.ops;
        let Op::RmsNorm {
            input,
            weight: scales,
            group,
            eps,
            out: normed,
        } = ops[at]
        else {
            return Ok(None);
        };
        let norm = RmsNorm {
            input,
            weight: scales,
            group,
            eps,
        };
        let mut launches = Vec::new();
        for product in ops[at + 1..].iter().take(MAX_RUN - 1) {
            let &Op::Matmul {
                input: factor,
                weight,
                bias,
                residual,
                out,
            } = product
            else {
                break;
            };
            if factor.buffer != normed {
                break;
            }
            let shape = self.matrix(weight, factor.cols)?;
            if residual.is_some_and(|r| r.buffer == normed)
                || self.is_tiled(out)
                || !self.takes_norm(&norm, factor, shape)
            {
                return Ok(None);
            }
            self.weight(bias.unwrap_or(weight))?;
            let operands = Operands {
                input,
                weight,
                bias,
                residual,
                out,
            };
            launches.push(self.matmul_vec(&operands, shape, 0, Columns::Plain, Some(&norm)));
        }
        let n_ops = 1 + launches.len();
        if launches.is_empty() || !self.is_read_within(normed, at + 1..at + n_ops) {
            return Ok(None);
        }
        scales.map(|id| self.weight(id)).transpose()?;
        if launches.len() == 1
            && let Some(finished) = self.finished_product(at + 1, Some(&norm))?
        {
            return Ok(Some(Fused {
                n_ops: 1 + finished.n_ops,
                ..finished
            }));
        }
        Ok(Some(Fused { launches, n_ops }))
    }

    /// The product of a few rows at op `at`, of a norm's result if there is one, and what becomes of its sums: a gate that
    /// it holds too, an activation, a factor and what is added then.
    fn finished_product(&self, at: usize, norm: Option<&RmsNorm>) -> Result<Option<Fused>, String> {
        let Op::Matmul {
            input,
            weight,
            bias,
            residual: None,
            out: product,
        } = self.plan.ops[at]
        else {
            return Ok(None);
        };
        let whole = self.whole(product);
        let (columns, residual, out, n_ops) = match self.plan.ops[at + 1..] {
            [
                Op::Glu {
                    gate,
                    up,
                    activation,
                    out,
                },
                ..,
            ] if gate.buffer == product && up.buffer == product => {
                let halves = Halves {
                    n_columns: gate.cols,
                    gate_row: gate.offset,
                    up_row: up.offset,
                    activation,
                };
                (Columns::Gated(halves), None, out, 2)
            }
            [
                Op::Glu {
                    gate,
                    up,
                    activation,
                    out,
                },
                ..,
            ] if gate == whole && activation != Activation::ClampedSwish => {
                (Columns::Gating(activation), Some(up), out, 2)
            }
            [
                Op::Activate {
                    input,
                    activation,
                    out,
                },
                ..,
            ] if input == whole => (Columns::Activated(activation), None, out, 2),
            [
                Op::Scale {
                    input,
                    factor,
                    out: scaled,
                },
                Op::Add { a, b, out },
                ..,
            ] if input == whole
                && b == self.whole(scaled)
                && a.buffer != scaled
                && self.is_read_by(scaled, at + 2) =>
            {
                (Columns::Scaled(factor), Some(a), out, 3)
            }
            _ => return Ok(None),
        };
        let shape = self.matrix(weight, input.cols)?;
        let from_elsewhere = residual.is_none_or(|view| view.buffer != product);
        if self.is_tiled(out)
            || shape.shards.len() > 1
            || !from_elsewhere
            || !self.is_read_by(product, at + 1)
        {
            return Ok(None);
        }
        self.weight(bias.unwrap_or(weight))?;
        let operands = Operands {
            input: norm.map_or(input, |norm| norm.input),
            weight,
            bias,
            residual,
            out,
        };
        let launch = self.matmul_vec(&operands, shape, 0, columns, norm);
        Ok(Some(Fused::one(launch, n_ops)))
    }
}
