//! Products of K types with activations of 16 bits.
//!
//! A block of 256 activations is rounded to multiples of one 16-bit step, and the codes of weights
//! times the scales of their sub-blocks are integers too. A quarter of a block's products (those of
//! lanes `4 q .. 4 q + 4` of all its vectors) adds up to an exact 32-bit integer, in whatever order;
//! `acc[q] = fma(sum, d * step, acc[q])` for each block in turn, and at last
//! `(acc[0] + acc[2]) + (acc[1] + acc[3])`. Minima are products with the sums of sub-blocks, halved
//! to 16 bits: `acc[0]` takes the upper halves, `acc[1]` the lower.
//!
//! So, as with floats (`matmul`), nothing that a product is computed with changes a bit of it:
//! `vector.rs` runs along rows, `panel.rs` across tokens.

mod panel;
mod round;
mod vector;

pub use round::{Block, Group, round_groups, round_rows};

use super::{Chunks, Input, Product, vector_rows};
use crate::cpu::buffer::Shared;
pub use crate::cpu::format::integer::BLOCK;
use crate::cpu::simd::{InstructionSet, Lanes};

/// Rows of activations up to which weights are used as they are decoded: such products have
/// [`Input::Rounded`], others [`Input::Grouped`].
pub const FEW_TOKENS: usize = 8;

/// What a sum of a block's minima is multiplied with, beside `dmin * step`, in its two quarters.
const HALVES: [f32; 2] = [-256.0, -1.0];

/// The chunks of a product, as [`Chunks::new`].
pub(super) fn chunks(product: &Product<'_>, n_products: usize, n_threads: usize) -> Chunks {
    let n_rows = product.weight.rows;
    let few = product.n_tokens() <= FEW_TOKENS;
    let chunk_rows = match few {
        true => vector_rows(n_rows * n_products, n_threads),
        false => panel::ROWS,
    };
    let n_blocks = product.weight.cols / BLOCK;
    Chunks {
        n: n_rows.div_ceil(chunk_rows),
        n_scratch: if few { 0 } else { panel::n_scratch(n_blocks) },
        n_rows,
        chunk_rows,
    }
}

/// Computes the columns of some weight rows.
pub fn chunk(
    isa: InstructionSet,
    product: &Product<'_>,
    out: &Shared<'_>,
    rows: std::ops::Range<usize>,
    scratch: &mut [Lanes],
) {
    match product.n_tokens() <= FEW_TOKENS {
        true => isa.run(vector::Vector { product, out, rows }),
        false => isa.run(panel::Panel {
            product,
            out,
            rows,
            scratch,
        }),
    }
}

impl Product<'_> {
    /// A token's activations.
    #[inline(always)]
    fn blocks(&self, token: usize) -> &[Block] {
        let n_blocks = self.weight.cols / BLOCK;
        match self.input {
            Input::Rounded(blocks) => &blocks[self.input_row(token) * n_blocks..][..n_blocks],
            _ => unreachable!("few tokens are rounded"),
        }
    }

    /// The blocks of a group of tokens.
    #[inline(always)]
    fn group(&self, group: usize) -> &[Group] {
        let n_blocks = self.weight.cols / BLOCK;
        match self.input {
            Input::Grouped(groups) => &groups[group * n_blocks..][..n_blocks],
            _ => unreachable!("many tokens are grouped"),
        }
    }
}
