//! Low-rank updates of weights. The builder records them wherever the weight is used, so that no
//! plan can leave one out; the weight itself stays as it is stored.

use super::builder::PlanBuilder;
use super::op::Op;
use super::{ExpertProducts, View, WeightId};

/// What products with a weight `[rows, cols]` give besides: `scale * up (down x)`. Hu et al. 2021,
/// <https://arxiv.org/abs/2106.09685>. Where the weight joins several matrices, so do these.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// The weight that is changed.
    pub weight: WeightId,
    /// `[rank, cols]` of each block, or of each expert where the weight has experts; `[rows, rank]`
    /// where the weight is an embedding, whose rows are looked up.
    pub down: WeightId,
    /// `[rows of the block, rank]` of each block, or `[rows, rank]` of each expert; `[cols, rank]`
    /// for an embedding.
    pub up: WeightId,
    /// What is changed of the weight: all of it where it has experts or is an embedding.
    pub blocks: Vec<RowBlock>,
    pub scale: f32,
}

/// Rows of a matrix, which are columns of its product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowBlock {
    /// Number of the first row.
    pub first: usize,
    pub rows: usize,
}

impl RowBlock {
    /// Every block but the last of an update has a multiple of so many rows.
    pub const ALIGNMENT: usize = 16;
}

impl<'a> PlanBuilder<'a> {
    /// Records these wherever their weights are used.
    pub fn with_updates(mut self, updates: &'a [LowRank]) -> Self {
        self.updates = updates;
        self
    }

    fn updates_of(&self, weight: WeightId) -> impl Iterator<Item = &'a LowRank> + use<'a> {
        let of_weight = move |update: &&LowRank| update.weight == weight;
        self.updates.iter().filter(of_weight)
    }

    /// `product`, a product of `input` with a weight, and the weight's updates.
    pub(super) fn update_product(&mut self, weight: WeightId, input: View, product: View) -> View {
        self.updates_of(weight).fold(product, |sum, update| {
            let down = self.plain_matmul(input, update.down, None, None);
            self.add_low_rank(sum, down, update.up, &update.blocks, update.scale)
        })
    }

    /// `rows`, those of a weight for each token times `scale`, and the weight's updates.
    pub(super) fn update_embedding(&mut self, weight: WeightId, scale: f32, rows: View) -> View {
        self.updates_of(weight).fold(rows, |sum, update| {
            let down = self.plain_embed(update.down, scale);
            self.add_low_rank(sum, down, update.up, &update.blocks, update.scale)
        })
    }

    /// `made`, the results of `products`, and the weight's updates.
    pub(super) fn update_experts(&mut self, products: ExpertProducts, made: View) -> View {
        self.updates_of(products.weight).fold(made, |sum, update| {
            let down = self.plain_matmul_experts(ExpertProducts {
                weight: update.down,
                bias: None,
                ..products
            });
            let down = match update.scale {
                1.0 => down,
                scale => self.scale(down, scale),
            };
            let up = self.plain_matmul_experts(ExpertProducts {
                input: down,
                slot_stride: down.cols / products.n_used,
                weight: update.up,
                bias: None,
                ..products
            });
            self.add(sum, up)
        })
    }

    /// `sum` with thin products added to some of its columns: see [`Op::AddLowRank`].
    pub fn add_low_rank(
        &mut self,
        sum: View,
        down: View,
        up: WeightId,
        blocks: &[RowBlock],
        scale: f32,
    ) -> View {
        let matrix = &self.weights[up.0];
        let rows = blocks.iter().map(|block| block.rows);
        assert_eq!(rows.sum::<usize>(), matrix.rows, "{}", matrix.name);
        assert_eq!(down.cols, blocks.len() * matrix.cols, "{}", matrix.name);
        assert_eq!(self.rows(sum), self.rows(down));
        let mut end = 0;
        for (i, block) in blocks.iter().enumerate() {
            let aligned = block.rows.is_multiple_of(RowBlock::ALIGNMENT);
            assert!(aligned || i + 1 == blocks.len(), "{}", matrix.name);
            assert!(end <= block.first, "{}", matrix.name);
            end = block.first + block.rows;
        }
        assert!(end <= sum.cols, "{}", matrix.name);
        let blocks = blocks.to_vec();
        self.record(self.rows(sum), sum.cols, |out| Op::AddLowRank {
            sum,
            down,
            up,
            blocks,
            scale,
            out,
        })
    }
}
