//! Experts: how a token chooses them, and the products with their matrices (Shazeer et al. 2017,
//! <https://arxiv.org/abs/1701.06538>).

use super::builder::PlanBuilder;
use super::op::{Heads, Op};
use super::plan::View;
use super::weight::WeightId;

/// Experts that a layer may have, at most.
pub const MAX_EXPERTS: usize = 512;

/// How the scores of experts become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gating {
    /// Softmax over all experts, before the choice.
    Softmax,
    /// `1 / (1 + exp(-x))` of each.
    Sigmoid,
    /// Softmax over the chosen ones alone.
    SoftmaxOfChosen,
}

/// The choice of experts for one token, from a score for each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    pub gating: Gating,
    /// Experts that are chosen: those with the largest weights (plus bias), equal ones by rising
    /// number.
    pub n_used: usize,
    /// The experts lie in so many groups of equal size ...
    pub n_groups: usize,
    /// ... of which only those with the largest sums of their two best are chosen from.
    /// DeepSeek-AI 2024, <https://arxiv.org/abs/2412.19437>.
    pub n_groups_used: usize,
    /// Whether the weights of the chosen are divided by their sum.
    pub normalise: bool,
    /// Factor on the weights at last.
    pub scale: f32,
}

impl Routing {
    /// The smallest sum that weights are divided by: the smallest normal half float, as models
    /// were trained and converted with.
    pub const MIN_SUM: f32 = 6.103_515_6e-5;

    /// Softmax over all experts, as most families have it.
    pub fn softmax(n_used: usize, normalise: bool) -> Routing {
        Routing {
            gating: Gating::Softmax,
            n_used,
            n_groups: 1,
            n_groups_used: 1,
            normalise,
            scale: 1.0,
        }
    }
}

/// The operands of [`Op::MatmulExperts`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertProducts {
    /// Slot s of a row reads `weight.cols` columns from `s * slot_stride` on.
    pub input: View,
    /// Zero where all slots read the same columns.
    pub slot_stride: usize,
    /// What [`Op::MoeRoute`] made. Without it slot s goes through expert s: heads that each have
    /// a matrix of their own.
    pub route: Option<View>,
    pub n_used: usize,
    pub weight: WeightId,
    /// `[n_experts, rows of an expert]`
    pub bias: Option<WeightId>,
}

impl PlanBuilder<'_> {
    /// Experts of each row by its scores `[rows, n_experts]`: `[rows, 2 * n_used]`.
    pub fn moe_route(&mut self, scores: View, bias: Option<WeightId>, routing: Routing) -> View {
        self.moe_route_by(scores, bias, None, routing)
    }

    /// As [`Self::moe_route`], with a factor on the weight of each expert.
    pub fn moe_route_by(
        &mut self,
        scores: View,
        bias: Option<WeightId>,
        factors: Option<WeightId>,
        routing: Routing,
    ) -> View {
        assert!(scores.cols <= MAX_EXPERTS && routing.n_used <= scores.cols);
        assert_eq!(scores.cols % routing.n_groups, 0);
        for id in bias.into_iter().chain(factors) {
            let vector = &self.weights[id.0];
            assert_eq!(vector.rows * vector.cols, scores.cols, "{}", vector.name);
        }
        let cols = 2 * routing.n_used;
        self.record(self.rows(scores), cols, |out| Op::MoeRoute {
            scores,
            bias,
            factors,
            routing,
            out,
        })
    }

    /// Products with the matrices of experts: `[rows, parts, n_used, rows of a part]`, the parts
    /// being what the weight joins within an expert.
    pub fn matmul_experts(&mut self, products: ExpertProducts) -> View {
        let made = self.plain_matmul_experts(products);
        self.update_experts(products, made)
    }

    pub(super) fn plain_matmul_experts(&mut self, products: ExpertProducts) -> View {
        let weight = &self.weights[products.weight.0];
        let last = (products.n_used - 1) * products.slot_stride;
        assert!(last + weight.cols <= products.input.cols, "{}", weight.name);
        match products.route {
            Some(route) => assert_eq!(route.cols, 2 * products.n_used),
            None => assert_eq!(weight.n_experts, products.n_used),
        }
        if let Some(bias) = products.bias {
            let bias = &self.weights[bias.0];
            assert_eq!(bias.rows * bias.cols, weight.rows, "{}", bias.name);
        }
        let cols = products.n_used * weight.rows / weight.n_experts;
        let rows = self.rows(products.input);
        self.record(rows, cols, |out| Op::MatmulExperts { products, out })
    }

    /// The weighted sum of the slots of `experts`, `[rows, n_used, cols]`.
    pub fn moe_combine(&mut self, experts: View, route: View, residual: Option<View>) -> View {
        let n_used = route.cols / 2;
        assert_eq!(experts.cols % n_used, 0);
        let cols = experts.cols / n_used;
        if let Some(residual) = residual {
            assert_eq!(residual.cols, cols);
        }
        self.record(self.rows(experts), cols, |out| Op::MoeCombine {
            experts,
            route,
            residual,
            out,
        })
    }

    /// Heads side by side: head h of the result is head h of `a`, then head h of `b`.
    pub fn concat_heads(&mut self, n_heads: usize, a: Heads, b: Option<Heads>) -> View {
        let cols = n_heads * (a.width + b.map_or(0, |b| b.width));
        for heads in [Some(a), b].into_iter().flatten() {
            assert!((n_heads - 1) * heads.stride + heads.width <= heads.view.cols);
        }
        self.record(self.rows(a.view), cols, |out| Op::ConcatHeads {
            n_heads,
            a,
            b,
            out,
        })
    }
}
