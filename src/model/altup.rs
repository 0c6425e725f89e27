//! Several residual streams, of which a layer reads one and updates all: alternating updates (Baykal et
//! al. 2023, <https://arxiv.org/abs/2301.13310>), with learned residuals of low rank beside attention
//! (Menghani et al. 2024, <https://arxiv.org/abs/2411.07501>), as Gemma 3n has them.

use super::config::AltUp;
use super::decoder::{add_product, attention, feed_forward, norm, project};
use super::layer_embed::{self, LayerEmbedWeights};
use super::loader::Loader;
use super::weights::{FfnWeights, LayerWeights, NormWeights};
use super::{Config, Error};
use crate::backend::{Activation, Heads, PlanBuilder, View, WeightId};

/// The stream that layers read.
const ACTIVE: usize = 0;

/// The weights around all layers.
#[derive(Debug)]
pub(super) struct AltUpWeights {
    /// From the embedding to the other streams, one after another.
    spread: WeightId,
    /// From each of the other streams at the end.
    merge: Vec<WeightId>,
}

impl AltUpWeights {
    pub fn load(loader: &mut Loader<'_>, c: &Config, altup: &AltUp) -> Result<Self, Error> {
        let n_others = altup.n_streams - 1;
        let [dim, others] = [c.dim, n_others].map(|n| n as u64);
        let spread = "altup_proj.weight";
        loader.check(spread, &[dim, dim, others])?;
        let merge = "altup_unembd_proj.weight";
        loader.check(merge, &[dim, dim, others])?;
        Ok(AltUpWeights {
            spread: loader.add(&[spread])?,
            merge: loader.add_rows(merge, c.dim)?,
        })
    }
}

/// The weights of one layer.
#[derive(Debug)]
pub(super) struct AltUpLayer {
    router_norm: NormWeights,
    router: WeightId,
    predict: WeightId,
    correct: WeightId,
    /// Factors on what the layer's embedding looks at.
    scale: WeightId,
    /// To the low rank, and back.
    laurel: [WeightId; 2],
    laurel_norm: NormWeights,
}

impl AltUpLayer {
    pub fn load(
        loader: &mut Loader<'_>,
        i: usize,
        c: &Config,
        altup: &AltUp,
    ) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let n = altup.n_streams;
        let down = loader.rows_of(&name("laurel_l"), c.dim)?;
        let (down, rank) = down.ok_or_else(|| {
            Error::Tensor(format!("tensor {} is missing", name("laurel_l.weight")))
        })?;
        Ok(AltUpLayer {
            router_norm: loader.needed_norm(&name("altup_router_norm"), c.dim, c)?,
            router: loader.matrix(&name("altup_router.weight"), n, c.dim)?,
            predict: loader.matrix(&name("altup_predict_coef.weight"), n * n, n)?,
            correct: loader.matrix(&name("altup_correct_coef.weight"), n, n)?,
            scale: loader.vector(&name("altup_correct_scale.weight"), c.dim)?,
            laurel: [
                down.weight,
                loader.matrix(&name("laurel_r.weight"), c.dim, rank)?,
            ],
            laurel_norm: loader.needed_norm(&name("laurel_post_norm"), c.dim, c)?,
        })
    }
}

/// The streams at the beginning, `[tokens, streams * dim]`: the embedding, and what the others have
/// of it at its length.
pub(super) fn spread(b: &mut PlanBuilder, w: &AltUpWeights, x: View) -> View {
    let others = b.matmul(x, w.spread, None, None);
    let others = b.match_length(others, x);
    side_by_side(b, x, others)
}

/// The mean of the streams of each row, the others being read at the length of the active one.
pub(super) fn merge(b: &mut PlanBuilder, c: &Config, w: &AltUpWeights, streams: View) -> View {
    let active = streams.columns(ACTIVE, c.dim);
    let mut sum = active;
    for (i, &weight) in (1..).zip(&w.merge) {
        let other = b.matmul(streams.columns(i * c.dim, c.dim), weight, None, None);
        let other = b.match_length(other, active);
        sum = b.add(sum, other);
    }
    b.scale(sum, 1.0 / (w.merge.len() + 1) as f32)
}

