//! Layers that mix tokens through a recurrent state: their tensors and their part of the plan.

use super::Error;
use super::config::{Config, Mixer};
use super::decoder::project;
use super::loader::Loader;
use super::weights::{LayerWeights, Projections};
use crate::backend::{Activation, PlanBuilder, View, WeightId};

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
    },
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
            let parts = [
                (name("attn_qkv"), heads.qkv_dim()),
                (name("attn_gate"), heads.out_dim()),
                (name("ssm_alpha"), heads.n_heads),
                (name("ssm_beta"), heads.n_heads),
            ];
            Some((
                loader.projections(&parts, dim)?,
                RecurrentWeights::DeltaNet {
                    conv: loader.taps(&name("ssm_conv1d.weight"), kernel, heads.qkv_dim())?,
                    decay: loader.vector(&name("ssm_a"), heads.n_heads)?,
                    bias: loader.vector(&name("ssm_dt.bias"), heads.n_heads)?,
                    norm: loader.vector(&name("ssm_norm.weight"), heads.head_dim)?,
                },
            ))
        }
    })
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
            },
        ) => {
            let [qkv, gate, alpha, beta] = project(b, h, &w.qkv)[..] else {
                unreachable!("a delta net has four projections");
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
