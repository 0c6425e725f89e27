//! The best candidates of a row: slices are sorted, then their lists are joined until one is left;
//! and the token that is chosen of them.

use super::{Dispatch, Program};
use crate::backend::{MAX_CANDIDATES, Rows, View};
use crate::gpu::batch::SAMPLING_WORD;
use crate::gpu::launch::{Extent, Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// Logits that one workgroup looks through.
const SLICE: usize = 4096;
/// Groups of a slice whose maxima bound the best candidates from below: as many as the largest k,
/// and again so that few logits pass.
const GROUPS: usize = 2 * MAX_CANDIDATES;
/// Candidates that a workgroup can sort: 8 KiB of ids and logits.
const CANDIDATES: usize = 1024;

/// Where a plan's candidates lie after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) struct TopKResult {
    pub rows: Rows,
    /// Candidates of a row.
    pub k: usize,
    /// Parts of a row's sum of exponentials.
    pub slices: usize,
    /// Scratch with `[rows, k, 2]` words: logit, id.
    pub lists: usize,
    /// Scratch with `[rows, slices, 2]` floats: maximum, sum of exp(logit - maximum).
    pub sums: usize,
    /// Scratch with `[rows]` words: ids of chosen tokens.
    pub chosen: usize,
}

impl Dispatch<'_> {
    pub(super) fn top_k(&self, input: View, k: usize, program: &mut Program) -> Result<(), String> {
        if program.top_k.is_some() {
            return Err("a plan can have one top_k".into());
        }
        let rows = self.rows(input.buffer);
        let n_rows = self.plan.shape.n_rows(rows);
        let k = k.min(input.cols).max(1);
        let slices = input.cols.div_ceil(SLICE);
        let workgroup = self.sort_workgroup();
        let sums = program.scratch(8 * n_rows * slices);
        let mut lists = program.scratch(8 * n_rows * slices * k);
        let shader = self
            .view(Shader::new("kernels/top_k"), "X", input)
            .number("CANDIDATES", CANDIDATES)
            .number("SLICE", SLICE)
            .number("GROUPS", GROUPS)
            .number("K", k)
            .number("COLS", input.cols)
            .number("SLICES", slices)
            .parts(&["parts/candidates"]);
        program.launches.push(Launch {
            shader: self.rows_word(self.reduce(shader, workgroup), rows),
            bindings: vec![
                reads(self.slot(input.buffer)),
                reads(Slot::Batch),
                writes(Slot::Scratch(lists)),
                writes(Slot::Scratch(sums)),
            ],
            grid: grid(slices, rows),
        });
        let mut n_lists = slices;
        while n_lists > 1 {
            let fan = CANDIDATES / k;
            let joined = n_lists.div_ceil(fan);
            let to = program.scratch(8 * n_rows * joined * k);
            let shader = Shader::new("kernels/top_k_merge")
                .number("WG", workgroup)
                .number("CANDIDATES", CANDIDATES)
                .number("K", k)
                .number("FAN", fan)
                .number("N_IN", n_lists)
                .number("N_OUT", joined)
                .parts(&["parts/candidates"]);
            program.launches.push(Launch {
                shader: self.rows_word(shader, rows),
                bindings: vec![
                    reads(Slot::Scratch(lists)),
                    reads(Slot::Batch),
                    writes(Slot::Scratch(to)),
                ],
                grid: grid(joined, rows),
            });
            (lists, n_lists) = (to, joined);
        }
        let chosen = program.scratch(4 * n_rows);
        let result = TopKResult {
            rows,
            k,
            slices,
            lists,
            sums,
            chosen,
        };
        program.launches.push(self.sample(&result));
        program.top_k = Some(result);
        Ok(())
    }

    fn sample(&self, result: &TopKResult) -> Launch {
        let &TopKResult {
            rows, k, slices, ..
        } = result;
        let shader = Shader::new("kernels/sample")
            .number("WG", self.sort_workgroup().min(MAX_CANDIDATES / 2))
            .number("CANDIDATES", k.next_power_of_two().max(2))
            .number("K", k)
            .number("SLICES", slices)
            .number("SAMPLING_WORD", SAMPLING_WORD)
            .parts(&["parts/candidates"]);
        Launch {
            shader: self.rows_word(shader, rows),
            bindings: vec![
                reads(Slot::Scratch(result.lists)),
                reads(Slot::Scratch(result.sums)),
                reads(Slot::Batch),
                writes(Slot::Scratch(result.chosen)),
            ],
            grid: [Extent::Fixed(1), Extent::Sampled, Extent::Fixed(1)],
        }
    }

    /// Every step of a sort ends in a barrier, which on a CPU costs as much as a workgroup has
    /// subgroups.
    fn sort_workgroup(&self) -> usize {
        match self.tuning.software {
            true => 16,
            false => 256,
        }
    }
}

fn grid(groups: usize, rows: Rows) -> [Extent; 3] {
    [
        Extent::Fixed(groups),
        Extent::Rows(rows, 1),
        Extent::Fixed(1),
    ]
}