/// One layer: the streams are predicted, the active one goes through attention and the feed-forward
/// block, and all are corrected by how far it came out from its prediction. The layer's own
/// embedding of the tokens comes with its weights.
pub(super) fn layer(
    b: &mut PlanBuilder,
    c: &Config,
    (w, altup, (input, embed)): (&LayerWeights, &AltUpLayer, (View, &LayerEmbedWeights)),
    i: usize,
    streams: View,
) -> View {
    let active = streams.columns(ACTIVE, c.dim);
    let modalities = route(b, c, altup, active);
    let mix = b.matmul(modalities, altup.predict, None, None);
    let predicted = b.stream_mix(streams, (streams, c.dim), mix, 0.0);

    let active = predicted.columns(ACTIVE, c.dim);
    let made = block(b, c, (w, altup), i, active);

    let modalities = route(b, c, altup, made);
    let mix = b.matmul(modalities, altup.correct, None, None);
    let negative = b.scale(active, -1.0);
    let off = b.add(made, negative);
    let corrected = b.stream_mix(predicted, (off, c.dim), mix, 1.0);

    let active = corrected.columns(ACTIVE, c.dim);
    let scale = b.repeat(altup.scale, active);
    let seen = b.glu(scale, active, Activation::Identity);
    let added = layer_embed::made(b, c, embed, input, seen);
    let others = corrected.columns(c.dim, corrected.cols - c.dim);
    let repeated = Heads {
        view: added,
        stride: 0,
        width: c.dim,
    };
    let added = b.concat_heads(others.cols / c.dim, repeated, None);
    let others = b.add(others, added);
    side_by_side(b, active, others)
}

/// Numbers from -1 to 1 that say what a token is like, one for each stream.
fn route(b: &mut PlanBuilder, c: &Config, w: &AltUpLayer, x: View) -> View {
    let x = b.rms_norm(x, w.router_norm.weight, c.norm_eps);
    let x = b.scale(x, 1.0 / c.dim as f32);
    let x = b.matmul(x, w.router, None, None);
    b.soft_cap(x, 1.0)
}

/// Attention with the low-rank residual beside it, then the feed-forward block, `[tokens, dim]`.
fn block(
    b: &mut PlanBuilder,
    c: &Config,
    (w, altup): (&LayerWeights, &AltUpLayer),
    i: usize,
    x: View,
) -> View {
    let h = norm(b, c, w.attn_norm, x);
    let low = b.matmul(h, altup.laurel[0], None, None);
    let low = b.matmul(low, altup.laurel[1], None, None);
    let low = b.rms_norm(low, altup.laurel_norm.weight, c.norm_eps);
    let laurel = b.add(h, low);
    let mixed = attention(b, c, w, (i, &c.layers[i]), h);
    let attended = add_product(b, c, mixed, w.attn_output, w.post_attention_norm, x);
    let x = b.add(attended, laurel);
    let x = b.scale(x, std::f32::consts::FRAC_1_SQRT_2);
    let h = norm(b, c, w.ffn_norm, x);
    let cutoff = c.altup.as_ref().and_then(|altup| altup.gate_cutoffs[i]);
    match (&w.ffn, cutoff) {
        (FfnWeights::Gated(gate_up, down), Some(cutoff)) => {
            let [gate, up] = project(b, h, gate_up)[..] else {
                unreachable!("a layer has two feed-forward projections");
            };
            let gate = b.gaussian_top_k(gate, cutoff);
            let mixed = b.glu(gate, up, c.activation);
            add_product(b, c, mixed, *down, w.post_ffw_norm, x)
        }
        _ => feed_forward(b, c, w, h, x),
    }
}

fn side_by_side(b: &mut PlanBuilder, a: View, others: View) -> View {
    let whole = |view: View| Heads {
        view,
        stride: 0,
        width: view.cols,
    };
    b.concat_heads(1, whole(a), Some(whole(others)))
}
