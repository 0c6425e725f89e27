//! The plan of a decoder, top to bottom.

use super::config::Norm;
use super::weights::{FfnWeights, LayerWeights, NormWeights, Product, Projections, Weights};
use super::{Config, Layer, experts, latent, recurrent};
use crate::backend::{Activation, Attention, BatchShape, EmbedRow, Plan, PlanBuilder, View};

/// Records one step in a context of `n_ctx` tokens: token ids to logits of the wanted rows.
pub(super) fn plan(
    c: &Config,
    w: &Weights,
    n_ctx: usize,
    shape: BatchShape,
    top_k: Option<usize>,
) -> Plan {
    let mut b = PlanBuilder::new(shape, &w.specs, c.rope_tables(n_ctx).to_vec());
    let x = layers(&mut b, c, w);
    b.scope("output");
    let wanted = b.select_rows(x);
    let normed = norm(&mut b, c, w.output_norm, wanted);
    let mut logits = b.matmul(normed, w.output.weight, w.output.bias, None);
    if c.logit_scale != 1.0 {
        logits = b.scale(logits, c.logit_scale);
    }
    if let Some(cap) = c.final_soft_cap {
        logits = b.soft_cap(logits, cap);
    }
    b.output(logits);
    if let Some(k) = top_k {
        b.top_k(logits, k.min(c.vocab_size));
    }
    b.finish()
}

/// The residual stream after all layers, `[tokens, dim]`.
pub(super) fn layers(b: &mut PlanBuilder, c: &Config, w: &Weights) -> View {
    let mut x = embed(b, c, w);
    for (i, layer) in w.layers.iter().enumerate() {
        b.layer(i);
        x = decoder_layer(b, c, layer, i, x);
    }
    x
}

/// What stands at the beginning of the residual stream: tokens, learned positions and the first
/// type of tokens, normalised.
pub(super) fn embed(b: &mut PlanBuilder, c: &Config, w: &Weights) -> View {
    b.scope("embed");
    let mut x = b.embed(w.embed, c.embed_scale);
    if let Some(types) = w.token_types {
        let first = b.embed_rows(types, EmbedRow::Fixed(0), 1.0);
        x = b.add(x, first);
    }
    if let Some(positions) = w.positions {
        let learned = b.embed_rows(positions, EmbedRow::Position, 1.0);
        x = b.add(x, learned);
    }
    norm_where_present(b, c, w.embed_norm, x)
}

/// `x + attention(norm(x))`, and the feed-forward block on top of it, `[tokens, dim]`.
fn decoder_layer(b: &mut PlanBuilder, c: &Config, w: &LayerWeights, i: usize, x: View) -> View {
    let h = norm(b, c, w.attn_norm, x);
    let mixed = match (&w.latent, w.recurrent) {
        (Some(latent), _) => latent::attention(b, c, latent, i, h),
        (None, Some(recurrent)) => recurrent::plan(b, c, w, recurrent, i, h),
        (None, None) => attention(b, c, w, (i, &c.layers[i]), h),
    };
    let attended = add_product(b, c, mixed, w.attn_output, w.post_attention_norm, x);
    let h = match (c.parallel, w.ffn_norm) {
        (false, ffn_norm) => norm(b, c, ffn_norm, attended),
        (true, None) => h,
        (true, ffn_norm) => norm(b, c, ffn_norm, x),
    };
    feed_forward(b, c, w, h, attended)
}

/// The norm of this family, or the input where the layer has none.
pub(super) fn norm(b: &mut PlanBuilder, c: &Config, w: Option<NormWeights>, x: View) -> View {
    match (c.norm, w) {
        (Norm::PlainLayer, _) => b.layer_norm(x, None, None, c.dim, c.norm_eps),
        (_, None) => x,
        (Norm::Rms, Some(w)) => {
            let normed = b.rms_norm(x, w.weight, c.norm_eps);
            w.bias.map_or(normed, |bias| {
                let bias = b.repeat(bias, normed);
                b.add(normed, bias)
            })
        }
        (Norm::Layer, Some(w)) => b.layer_norm(x, Some(w.weight), w.bias, w.group, c.norm_eps),
    }
}

