//! Queries and keys on their way to attention: norms of heads, rope and the cache in one launch.

use super::norm::{norm_workgroup, per_group};
use super::parts::with_cache;
use super::{Dispatch, WORKGROUP, per_number};
use crate::backend::{BufferId, KvDims, NO_SLOT, Op, RopeOrder, View, WeightId};
use crate::gpu::launch::{Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// A rope of queries and one of keys, alike in their heads, and what is cached.
struct Turned {
    q: View,
    k: View,
    v: View,
    head_dim: usize,
    half: usize,
    order: RopeOrder,
    q_table: usize,
    k_table: usize,
    layer: usize,
    out: BufferId,
}

impl Dispatch<'_> {
    /// Rope, rope, kv_write from op `at` on.
    ///
    /// # Errors
    /// As for the ops alone.
    pub(super) fn rope_kv(&self, at: usize) -> Result<Option<Launch>, String> {
        let Some(turned) = self.turned([at, at + 1, at + 2]) else {
            return Ok(None);
        };
        let Some((shader, kv)) = self.cached_turned("kernels/rope_kv", &turned)? else {
            return Ok(None);
        };
        let Turned {
            q,
            k,
            v,
            out,
            layer,
            ..
        } = turned;
        let shader = shader.number("WG", WORKGROUP).number("Q_COLS", q.cols);
        let shader = self.view(self.view(shader, "K", k), "V", v);
        Ok(Some(Launch {
            shader,
            bindings: vec![
                reads(self.slot(q.buffer)),
                reads(self.slot(k.buffer)),
                reads(self.slot(v.buffer)),
                reads(Slot::Batch),
                writes(self.slot(out)),
                writes(Slot::Keys(layer)),
                writes(Slot::Values(layer)),
            ],
            grid: per_number(q.cols.max(kv.keys).max(kv.values) / 4, self.rows(out)),
        }))
    }

    /// Norm, rope, norm, rope, kv_write from op `at` on: where both norms are of heads.
    ///
    /// # Errors
    /// As for the ops alone.
    pub(super) fn norm_rope_kv(&self, at: usize) -> Result<Option<Launch>, String> {
        let Some(turned) = self.turned([at + 1, at + 3, at + 4]) else {
            return Ok(None);
        };
        let Some((q, q_scales, q_eps)) = self.head_norm(at, &turned, turned.q) else {
            return Ok(None);
        };
        let Some((k, k_scales, k_eps)) = self.head_norm(at + 2, &turned, turned.k) else {
            return Ok(None);
        };
        let alike = q.buffer == k.buffer && q_eps == k_eps && turned.v.cols == k.cols;
        // The run is longer than `MAX_RUN`, which keeps apart what shorter ones read and write.
        let apart = |view: View| self.slot(view.buffer) != self.slot(turned.out);
        if !alike || !apart(q) || !apart(turned.v) {
            return Ok(None);
        }
        for scales in [q_scales, k_scales] {
            self.weight(scales)?;
        }
        let turned = Turned { q, k, ..turned };
        let Some((shader, kv)) = self.cached_turned("kernels/norm_rope_kv", &turned)? else {
            return Ok(None);
        };
        let Turned {
            v,
            head_dim,
            out,
            layer,
            ..
        } = turned;
        let n_heads = q.cols / head_dim;
        let shader = shader
            .number("Q_HEADS", n_heads)
            .number("K_OFFSET", k.offset)
            .float("EPS", q_eps);
        let shader = self.reduce(self.view(shader, "V", v), norm_workgroup(head_dim));
        Ok(Some(Launch {
            shader,
            bindings: vec![
                reads(self.slot(q.buffer)),
                reads(self.slot(v.buffer)),
                reads(Slot::Weight(q_scales, 0)),
                reads(Slot::Weight(k_scales, 0)),
                reads(Slot::Batch),
                writes(self.slot(out)),
                writes(Slot::Keys(layer)),
                writes(Slot::Values(layer)),
            ],
            grid: per_group(n_heads + kv.keys / head_dim, self.rows(out)),
        }))
    }

    /// The ropes of queries and keys and the kv_write at these ops, if one kernel can do them.
    fn turned(&self, [q, k, write]: [usize; 3]) -> Option<Turned> {
        let ops = &self.plan.ops;
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
        ) = (&ops[q], &ops[k], &ops[write])
        else {
            return None;
        };
        let half = |table: usize| self.plan.rope_tables[table].half_dim();
        let alike = (head_dim, order, half(table)) == (k_head_dim, k_order, half(k_table));
        let whole = stored.buffer == turned_k && stored.cols == k.cols;
        let apart = [k, v]
            .iter()
            .all(|view| ![out, turned_k].contains(&view.buffer));
        let fits = alike && whole && apart && head_dim.is_multiple_of(4);
        (fits && self.is_read_by(turned_k, write)).then_some(Turned {
            q,
            k,
            v,
            head_dim,
            half: half(table),
            order,
            q_table: table,
            k_table,
            layer,
            out,
        })
    }

    /// Input, scales and epsilon of the norm at an op, if it is of the heads of `normed` and for its rope alone.
    fn head_norm(&self, at: usize, turned: &Turned, normed: View) -> Option<(View, WeightId, f32)> {
        let Op::RmsNorm {
            input,
            weight: Some(scales),
            group,
            eps,
            out,
        } = self.plan.ops[at]
        else {
            return None;
        };
        let of_heads = group == turned.head_dim
            && normed.buffer == out
            && (normed.offset, normed.cols) == (0, input.cols);
        (of_heads && self.is_read_by(out, at + 1)).then_some((input, scales, eps))
    }

    /// A kernel over what is turned and cached, and the sizes of what is cached; none where the cache keeps blocks.
    fn cached_turned(
        &self,
        kernel: &'static str,
        turned: &Turned,
    ) -> Result<Option<(Shader, KvDims)>, String> {
        let kv = KvDims {
            keys: turned.k.cols,
            values: turned.v.cols,
        };
        let cache = self.layer(turned.layer, kv)?;
        if cache.kv_type.is_quantised() {
            return Ok(None);
        }
        let shader = with_cache(Shader::new(kernel), cache.kv_type, kv)
            .parts(&["parts/turned"])
            .number("OUT_STRIDE", self.stride(turned.out))
            .number("NO_SLOT", NO_SLOT as usize)
            .number("HEAD_DIM", turned.head_dim)
            .number("HALF", turned.half)
            .number("Q_TABLE", turned.q_table)
            .number("K_TABLE", turned.k_table)
            .flag("NEOX", turned.order == RopeOrder::Neox);
        let shader = self.view(shader, "Q", turned.q);
        Ok(Some((self.rows_word(shader, self.rows(turned.out)), kv)))
    }
}
