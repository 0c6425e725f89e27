//! Runs of ops that one launch does: the time of a small model is that of its launches.
//!
//! A run is taken together where nothing else reads what passes between its ops. In a plan that
//! keeps all buffers every op therefore has launches of its own, and can be compared.

use super::matmul::{Halves, Operands};
use super::norm::RmsNorm;
use super::parts::with_cache;
use super::{Dispatch, WORKGROUP, per_number};
use crate::backend::{BufferId, KvDims, MAX_RUN, NO_SLOT, Op, RopeOrder};
use crate::gpu::launch::{Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// A launch that stands for some ops.
pub(super) struct Fused {
    pub launch: Launch,
    pub n_ops: usize,
}

impl Dispatch<'_> {
    /// The run of ops that begins at op `at`, if one kernel does it.
    ///
    /// # Errors
    /// As for the ops alone.
    pub(super) fn fused(&self, at: usize) -> Result<Option<Fused>, String> {
        let (launch, n_ops) = match &self.plan.ops[at..] {
            [
                q @ Op::Rope { .. },
                k @ Op::Rope { .. },
                write @ Op::KvWrite { .. },
                ..,
            ] => (self.rope_kv(q, k, write, at + 2)?, 3),
            [norm @ Op::RmsNorm { .. }, product @ Op::Matmul { .. }, ..] => {
                self.normed_product(norm, product, at)?
            }
            [product @ Op::Matmul { .. }, glu @ Op::Glu { .. }, ..] => {
                (self.matmul_glu(product, glu, at + 1, None)?, 2)
            }
            [norm @ Op::RmsNorm { .. }, add @ Op::Add { .. }, ..] => {
                (self.rms_norm_add(norm, add, at + 1)?, 2)
            }
            _ => (None, 0),
        };
        debug_assert!(n_ops <= MAX_RUN);
        Ok(launch.map(|launch| Fused { launch, n_ops }))
    }

    /// Whether op `reader` alone reads a buffer.
    fn is_read_by(&self, buffer: BufferId, reader: usize) -> bool {
        let reads = |op: &Op| op.inputs().any(|view| view.buffer == buffer);
        let mut ops = self.plan.ops.iter().enumerate();
        !self.plan.outputs.contains(&buffer) && ops.all(|(i, op)| i == reader || !reads(op))
    }

    fn rope_kv(&self, q: &Op, k: &Op, write: &Op, writer: usize) -> Result<Option<Launch>, String> {
        let (
            &Op::Rope {
                input: q,
                head_dim,
                table,
                order,
                out,
            },
            &Op::Rope {
                input: k,
                head_dim: k_head_dim,
                table: k_table,
                order: k_order,
                out: turned_k,
            },
            &Op::KvWrite {
                layer,
                k: stored,
                v,
            },
        ) = (q, k, write)
        else {
            unreachable!("called for rope, rope, kv_write");
        };
        let half = |table: usize| self.plan.rope_tables[table].half_dim();
        let alike = (head_dim, order, half(table)) == (k_head_dim, k_order, half(k_table));
        let whole = stored.buffer == turned_k && stored.cols == k.cols;
        let apart = [k, v]
            .iter()
            .all(|view| ![out, turned_k].contains(&view.buffer));
        if !alike
            || !whole
            || !apart
            || !head_dim.is_multiple_of(4)
            || !self.is_read_by(turned_k, writer)
        {
            return Ok(None);
        }
        let kv = KvDims {
            keys: k.cols,
            values: v.cols,
        };
        let cache = self.layer(layer, kv)?;
        if cache.kv_type.is_quantised() {
            return Ok(None);
        }
        let rows = self.rows(out);
        let shader = with_cache(Shader::new("kernels/rope_kv"), cache.kv_type, kv)
            .number("WG", WORKGROUP)
            .number("Q_COLS", q.cols)
            .number("OUT_STRIDE", self.stride(out))
            .number("NO_SLOT", NO_SLOT as usize)
            .number("HEAD_DIM", head_dim)
            .number("HALF", half(table))
            .number("Q_TABLE", table)
            .number("K_TABLE", k_table)
            .flag("NEOX", order == RopeOrder::Neox);
        let shader = self.view(self.view(self.view(shader, "Q", q), "K", k), "V", v);
        Ok(Some(Launch {
            shader: self.rows_word(shader, rows),
            bindings: vec![
                reads(self.slot(q.buffer)),
                reads(self.slot(k.buffer)),
                reads(self.slot(v.buffer)),
                reads(Slot::Batch),
                writes(self.slot(out)),
                writes(Slot::Keys(layer)),
                writes(Slot::Values(layer)),
            ],
            grid: per_number(q.cols.max(k.cols).max(v.cols) / 4, rows),
        }))
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

    /// A product, gated or not, that norms its input on the way; and the number of ops.
    fn normed_product(
        &self,
        norm: &Op,
        product: &Op,
        at: usize,
    ) -> Result<(Option<Launch>, usize), String> {
        let (
            &Op::RmsNorm {
                input,
                weight: scales,
                group,
                eps,
                out: normed,
            },
            &Op::Matmul {
                input: factor,
                weight,
                bias,
                residual,
                out,
            },
        ) = (norm, product)
        else {
            unreachable!("called for rms_norm, matmul");
        };
        let norm = RmsNorm {
            input,
            weight: scales,
            group,
            eps,
        };
        let shape = self.matrix(weight, factor.cols)?;
        if factor.buffer != normed
            || residual.is_some_and(|r| r.buffer == normed)
            || self.is_tiled(out)
            || !self.takes_norm(&norm, factor, shape)
            || !self.is_read_by(normed, at + 1)
        {
            return Ok((None, 0));
        }
        self.weight(scales.unwrap_or(weight))?;
        if let Some(glu @ Op::Glu { .. }) = self.plan.ops.get(at + 2)
            && let Some(launch) = self.matmul_glu(product, glu, at + 2, Some(&norm))?
        {
            return Ok((Some(launch), 3));
        }
        self.weight(bias.unwrap_or(weight))?;
        let operands = Operands {
            input,
            weight,
            bias,
            residual,
            out,
        };
        let launch = self.matmul_vec(&operands, shape, 0, None, Some(&norm));
        Ok((Some(launch), 2))
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
