//! The plan of a model that embeds texts: an encoder like BERT, or a decoder's layers, and the
//! pooling that both end with.

use super::decoder::{add_product, attention, embed, feed_forward, layers, norm};
use super::weights::{LayerWeights, Weights};
use super::{Config, Pooling};
use crate::backend::{BatchShape, Plan, PlanBuilder, View};

/// Records one step in a context of `n_ctx` tokens: token ids of whole texts to one embedding for
/// each.
///
/// # Panics
/// If the model has no pooling.
pub(super) fn plan(c: &Config, w: &Weights, n_ctx: usize, shape: BatchShape) -> Plan {
    let tables = c.rope_tables(n_ctx).to_vec();
    let mut b = PlanBuilder::new(shape, &w.specs, tables).with_updates(&w.updates);
    let x = match c.post_norm {
        true => encoder_layers(&mut b, c, w),
        false => layers(&mut b, c, w),
    };
    b.scope("output");
    let x = norm(&mut b, c, w.output_norm, x);
    let mut pooled = match c.pooling.expect("a model that embeds") {
        Pooling::Mean => b.pool(x),
        Pooling::First | Pooling::Last => b.select_rows(x),
    };
    for dense in &w.dense {
        pooled = b.matmul(pooled, dense.weight, dense.bias, None);
    }
    b.output(pooled);
    b.finish()
}

/// The residual stream of an encoder after all layers, `[tokens, dim]`. Devlin et al. 2018,
/// <https://arxiv.org/abs/1810.04805>.
fn encoder_layers(b: &mut PlanBuilder, c: &Config, w: &Weights) -> View {
    let mut x = embed(b, c, w);
    for (i, layer) in w.layers.iter().enumerate() {
        b.layer(i);
        x = encoder_layer(b, c, layer, i, x);
    }
    x
}

/// `norm(y + ffn(y))` with `y = norm(x + attention(x))`, `[tokens, dim]`. Some models add their
/// input once more: `y = norm(x + norm(x + attention(x)))`.
fn encoder_layer(b: &mut PlanBuilder, c: &Config, w: &LayerWeights, i: usize, x: View) -> View {
    let mixed = attention(b, c, w, (i, &c.layers[i]), x);
    let attended = add_product(b, c, mixed, w.attn_output, None, x);
    let mut y = norm(b, c, w.attn_output_norm, attended);
    if w.attn_norm_2.is_some() {
        let twice = b.add(y, x);
        y = norm(b, c, w.attn_norm_2, twice);
    }
    let sum = feed_forward(b, c, w, y, y);
    norm(b, c, w.layer_output_norm, sum)
}
