//! Runs of ops that one launch does: the time of a small model is that of its launches.
//!
//! A run is taken together where nothing else reads what passes between its ops. In a plan that
//! keeps all buffers every op therefore has launches of its own, and can be compared.

use super::Dispatch;
use std::ops::Range;

use super::matmul::{Halves, Operands};
use super::norm::RmsNorm;
use crate::backend::{BufferId, MAX_RUN, Op};
use crate::gpu::launch::Launch;

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
            [Op::MatmulExperts { .. }, Op::MoeCombine { .. }, ..] => {
                (self.matmul_experts_sum(at)?, 2)
            }
            [Op::RmsNorm { .. }, Op::Matmul { .. }, ..] => return self.normed_products(at),
            [product @ Op::Matmul { .. }, glu @ Op::Glu { .. }, ..] => {
                (self.matmul_glu(product, glu, at + 1, None)?, 2)
            }
            [norm @ Op::RmsNorm { .. }, add @ Op::Add { .. }, ..] => {
                (self.rms_norm_add(norm, add, at + 1)?, 2)
            }
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

    fn rms_norm_add(&self, norm: &Op, add: &Op, reader: usize) -> Result<Option<Launch>, String> {
        let (
            &Op::RmsNorm {
                input,
                weight,
                group,
                eps,
                out: normed,
            },
            &Op::Add { a, b, out },
        ) = (norm, add)
        else {
            unreachable!("called for rms_norm, add");
        };
        let (residual, added) = if a.buffer == normed { (b, a) } else { (a, b) };
        if added.buffer != normed
            || residual.buffer == normed
            || added.cols != input.cols
            || !self.is_read_by(normed, reader)
        {
            return Ok(None);
        }
        if let Some(id) = weight {
            self.weight(id)?;
        }
        let norm = RmsNorm {
            input,
            weight,
            group,
            eps,
        };
        Ok(Some(self.rms_norm(&norm, Some(residual), out)))
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
            launches.push(self.matmul_vec(&operands, shape, 0, None, Some(&norm)));
        }
        let n_ops = 1 + launches.len();
        if launches.is_empty() || !self.is_read_within(normed, at + 1..at + n_ops) {
            return Ok(None);
        }
        scales.map(|id| self.weight(id)).transpose()?;
        if let ([product], Some(glu @ Op::Glu { .. })) = (&ops[at + 1..at + n_ops], ops.get(at + 2))
            && let Some(launch) = self.matmul_glu(product, glu, at + 2, Some(&norm))?
        {
            return Ok(Some(Fused::one(launch, 3)));
        }
        Ok(Some(Fused { launches, n_ops }))
    }

    /// Where both halves of a gated activation come from one product of a few rows, of a norm's
    /// result if there is one.
    fn matmul_glu(
        &self,
        product: &Op,
        glu: &Op,
        reader: usize,
        norm: Option<&RmsNorm>,
    ) -> Result<Option<Launch>, String> {
        let (
            &Op::Matmul {
                input,
                weight,
                bias,
                residual: None,
                out: product,
            },
            &Op::Glu {
                gate,
                up,
                activation,
                out,
            },
        ) = (product, glu)
        else {
            return Ok(None);
        };
        let shape = self.matrix(weight, input.cols)?;
        let from_product = gate.buffer == product && up.buffer == product;
        if !from_product
            || self.is_tiled(out)
            || shape.shards.len() > 1
            || !self.is_read_by(product, reader)
        {
            return Ok(None);
        }
        self.weight(bias.unwrap_or(weight))?;
        let operands = Operands {
            input: norm.map_or(input, |norm| norm.input),
            weight,
            bias,
            residual: None,
            out,
        };
        let halves = Halves {
            n_columns: gate.cols,
            gate_row: gate.offset,
            up_row: up.offset,
            activation,
        };
        Ok(Some(self.matmul_vec(
            &operands,
            shape,
            0,
            Some(halves),
            norm,
        )))
    }
}
