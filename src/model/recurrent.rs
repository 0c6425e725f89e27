//! Layers that mix tokens through a recurrent state: their tensors and their part of the plan.

use super::Error;
use super::config::{Config, Mixer};
use super::decoder::project;
use super::loader::Loader;
use super::weights::{LayerWeights, Projections};
use crate::backend::{Activation, DeltaHeads, PlanBuilder, View, WeightId};

/// The tensors of a recurrent layer besides its projections.
#[derive(Debug, Clone, Copy)]
pub(super) enum RecurrentWeights {
    ShortConv {
        conv: WeightId,
    },
    DeltaNet {
        conv: WeightId,
        decay: WeightId,
        bias: WeightId,
        norm: WeightId,
        gates: GateOrder,
    },
}

/// In which order the projections give what gates a delta net's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GateOrder {
    /// The decay, then the share of the new value.
    AlphaBeta,
    /// The other way round.
    BetaAlpha,
}

/// Projections and the other tensors of a recurrent layer; none for attention.
pub(super) fn load(
    loader: &mut Loader,
    name: impl Fn(&str) -> String,
    mixer: Mixer,
    dim: usize,
) -> Result<Option<(Projections, RecurrentWeights)>, Error> {
    Ok(match mixer {
        Mixer::Attention => None,
        Mixer::ShortConv { kernel } => Some((
            loader.projections(&[(name("shortconv.in_proj"), 3 * dim)], dim)?,
            RecurrentWeights::ShortConv {
                conv: loader.taps(&name("shortconv.conv.weight"), kernel, dim)?,
            },
        )),
        Mixer::DeltaNet { kernel, heads } => {
            let (projections, gates) = delta_projections(loader, &name, heads, dim)?;
            Some((
                projections,
                RecurrentWeights::DeltaNet {
                    conv: loader.taps(&name("ssm_conv1d.weight"), kernel, heads.qkv_dim())?,
                    decay: loader.vector(&name("ssm_a"), heads.n_heads)?,
                    bias: loader.vector(&name("ssm_dt.bias"), heads.n_heads)?,
                    norm: loader.vector(&name("ssm_norm.weight"), heads.head_dim)?,
                    gates,
                },
            ))
        }
    })
}

/// Queries, keys and values, the gate of the result, and what gates the state.
fn delta_projections(
    loader: &mut Loader,
    name: &impl Fn(&str) -> String,
    heads: DeltaHeads,
    dim: usize,
) -> Result<(Projections, GateOrder), Error> {
    let (qkv, gate) = (name("attn_qkv"), name("attn_gate"));
    let inputs = [(qkv, heads.qkv_dim()), (gate, heads.out_dim())];
    let (fused, fused_gates) = (name("ssm_in"), name("ssm_ba"));
    let (n_heads, head_dim) = (heads.n_heads, heads.head_dim);
    if !loader.has(&format!("{fused_gates}.weight")) {
        let gates = [(name("ssm_alpha"), n_heads), (name("ssm_beta"), n_heads)];
        let parts = [inputs, gates].concat();
        return Ok((loader.projections(&parts, dim)?, GateOrder::AlphaBeta));
    }
    // Files of Qwen 3 Next keep the rows of a key head and of its value heads together.
    let group = n_heads / heads.n_key_heads;
    let mut projections = match loader.has(&format!("{fused}.weight")) {
        false => loader.projections(&inputs, dim)?,
        true => {
            let rows = heads.qkv_dim() + heads.out_dim();
            let (keys, values) = (head_dim, group * head_dim);
            let product = loader.dealt(&fused, (rows, dim), &[keys, keys, values, values])?;
            let widths = vec![heads.qkv_dim(), heads.out_dim()];
            Projections {
                products: vec![(product, widths)],
            }
        }
    };
    let product = loader.dealt(&fused_gates, (2 * n_heads, dim), &[group, group])?;
    projections.products.push((product, vec![n_heads, n_heads]));
    Ok((projections, GateOrder::BetaAlpha))
}

/// What goes into the output projection of a recurrent layer; `h` is `[tokens, dim]`, normed.
pub(super) fn plan(
    b: &mut PlanBuilder,
    c: &Config,
    w: &LayerWeights,
    recurrent: RecurrentWeights,
    layer: usize,
    h: View,
) -> View {
    let state = c.first_state(layer);
    match (c.layers[layer].mixer, recurrent) {
        (Mixer::ShortConv { .. }, RecurrentWeights::ShortConv { conv }) => {
            let all = project(b, h, &w.qkv)[0];
            let part = |i: usize| all.columns(i * c.dim, c.dim);
            let gated = b.glu(part(0), part(2), Activation::Identity);
            let mixed = b.short_conv(state, gated, conv, false);
            b.glu(part(1), mixed, Activation::Identity)
        }
        (
            Mixer::DeltaNet { heads, .. },
            RecurrentWeights::DeltaNet {
                conv,
                decay,
                bias,
                norm,
                gates,
            },
        ) => {
            let [qkv, gate, first, second] = project(b, h, &w.qkv)[..] else {
                unreachable!("a delta net has four projections");
            };
            let (alpha, beta) = match gates {
                GateOrder::AlphaBeta => (first, second),
                GateOrder::BetaAlpha => (second, first),
            };
            let qkv = b.short_conv(state, qkv, conv, true);
            let (gates, weights) = ((alpha, beta), (decay, bias));
            let mixed = b.delta_net(state + 1, qkv, gates, weights, heads, c.norm_eps);
            let normed = b.rms_norm(mixed, norm, c.norm_eps);
            b.glu(gate, normed, Activation::Silu)
        }
        _ => unreachable!("weights are loaded for the layer's mixer"),
    }
}
