//! Mixtures of experts in the place of a feed-forward block: their weights and their plan.

use super::config::{Ffn, Moe};
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
    /// Factors on what each expert gives.
    factors: Option<WeightId>,
    up: ExpertUp,
    down: Product,
    shared: Option<SharedExperts>,
}

/// What leads into an expert.
#[derive(Debug)]
enum ExpertUp {
    /// Gate and up in one product.
    Joined(Product),
    /// Gate, then up.
    Apart(Product, Product),
    /// Up without a gate.
    Plain(Product),
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
        Ok(ExpertWeights {
            moe,
            router: loader.product(&name("ffn_gate_inp"), moe.n_experts, c.dim)?,
            choice_bias: loader.optional_vector(&name("exp_probs_b.bias"), moe.n_experts)?,
            factors: loader.optional_vector(&name("ffn_down_exps.scale"), moe.n_experts)?,
            up: ExpertUp::load(loader, i, c, &moe)?,
            down: ExpertMatrix::new(i, "down", [moe.ffn_dim, c.dim]).load(loader, &moe)?,
            shared: match moe.shared_dim {
                0 => None,
                dim => Some(SharedExperts::load(loader, i, c, dim)?),
            },
        })
    }
}

impl ExpertUp {
    fn load(loader: &mut Loader<'_>, i: usize, c: &Config, moe: &Moe) -> Result<ExpertUp, Error> {
        let matrix = |part| ExpertMatrix::new(i, part, [c.dim, moe.ffn_dim]);
        let (gate, up) = (matrix("gate"), matrix("up"));
        if c.ffn == Ffn::Plain {
            return up.load(loader, moe).map(ExpertUp::Plain);
        }
        let fused = format!("blk.{i}.ffn_gate_up_exps");
        if loader.has(&format!("{fused}.weight")) {
            return loader
                .fused_experts(&fused, c.dim, moe)
                .map(ExpertUp::Joined);
        }
        Ok(match gate.kind(loader, moe)? == up.kind(loader, moe)? {
            true => ExpertUp::Joined(loader.experts(&[&gate, &up], moe)?),
            false => ExpertUp::Apart(gate.load(loader, moe)?, up.load(loader, moe)?),
        })
    }
}

/// A matrix of each expert in a layer: `[n_experts, rows, cols]`.
struct ExpertMatrix {
    layer: usize,
    part: &'static str,
    cols: usize,
    rows: usize,
}

impl ExpertMatrix {
    fn new(layer: usize, part: &'static str, [cols, rows]: [usize; 2]) -> ExpertMatrix {
        ExpertMatrix {
            layer,
            part,
            cols,
            rows,
        }
    }

    /// Its tensor without `.weight`.
    fn base(&self) -> String {
        format!("blk.{}.ffn_{}_exps", self.layer, self.part)
    }

    /// The tensors that hold it: one, or in files before 2024 one for each expert.
    fn weights(&self, loader: &Loader<'_>, moe: &Moe) -> Vec<String> {
        let whole = format!("{}.weight", self.base());
        let each = |expert| format!("blk.{}.ffn_{}.{expert}.weight", self.layer, self.part);
        match loader.has(&whole) || !loader.has(&each(0)) {
            true => vec![whole],
            false => (0..moe.n_experts).map(each).collect(),
        }
    }

    /// Its type, whether it has a bias, and its name where an adapter is for it alone; with all
    /// shapes checked.
    fn kind(
        &self,
        loader: &Loader<'_>,
        moe: &Moe,
    ) -> Result<(QuantType, bool, Option<&'static str>), Error> {
        let names = self.weights(loader, moe);
        let extents = [self.cols, self.rows, moe.n_experts / names.len()].map(|n| n as u64);
        let mut quant = None;
        for name in &names {
            let found = loader.check(name, &extents)?;
            if *quant.get_or_insert(found) != found {
                return Err(Error::Tensor(format!(
                    "tensor {name} has another type than {}",
                    names[0]
                )));
            }
        }
        let bias = format!("{}.bias", self.base());
        let has_bias = loader.has(&bias);
        if has_bias {
            let extents = [self.rows, moe.n_experts].map(|n| n as u64);
            loader.check_floats(&bias, &extents)?;
        }
        let alone = loader.is_adapted(&names[0]).then_some(self.part);
        Ok((quant.expect("at least one tensor"), has_bias, alone))
    }

