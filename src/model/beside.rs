//! A feed-forward block and experts side by side, each with norms of its own: Gemma 4.

use super::config::Moe;
use super::decoder::project;
use super::experts::{self, ExpertWeights};
use super::loader::Loader;
use super::weights::{NormWeights, Product, Projections};
use super::{Config, Error};
use crate::backend::{PlanBuilder, View, WeightId};

/// The weights of both in one layer.
#[derive(Debug)]
pub(super) struct BesideWeights {
    gate_up: Projections,
    down: Product,
    /// Of what the block gives.
    post_norm: NormWeights,
    /// Of what the router looks at.
    router_norm: WeightId,
    /// Of what the experts read.
    expert_norm: NormWeights,
    experts: ExpertWeights,
    /// Of what the experts give.
    post_expert_norm: NormWeights,
}

impl BesideWeights {
    /// The tensors of layer `i`.
    pub fn load(
        loader: &mut Loader<'_>,
        i: usize,
        c: &Config,
        moe: Moe,
    ) -> Result<BesideWeights, Error> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let ffn_dim = c.ffn_dim(i);
        let parts = [(name("ffn_gate"), ffn_dim), (name("ffn_up"), ffn_dim)];
        Ok(BesideWeights {
            gate_up: loader.projections(&parts, c.dim)?,
            down: loader.product(&name("ffn_down"), c.dim, ffn_dim)?,
            post_norm: loader.needed_norm(&name("post_ffw_norm_1"), c.dim, c)?,
            router_norm: loader.vector(&name("ffn_gate_inp.scale"), c.dim)?,
            expert_norm: loader.needed_norm(&name("pre_ffw_norm_2"), c.dim, c)?,
            experts: ExpertWeights::load(loader, i, c, moe)?,
            post_expert_norm: loader.needed_norm(&name("post_ffw_norm_2"), c.dim, c)?,
        })
    }
}

/// The sum of both, `[tokens, dim]`: the block reads `h`, the normed `x`; the experts and their
/// router have norms of their own on `x`.
pub(super) fn feed_forward(
    b: &mut PlanBuilder,
    c: &Config,
    w: &BesideWeights,
    h: View,
    x: View,
) -> View {
    let [gate, up] = project(b, h, &w.gate_up)[..] else {
        unreachable!("a block has two projections");
    };
    let mixed = b.glu(gate, up, c.activation);
    let dense = b.matmul(mixed, w.down.weight, w.down.bias, None);
    let dense = b.rms_norm(dense, w.post_norm.weight, c.norm_eps);
    let judged = b.rms_norm(x, w.router_norm, c.norm_eps);
    let judged = b.scale(judged, 1.0 / (c.dim as f32).sqrt());
    let read = b.rms_norm(x, w.expert_norm.weight, c.norm_eps);
    let made = experts::mixture(b, c, &w.experts, (judged, read), None);
    let made = b.rms_norm(made, w.post_expert_norm.weight, c.norm_eps);
    b.add(dense, made)
}
