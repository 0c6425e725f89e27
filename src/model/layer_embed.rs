//! An embedding of the token for each layer, besides the one at the beginning: their weights and
//! their plan, as Gemma 3n and Gemma 4 have them.

use super::loader::Loader;
use super::weights::NormWeights;
use super::{Config, Error};
use crate::backend::{Activation, PlanBuilder, View, WeightId};

/// The factor on a sum of two vectors that keeps their length, where they are unrelated.
const SUM_SCALE: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// The matrices of all layers together; the columns of a layer lie together.
#[derive(Debug)]
pub(super) struct LayerEmbedding {
    /// A row for each token.
    pub(super) tokens: WeightId,
    /// From the residual stream at its beginning.
    projection: WeightId,
    /// Over the columns of each layer.
    norm: NormWeights,
    dim: usize,
}

impl LayerEmbedding {
    pub fn load(loader: &mut Loader<'_>, c: &Config, dim: usize) -> Result<Self, Error> {
        let cols = dim * c.layers.len();
        Ok(LayerEmbedding {
            tokens: loader.table("per_layer_token_embd.weight", c.vocab_size, cols)?,
            projection: loader.matrix("per_layer_model_proj.weight", cols, c.dim)?,
            norm: loader.needed_norm("per_layer_proj_norm", dim, c)?,
            dim,
        })
    }
}

/// The matrices of one layer.
#[derive(Debug)]
pub(super) struct LayerEmbedWeights {
    gate: WeightId,
    up: WeightId,
    norm: NormWeights,
    pub dim: usize,
}

impl LayerEmbedWeights {
    pub fn load(loader: &mut Loader<'_>, i: usize, c: &Config, dim: usize) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{i}.{part}");
        Ok(LayerEmbedWeights {
            gate: loader.matrix(&name("inp_gate.weight"), dim, c.dim)?,
            up: loader.matrix(&name("proj.weight"), c.dim, dim)?,
            norm: loader.needed_norm(&name("post_norm"), c.dim, c)?,
            dim,
        })
    }
}

/// What all layers get, `[tokens, layers * dim]`; `x` is the residual stream at its beginning.
pub(super) fn inputs(b: &mut PlanBuilder, c: &Config, w: &LayerEmbedding, x: View) -> View {
    let tokens = b.embed(w.tokens, SUM_SCALE * (w.dim as f32).sqrt());
    let projected = b.matmul(x, w.projection, None, None);
    let projected = b.scale(projected, 1.0 / (c.dim as f32).sqrt());
    let normed = b.rms_norm(projected, w.norm.weight, c.norm_eps);
    let normed = b.scale(normed, SUM_SCALE);
    b.add(tokens, normed)
}

/// `norm(up(gelu(gate(x)) * input))`, `[tokens, dim]`.
pub(super) fn made(
    b: &mut PlanBuilder,
    c: &Config,
    w: &LayerEmbedWeights,
    input: View,
    x: View,
) -> View {
    let gate = b.matmul(x, w.gate, None, None);
    let mixed = b.glu(gate, input, Activation::GeluTanh);
    let made = b.matmul(mixed, w.up, None, None);
    b.rms_norm(made, w.norm.weight, c.norm_eps)
}