    fn load(&self, loader: &mut Loader<'_>, moe: &Moe) -> Result<Product, Error> {
        self.kind(loader, moe)?;
        loader.experts(&[self], moe)
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
    /// Matrices of one kind joined within each expert, with their biases.
    fn experts(&mut self, matrices: &[&ExpertMatrix], moe: &Moe) -> Result<Product, Error> {
        let biases: Vec<String> = matrices
            .iter()
            .map(|m| format!("{}.bias", m.base()))
            .collect();
        let bias = match self.has(&biases[0]) {
            true => Some(self.add_expert_biases(&strs(&biases), moe.n_experts)?),
            false => None,
        };
        let tensors: Vec<Vec<String>> = matrices.iter().map(|m| m.weights(self, moe)).collect();
        // The tensors of the first expert, then those of the second, and so on.
        let n_files = tensors[0].len();
        let names: Vec<String> = (0..n_files)
            .flat_map(|i| tensors.iter().map(move |t| t[i].clone()))
            .collect();
        Ok(Product {
            weight: self.add_experts(&strs(&names), moe.n_experts, n_files)?,
            bias,
        })
    }

    /// Gate and up, whose rows one tensor has in this order.
    fn fused_experts(&mut self, base: &str, cols: usize, moe: &Moe) -> Result<Product, Error> {
        let (weight, bias) = (format!("{base}.weight"), format!("{base}.bias"));
        if self.has(&bias) {
            return Err(Error::Unsupported(format!("tensor {bias}")));
        }
        let extents = [cols, 2 * moe.ffn_dim, moe.n_experts].map(|n| n as u64);
        self.check(&weight, &extents)?;
        Ok(Product {
            weight: self.add_fused_experts(&weight, moe.n_experts, 2)?,
            bias: None,
        })
    }
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// `x + scale * experts(h)`, `[tokens, dim]`: the scale is in the weights of the chosen experts.
pub(super) fn feed_forward(
    b: &mut PlanBuilder,
    c: &Config,
    w: &ExpertWeights,
    h: View,
    x: View,
) -> View {
    let sum = match &w.shared {
        Some(shared) => shared_experts(b, c, shared, h, x),
        None => x,
    };
    mixture(b, c, w, (h, h), Some(sum))
}

/// The weighted sum of what the chosen experts make of `h`, plus what was there before; `judged` is
/// what the router looks at.
pub(super) fn mixture(
    b: &mut PlanBuilder,
    c: &Config,
    w: &ExpertWeights,
    (judged, h): (View, View),
    sum: Option<View>,
) -> View {
    let moe = &w.moe;
    let scores = b.matmul(judged, w.router.weight, w.router.bias, None);
    let routing = scaled(moe.routing, c);
    let route = b.moe_route_by(scores, w.choice_bias, w.factors, routing);
    let product = |product: Product, input: View, slot_stride: usize| ExpertProducts {
        input,
        slot_stride,
        route: Some(route),
        n_used: moe.routing.n_used,
        weight: product.weight,
        bias: product.bias,
    };
    let width = moe.routing.n_used * moe.ffn_dim;
    let mixed = match w.up {
        ExpertUp::Joined(gate_up) => {
            let both = b.matmul_experts(product(gate_up, h, 0));
            let (gate, up) = (both.columns(0, width), both.columns(width, width));
            b.glu(gate, up, c.activation)
        }
        ExpertUp::Apart(gate, up) => {
            let gate = b.matmul_experts(product(gate, h, 0));
            let up = b.matmul_experts(product(up, h, 0));
            b.glu(gate, up, c.activation)
        }
        ExpertUp::Plain(up) => {
            let up = b.matmul_experts(product(up, h, 0));
            b.activate(up, c.activation)
        }
    };
    let made = b.matmul_experts(product(w.down, mixed, moe.ffn_dim));
    b.moe_combine(made, route, sum)
}

/// A choice of experts whose results are added to the residual stream.
fn scaled(routing: Routing, c: &Config) -> Routing {
    Routing {
        scale: routing.scale * c.residual_scale,
        ..routing
    }
}

/// `x` plus what every token gets from the shared experts.
fn shared_experts(b: &mut PlanBuilder, c: &Config, w: &SharedExperts, h: View, x: View) -> View {
    let [gate, up] = super::decoder::project(b, h, &w.gate_up)[..] else {
        unreachable!("a block has two projections");
    };
    let mixed = b.glu(gate, up, c.activation);
    let Some(router) = w.router else {
        return super::decoder::add_product(b, c, mixed, w.down, None, x);
    };
    let made = b.matmul(mixed, w.down.weight, w.down.bias, None);
    // One expert that is always chosen, with the sigmoid of its score for a weight.
    let score = b.matmul(h, router, None, None);
    let routing = Routing {
        gating: Gating::Sigmoid,
        ..Routing::softmax(1, false)
    };
    let route = b.moe_route(score, None, scaled(routing, c));
    b.moe_combine(made, route, Some(x))
}
