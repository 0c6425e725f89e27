//! Operations whose rows know nothing of each other.

use super::Operation;
use crate::backend::{Activation, ExpertProducts, Heads, Routing, RowBlock, View, WeightId};
use crate::cpu::experts::{Experts, matmul_experts};
use crate::cpu::low_rank::{LowRank, add_low_rank};
use crate::cpu::pool::PoolError;
use crate::cpu::route::{Combine, Route};
use crate::cpu::rowwise::{self, Elementwise, Glu, LayerNorm, Map};
use crate::cpu::streams::{GaussianTopK, MatchLength, StreamMix};

impl Operation<'_> {
    pub(super) fn rms_norm(
        self,
        input: View,
        weight: Option<WeightId>,
        group: usize,
        eps: f32,
    ) -> Result<(), PoolError> {
        let weight = weight.map(|id| self.vector(id));
        let input = self.view(input);
        rowwise::rms_norm(self.isa, self.pool, input, (weight, group), eps, self.out)
    }

    pub(super) fn layer_norm(
        self,
        input: View,
        weight: Option<WeightId>,
        bias: Option<WeightId>,
        group: usize,
        eps: f32,
    ) -> Result<(), PoolError> {
        let (isa, input) = (self.isa, self.view(input));
        let [weight, bias] = [weight, bias].map(|id| id.map(|id| self.vector(id)));
        self.each_row(|i, out| {
            isa.run(LayerNorm {
                x: input.row(i),
                weight,
                bias,
                group,
                eps,
                out,
            });
        })
    }

    pub(super) fn moe_route(
        self,
        scores: View,
        bias: Option<WeightId>,
        factors: Option<WeightId>,
        routing: Routing,
    ) -> Result<(), PoolError> {
        let (isa, scores) = (self.isa, self.view(scores));
        let [bias, factors] = [bias, factors].map(|id| id.map(|id| self.vector(id)));
        self.each_row(|i, out| {
            isa.run(Route {
                scores: scores.row(i),
                bias,
                factors,
                routing,
                out,
            });
        })
    }

    pub(super) fn matmul_experts(self, products: &ExpertProducts) -> Result<(), PoolError> {
        let weight = &self.weights[products.weight.0];
        // One slot of a row at a time.
        let slot = View {
            cols: weight.cols,
            ..products.input
        };
        let experts = Experts {
            weight,
            input: self.view(slot),
            slot_stride: products.slot_stride,
            route: products.route.map(|route| self.view(route)),
            n_used: products.n_used,
            n_rows: self.n_rows,
            bias: products.bias.map(|id| self.vector(id)),
        };
        matmul_experts(self.isa, self.pool, self.changed, experts, self.out)
    }

    pub(super) fn moe_combine(
        self,
        experts: View,
        route: View,
        residual: Option<View>,
    ) -> Result<(), PoolError> {
        let (isa, experts, route) = (self.isa, self.view(experts), self.view(route));
        let residual = residual.map(|residual| self.view(residual));
        self.each_row(|i, out| {
            isa.run(Combine {
                experts: experts.row(i),
                route: route.row(i),
                residual: residual.map(|r| r.row(i)),
                out,
            });
        })
    }

    pub(super) fn concat_heads(
        self,
        n_heads: usize,
        parts: [Option<Heads>; 2],
    ) -> Result<(), PoolError> {
        let parts = parts.map(|heads| heads.map(|h| (self.view(h.view), h)));
        self.each_row(|i, out| rowwise::concat_heads(n_heads, i, &parts, out))
    }

    pub(super) fn glu(self, gate: View, up: View, activation: Activation) -> Result<(), PoolError> {
        let (isa, gate, up) = (self.isa, self.view(gate), self.view(up));
        self.each_row(|i, out| {
            isa.run(Glu {
                gate: gate.row(i),
                up: up.row(i),
                activation,
                out,
            });
        })
    }

    /// A function of every number.
    pub(super) fn map(self, input: View, f: impl Elementwise + Sync) -> Result<(), PoolError> {
        let (isa, input) = (self.isa, self.view(input));
        self.each_row(|i, out| {
            isa.run(Map {
                x: input.row(i),
                f,
                out,
            });
        })
    }

    pub(super) fn scale(self, input: View, factor: f32) -> Result<(), PoolError> {
        let input = self.view(input);
        self.each_row(|i, out| rowwise::scale(input.row(i), factor, out))
    }

    pub(super) fn add(self, a: View, b: View) -> Result<(), PoolError> {
        let (a, b) = (self.view(a), self.view(b));
        self.each_row(|i, out| rowwise::add(a.row(i), b.row(i), out))
    }

    pub(super) fn add_low_rank(
        self,
        sum: View,
        down: View,
        up: WeightId,
        blocks: &[RowBlock],
        scale: f32,
    ) -> Result<(), PoolError> {
        let op = LowRank {
            sum: self.view(sum),
            down: self.view(down),
            up: self.updates[up.0].as_ref().expect("prepare laid it out"),
            blocks,
            scale,
        };
        add_low_rank(self.isa, self.pool, &op, self.out)
    }

    pub(super) fn stream_mix(
        self,
        streams: View,
        others: View,
        mix: View,
        plus: f32,
        width: usize,
    ) -> Result<(), PoolError> {
        let isa = self.isa;
        let [streams, others, mix] = [streams, others, mix].map(|view| self.view(view));
        self.each_row(|i, out| {
            isa.run(StreamMix {
                streams: streams.row(i),
                others: others.row(i),
                mix: mix.row(i),
                plus,
                width,
                out,
            });
        })
    }

    pub(super) fn match_length(self, input: View, like: View) -> Result<(), PoolError> {
        let (isa, input, like) = (self.isa, self.view(input), self.view(like));
        self.each_row(|i, out| {
            isa.run(MatchLength {
                x: input.row(i),
                like: like.row(i),
                out,
            });
        })
    }

    pub(super) fn gaussian_top_k(self, input: View, cutoff: f32) -> Result<(), PoolError> {
        let (isa, input) = (self.isa, self.view(input));
        self.each_row(|i, out| {
            isa.run(GaussianTopK {
                x: input.row(i),
                cutoff,
                out,
            });
        })
    }
}
