//! Low-rank updates of weights. The builder records them wherever the weight is used, so that no
//! plan can leave one out; the weight itself stays as it is stored.

use super::builder::PlanBuilder;
use super::{ExpertProducts, View, WeightId};

/// What products with a weight `[rows, cols]` give besides: `scale * up (down x)`. Hu et al. 2021,
/// <https://arxiv.org/abs/2106.09685>.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRank {
    pub weight: WeightId,
    /// `[rank, cols]`, of each expert where the weight has experts; `[rows, rank]` where the weight
    /// is an embedding, whose rows are looked up.
    pub down: WeightId,
    /// `[rows, rank]`, of each expert; `[cols, rank]` for an embedding.
    pub up: WeightId,
    pub scale: f32,
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
            let down = self.scale_unless_one(down, update.scale);
            self.plain_matmul(down, update.up, None, Some(sum))
        })
    }

    /// `rows`, those of a weight for each token times `scale`, and the weight's updates.
    pub(super) fn update_embedding(&mut self, weight: WeightId, scale: f32, rows: View) -> View {
        self.updates_of(weight).fold(rows, |sum, update| {
            let down = self.plain_embed(update.down, scale * update.scale);
            self.plain_matmul(down, update.up, None, Some(sum))
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
            let down = self.scale_unless_one(down, update.scale);
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

    fn scale_unless_one(&mut self, input: View, factor: f32) -> View {
        match factor {
            1.0 => input,
            _ => self.scale(input, factor),
        }
    }
}