/// A norm that only some models of the family have.
fn norm_where_present(b: &mut PlanBuilder, c: &Config, w: Option<NormWeights>, x: View) -> View {
    match w {
        None => x,
        Some(_) => norm(b, c, w, x),
    }
}

/// The heads' mixtures of values side by side, `[tokens, q_dim]`.
pub(super) fn attention(
    b: &mut PlanBuilder,
    c: &Config,
    w: &LayerWeights,
    (i, layer): (usize, &Layer),
    h: View,
) -> View {
    let (mut q, gate, mut k, v) = match project(b, h, &w.qkv)[..] {
        [q, k, v] => (q, None, k, v),
        [q, gate, k, v] => (q, Some(gate), k, v),
        _ => unreachable!("a layer has three attention projections, and may have a gate"),
    };
    if !c.head_norms_last {
        (q, k) = head_norms(b, c, w, q, k);
    }
    if let Some(rope) = layer.rope {
        q = b.rope(q, c.head_dim, rope.q, c.rope_order);
        k = b.rope(k, c.head_dim, rope.k, c.rope_order);
    }
    if c.head_norms_last {
        (q, k) = head_norms(b, c, w, q, k);
    }
    let cache = c.cache_layer(i);
    b.kv_write(cache, k, v);
    let mixed = b.attention(Attention {
        layer: cache,
        q,
        n_heads: c.n_heads,
        n_kv_heads: c.n_kv_heads,
        head_dim: c.head_dim,
        value_dim: c.value_dim,
        scale: c.attention_scale,
        causal: c.causal,
        window: layer.window,
        soft_cap: c.attention_soft_cap,
        sinks: w.sinks,
        alibi: c.alibi,
    });
    match gate {
        None => mixed,
        Some(gate) => b.glu(gate, mixed, Activation::Sigmoid),
    }
}

/// Queries and keys after their norms, where the layer has them.
fn head_norms(b: &mut PlanBuilder, c: &Config, w: &LayerWeights, q: View, k: View) -> (View, View) {
    (
        norm_where_present(b, c, w.q_norm, q),
        norm_where_present(b, c, w.k_norm, k),
    )
}

/// `x` plus what the feed-forward block makes of `h`, `[tokens, dim]`.
pub(super) fn feed_forward(
    b: &mut PlanBuilder,
    c: &Config,
    w: &LayerWeights,
    h: View,
    x: View,
) -> View {
    let (mixed, down) = match &w.ffn {
        FfnWeights::Experts(experts) => return experts::feed_forward(b, c, experts, h, x),
        FfnWeights::Gated(gate_up, down) => {
            let [gate, up] = project(b, h, gate_up)[..] else {
                unreachable!("a layer has two feed-forward projections");
            };
            (b.glu(gate, up, c.activation), down)
        }
        FfnWeights::Plain(up, down) => {
            let up = b.matmul(h, up.weight, up.bias, None);
            (b.activate(up, c.activation), down)
        }
    };
    add_product(b, c, mixed, *down, w.post_ffw_norm, x)
}

/// `x + scale * norm(product(input))`.
pub(super) fn add_product(
    b: &mut PlanBuilder,
    c: &Config,
    input: View,
    product: Product,
    post_norm: Option<NormWeights>,
    x: View,
) -> View {
    let scaled = c.residual_scale != 1.0;
    if post_norm.is_none() && !scaled {
        return b.matmul(input, product.weight, product.bias, Some(x));
    }
    let mut y = b.matmul(input, product.weight, product.bias, None);
    y = norm_where_present(b, c, post_norm, y);
    if scaled {
        y = b.scale(y, c.residual_scale);
    }
    b.add(x, y)
}

/// The results of several matrices over one input, as views of the joined products.
pub(super) fn project(b: &mut PlanBuilder, input: View, projections: &Projections) -> Vec<View> {
    let mut views = Vec::new();
    for (product, widths) in &projections.products {
        let out = b.matmul(input, product.weight, product.bias, None);
        let mut offset = 0;
        for &width in widths {
            views.push(out.columns(offset, width));
            offset += width;
        }
    }
    views
}
