//! Mixtures of experts in the place of a feed-forward block: their weights and their plan.

use super::config::Moe;
use super::loader::Loader;
use super::weights::{Product, Projections};
use super::{Config, Error};
use crate::backend::{ExpertProducts, Gating, PlanBuilder, Routing, View, WeightId};
use crate::quant::QuantType;

/// The weights of a layer's experts.
#[derive(Debug)]
pub(super) struct ExpertWeights {
    moe: Moe,
    /// Scores of the experts.
    router: Product,
    /// Added to the weights of experts for the choice.
    choice_bias: Option<WeightId>,
    /// Gate and up, in one product or in two.
    gate_up: Vec<Product>,
    down: Product,
    shared: Option<SharedExperts>,
}

/// The experts that every token goes through, as one block.
#[derive(Debug)]
struct SharedExperts {
    /// The score of the block, where its result is weighted.
    router: Option<WeightId>,
    gate_up: Projections,
    down: Product,
}

impl ExpertWeights {
    /// The tensors of layer `i`.
    pub fn load(
        loader: &mut Loader<'_>,
        i: usize,
        c: &Config,
        moe: Moe,
    ) -> Result<ExpertWeights, Error> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let (gate, up) = (name("ffn_gate_exps"), name("ffn_up_exps"));
        let shape = [c.dim, moe.ffn_dim];
        let together =
            loader.expert_kind(&gate, shape, &moe)? == loader.expert_kind(&up, shape, &moe)?;
        let gate_up = match together {
            true => vec![loader.experts(&[&gate, &up], &moe)?],
            false => vec![
                loader.experts(&[&gate], &moe)?,
                loader.experts(&[&up], &moe)?,
            ],
        };
        let down = name("ffn_down_exps");
        loader.expert_kind(&down, [moe.ffn_dim, c.dim], &moe)?;
        Ok(ExpertWeights {
            moe,
            router: loader.product(&name("ffn_gate_inp"), moe.n_experts, c.dim)?,
            choice_bias: loader.optional_vector(&name("exp_probs_b.bias"), moe.n_experts)?,
            gate_up,
            down: loader.experts(&[&down], &moe)?,
            shared: match moe.shared_dim {
                0 => None,
                dim => Some(SharedExperts::load(loader, i, c, dim)?),
            },
        })
    }
}

impl SharedExperts {
    fn load(
        loader: &mut Loader<'_>,
        i: usize,
        c: &Config,
        ffn_dim: usize,
    ) -> Result<SharedExperts, Error> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let parts = [
            (name("ffn_gate_shexp"), ffn_dim),
            (name("ffn_up_shexp"), ffn_dim),
        ];
        Ok(SharedExperts {
            router: loader.optional_matrix(&name("ffn_gate_inp_shexp.weight"), 1, c.dim)?,
            gate_up: loader.projections(&parts, c.dim)?,
            down: loader.product(&name("ffn_down_shexp"), c.dim, ffn_dim)?,
        })
    }
}

impl Loader<'_> {
    /// Type and bias of a tensor of experts, with its shape checked: `[cols, rows]` of each.
    fn expert_kind(
        &self,
        base: &str,
        [cols, rows]: [usize; 2],
        moe: &Moe,
    ) -> Result<(QuantType, bool), Error> {
        let extents = [cols, rows, moe.n_experts].map(|n| n as u64);
        let quant = self.check(&format!("{base}.weight"), &extents)?;
        let bias = format!("{base}.bias");
        let has_bias = self.has(&bias);
        if has_bias {
            self.check_floats(&bias, &extents[1..])?;
        }
        Ok((quant, has_bias))
    }

    /// Matrices of experts joined within each, with their biases.
    fn experts(&mut self, bases: &[&str], moe: &Moe) -> Result<Product, Error> {
        let named = |suffix: &str| -> Vec<String> {
            let names = bases.iter().map(|base| format!("{base}.{suffix}"));
            names.collect()
        };
        let (weights, biases) = (named("weight"), named("bias"));
        let bias = match self.has(&biases[0]) {
            true => Some(self.add_expert_biases(&strs(&biases), moe.n_experts)?),
            false => None,
        };
        Ok(Product {
            weight: self.add_experts(&strs(&weights), moe.n_experts)?,
            bias,
        })
    }
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// `x + scale * experts(h)`, `[tokens, dim]`.
pub(super) fn feed_forward(
    b: &mut PlanBuilder,
    c: &Config,
    w: &ExpertWeights,
    h: View,
    x: View,
) -> View {
    let moe = &w.moe;
    let scaled = c.residual_scale != 1.0;
    let mut sum = (!scaled).then_some(x);
    if let Some(shared) = &w.shared {
        sum = Some(shared_experts(b, c, shared, h, sum));
    }
    let scores = b.matmul(h, w.router.weight, w.router.bias, None);
    let route = b.moe_route(scores, w.choice_bias, moe.routing);
    let product = |product: Product, input: View, slot_stride: usize| ExpertProducts {
        input,
        slot_stride,
        route: Some(route),
        n_used: moe.routing.n_used,
        weight: product.weight,
        bias: product.bias,
    };
    let width = moe.routing.n_used * moe.ffn_dim;
    let (gate, up) = match w.gate_up[..] {
        [gate, up] => (
            b.matmul_experts(product(gate, h, 0)),
            b.matmul_experts(product(up, h, 0)),
        ),
        [gate_up] => {
            let both = b.matmul_experts(product(gate_up, h, 0));
            (both.columns(0, width), both.columns(width, width))
        }
        _ => unreachable!("gate and up are one product or two"),
    };
    let mixed = b.glu(gate, up, c.activation);
    let made = b.matmul_experts(product(w.down, mixed, moe.ffn_dim));
    let sum = b.moe_combine(made, route, sum);
    match scaled {
        false => sum,
        true => {
            let sum = b.scale(sum, c.residual_scale);
            b.add(x, sum)
        }
    }
}

/// What every token gets from the shared experts, plus what was there before.
fn shared_experts(
    b: &mut PlanBuilder,
    c: &Config,
    w: &SharedExperts,
    h: View,
    sum: Option<View>,
) -> View {
    let [gate, up] = super::decoder::project(b, h, &w.gate_up)[..] else {
        unreachable!("a block has two projections");
    };
    let mixed = b.glu(gate, up, c.activation);
    let Some(router) = w.router else {
        return b.matmul(mixed, w.down.weight, w.down.bias, sum);
    };
    let made = b.matmul(mixed, w.down.weight, w.down.bias, None);
    // One expert that is always chosen, with the sigmoid of its score for a weight.
    let score = b.matmul(h, router, None, None);
    let routing = Routing {
        gating: Gating::Sigmoid,
        ..Routing::softmax(1, false)
    };
    let route = b.moe_route(score, None, routing);
    b.moe_combine(made, route, sum)
}
