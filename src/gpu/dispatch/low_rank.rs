//! Low-rank updates.

use super::parts::with_weights;
use super::{Dispatch, WORKGROUP, per_number};
use crate::backend::{Op, RowBlock};
use crate::gpu::buffer::Shard;
use crate::gpu::launch::{Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// A block as the kernel has it: first column, columns, first row within a shard, column of `down`.
type Quad = [usize; 4];

impl Dispatch<'_> {
    /// A launch for each shard of the weight: together they write every column.
    pub(super) fn add_low_rank(&self, op: &Op) -> Result<Vec<Launch>, String> {
        let &Op::AddLowRank {
            sum,
            down,
            up,
            ref blocks,
            scale,
            out,
        } = op
        else {
            unreachable!("called for add_low_rank");
        };
        let rank = down.cols / blocks.len();
        let shape = self.matrix(up, rank)?;
        let quads: Vec<Vec<Quad>> = shape
            .shards
            .iter()
            .map(|&shard| within(blocks, shard, rank))
            .collect();
        let rows = self.rows(out);
        let launch = |index: usize| {
            let first = match index {
                0 => 0,
                i => quads[i][0][0],
            };
            let end = quads.get(index + 1).map_or(sum.cols, |next| next[0][0]);
            let shader = Shader::new("kernels/add_low_rank")
                .number("WG", WORKGROUP)
                .number("FIRST_COLUMN", first)
                .number("COLUMNS", end - first)
                .quads("BLOCKS", &quads[index])
                .number("RANK", rank)
                .float("SCALE", scale)
                .number("OUT_STRIDE", self.stride(out));
            let shader = self.view(self.view(shader, "SUM", sum), "DOWN", down);
            Launch {
                shader: self.rows_word(with_weights(shader, shape, shape.shards[index]), rows),
                bindings: vec![
                    reads(Slot::Weight(up, index)),
                    reads(self.slot(sum.buffer)),
                    reads(self.slot(down.buffer)),
                    reads(Slot::Batch),
                    writes(self.slot(out)),
                ],
                grid: per_number(end - first, rows),
            }
        };
        Ok((0..quads.len()).map(launch).collect())
    }
}

/// The parts of blocks whose rows a shard has.
fn within(blocks: &[RowBlock], shard: Shard, rank: usize) -> Vec<Quad> {
    let mut row = 0;
    let mut quads = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let start = row.max(shard.first_row);
        let end = (row + block.rows).min(shard.first_row + shard.rows);
        if start < end {
            let column = block.first + start - row;
            quads.push([column, end - start, start - shard.first_row, i * rank]);
        }
        row += block.rows;
    }
    quads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cut_blocks() {
        let blocks = [
            RowBlock { first: 4, rows: 16 },
            RowBlock { first: 30, rows: 8 },
        ];
        let of = |first_row, rows| within(&blocks, Shard { first_row, rows }, 3);
        assert_eq!(of(0, 24), [[4, 16, 0, 0], [30, 8, 16, 3]]);
        assert_eq!(of(0, 10), [[4, 10, 0, 0]]);
        assert_eq!(of(10, 14), [[14, 6, 0, 0], [30, 8, 6, 3]]);
    }
}
