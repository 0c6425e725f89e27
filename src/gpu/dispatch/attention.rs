//! Attention: split by the sequence's length for single tokens, by tiles of queries for prompts.

use super::inputs::Inputs;
use super::parts::{with_cache, with_pages};
use super::{Dispatch, Program, WORKGROUP};
use crate::backend::{Attention, BufferId, KvDims, Op, PAGE_TOKENS, Phase, Plan, Rows};
use crate::gpu::batch::{DECODE_TILE, MAX_SPLITS, SPLIT_TOKENS};
use crate::gpu::launch::{Extent, Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// Floats of queries that a workgroup keeps: half of the memory that every adapter has.
const QUERY_FLOATS: usize = 2048;
/// Invocations of a prompt's workgroup.
const PREFILL_WORKGROUP: usize = 128;
/// Queries whose scores one invocation computes at a time.
const PREFILL_SCORE_ROWS: usize = 4;
/// Widest query: at least one must fit beside its scores.
const MAX_HEAD_DIM: usize = 640;
/// Widest value: its quads must not outnumber a workgroup's invocations.
const MAX_VALUE_DIM: usize = 4 * PREFILL_WORKGROUP;

/// Queries of a tile in this plan's batches.
pub(in crate::gpu) fn tile_rows(plan: &Plan) -> usize {
    let widest = plan.ops.iter().map(|op| match op {
        Op::Attention { attention, .. } => attention.head_dim,
        _ => 0,
    });
    match widest.max().unwrap_or(0) {
        0..=128 => 16,
        129..=256 => 8,
        _ => 4,
    }
}

impl Dispatch<'_> {
    /// With `inputs` queries, and keys and values of a step of single tokens, are made ready on the way.
    pub(super) fn attention(
        &self,
        attention: &Attention,
        inputs: Option<&Inputs>,
        out: BufferId,
        program: &mut Program,
    ) -> Result<(), String> {
        let &Attention {
            layer,
            q,
            n_heads,
            n_kv_heads,
            head_dim,
            value_dim,
            scale,
            causal,
            window,
            soft_cap,
            sinks,
            alibi,
        } = attention;
        let quads = head_dim.is_multiple_of(4) && value_dim.is_multiple_of(4);
        if !quads || head_dim > MAX_HEAD_DIM || value_dim > MAX_VALUE_DIM {
            return Err(format!(
                "heads of {head_dim} and {value_dim} numbers are not supported; at most \
                 {MAX_HEAD_DIM} and {MAX_VALUE_DIM}, multiples of 4"
            ));
        }
        let kv = KvDims {
            keys: n_kv_heads * head_dim,
            values: n_kv_heads * value_dim,
        };
        let cache = self.layer(layer, kv)?;
        if let Some(sinks) = sinks {
            self.weight(sinks)?;
        }
        let sink_slot = sinks.map_or(Slot::Nothing, |id| Slot::Weight(id, 0));
        let window = window.unwrap_or(0);
        let shared = |shader: Shader| {
            shader
                .number("VALUE_DIM", value_dim)
                .number("WINDOW", window)
                .number("OUT_STRIDE", self.stride(out))
                .number("SPLIT_TOKENS", SPLIT_TOKENS)
                .number("MAX_SPLITS", MAX_SPLITS)
                .flag("HAS_SINKS", sinks.is_some())
                .parts(&["parts/splits", "parts/sinks"])
        };
        let attend = |shader: Shader| {
            with_cache(with_pages(shared(shader)), cache.kv_type, kv)
                .number("GROUP_HEADS", n_heads / n_kv_heads)
                .number("HEAD_DIM", head_dim)
                .float("SCALE", scale)
                .float("SOFT_CAP", soft_cap.unwrap_or(0.0))
                .parts(&["parts/attention", "parts/fma4", "parts/soft_cap"])
        };
        let bias = |shader: Shader| match alibi {
            None => shader.parts(&["parts/unbiased"]),
            Some(bias) => shader
                .float("ALIBI", bias)
                .number("ALIBI_HEADS", 1 << n_heads.ilog2())
                .parts(&["parts/alibi"]),
        };
        if self.plan.shape.phase == Phase::Prefill {
            let rows = tile_rows(self.plan);
            let shader = self
                .view(Shader::new("kernels/attention_prefill"), "Q", q)
                .number("WG", PREFILL_WORKGROUP)
                .number("TILE", PAGE_TOKENS)
                .number("Q_ROWS", rows)
                .number("SCORE_ROWS", PREFILL_SCORE_ROWS)
                .parts(match causal {
                    true => &["parts/causal"],
                    false => &["parts/both_ways"],
                });
            program.launches.push(Launch {
                shader: self.rows_word(bias(attend(shader)), Rows::Tokens),
                bindings: vec![
                    reads(self.slot(q.buffer)),
                    reads(Slot::Keys(layer)),
                    reads(Slot::Values(layer)),
                    reads(sink_slot),
                    reads(Slot::Batch),
                    writes(self.slot(out)),
                ],
                grid: [Extent::Fixed(n_heads), Extent::Tiles, Extent::Fixed(1)],
            });
            return Ok(());
        }
        if !causal {
            return Err("a decode step attends causally".into());
        }
        let splits = self.split_memory(n_heads * (value_dim + 2), program);
        let group = group_rows(n_heads / n_kv_heads, head_dim);
        let mut bindings = vec![
            reads(sink_slot),
            reads(Slot::Batch),
            writes(splits),
            writes(self.slot(out)),
        ];
        let workgroup = WORKGROUP.max((value_dim / 4).next_power_of_two());
        let shader = Shader::new("kernels/attention_decode")
            .number("WG", workgroup)
            .number("TILE", DECODE_TILE)
            .number("N_HEADS", n_heads)
            .number("Q_ROWS", group)
            .number("SCORE_ROWS", group);
        let shader = match inputs {
            Some(inputs) => {
                bindings.extend(self.input_bindings(inputs, layer));
                self.with_inputs(shader, inputs)
            }
            None => {
                let cached = [Slot::Keys(layer), Slot::Values(layer)];
                bindings.push(reads(self.slot(q.buffer)));
                bindings.extend(cached.map(reads));
                self.view(shader, "Q", q).parts(&["parts/attention_given"])
            }
        };
        program.launches.push(Launch {
            shader: self.rows_word(bias(attend(shader)), Rows::Tokens),
            bindings,
            grid: [
                Extent::Fixed(n_heads / group),
                Extent::Splits(window),
                Extent::Rows(Rows::Tokens, 1),
            ],
        });
        let shader = shared(Shader::new("kernels/attention_merge"))
            .number("WG", WORKGROUP)
            .number("TILE", DECODE_TILE)
            .number("N_HEADS", n_heads);
        program.launches.push(Launch {
            shader: self.rows_word(shader, Rows::Tokens),
            bindings: vec![
                reads(splits),
                reads(sink_slot),
                reads(Slot::Batch),
                writes(self.slot(out)),
            ],
            grid: [
                Extent::Fixed(n_heads),
                Extent::MergedRows(window),
                Extent::Fixed(1),
            ],
        });
        Ok(())
    }

    /// The scratch for `floats` per token and split, shared by all layers of the plan.
    fn split_memory(&self, floats: usize, program: &mut Program) -> Slot {
        let bytes = (4 * self.plan.shape.n_tokens * MAX_SPLITS * floats) as u64;
        let index = match program.splits {
            Some(index) => index,
            None => program.scratch(0),
        };
        program.splits = Some(index);
        program.scratch[index] = program.scratch[index].max(bytes);
        Slot::Scratch(index)
    }
}

/// Heads of a group that one workgroup takes: all of them as long as memory and registers do.
pub(super) fn group_rows(group: usize, head_dim: usize) -> usize {
    let most = (QUERY_FLOATS / head_dim).clamp(1, 8);
    let fits = (1..=most).rev().find(|rows| group.is_multiple_of(*rows));
    fits.unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_a_group_share_a_workgroup() {
        assert_eq!(group_rows(3, 64), 3);
        assert_eq!(group_rows(7, 64), 7);
        assert_eq!(group_rows(32, 128), 8);
        assert_eq!(group_rows(4, 256), 4);
        assert_eq!(group_rows(11, 64), 1);
    }
}
