//! The plan of a decoder, top to bottom.

use super::config::Norm;
use super::weights::{FfnWeights, LayerWeights, NormWeights, Product, Projections, Weights};
use super::{Config, Layer, altup, beside, experts, latent, layer_embed, recurrent};
use crate::backend::{Activation, Attention, BatchShape, EmbedRow, Plan, PlanBuilder, View};

/// Records one step in a context of `n_ctx` tokens: token ids to logits of the wanted rows.
pub(super) fn plan(
    c: &Config,
    w: &Weights,
    n_ctx: usize,
    shape: BatchShape,
    top_k: Option<usize>,
) -> Plan {
    let tables = c.rope_tables(n_ctx).to_vec();
    let mut b = PlanBuilder::new(shape, &w.specs, tables).with_updates(&w.updates);
    let x = layers(&mut b, c, w);
    b.scope("output");
    let mut wanted = b.select_rows(x);
    if let Some(altup) = &w.altup {
        wanted = altup::merge(&mut b, c, altup, wanted);
    }
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

/// The residual stream after all layers, `[tokens, dim]`, or all streams.
pub(super) fn layers(b: &mut PlanBuilder, c: &Config, w: &Weights) -> View {
    let mut x = embed(b, c, w);
    let extra = w.layer_embed.as_ref();
    let extra = extra.map(|extra| layer_embed::inputs(b, c, extra, x));
    if let Some(altup) = &w.altup {
        x = altup::spread(b, altup, x);
    }
    for (i, layer) in w.layers.iter().enumerate() {
        b.layer(i);
        let own = extra.zip(layer.layer_embed.as_ref());
        let own = own.map(|(extra, w)| (extra.columns(i * w.dim, w.dim), w));
        x = match (&layer.altup, own) {
            (Some(altup), Some(own)) => altup::layer(b, c, (layer, altup, own), i, x),
            _ => decoder_layer(b, c, layer, i, x),
        };
        if let (None, Some((input, w))) = (&layer.altup, own) {
            let made = layer_embed::made(b, c, w, input, x);
            x = b.add(x, made);
        }
        if let Some(scale) = layer.output_scale {
            x = b.scale(x, scale);
        }
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
    let heads = c.heads(i);
    let (q, gate, kv) = match project(b, h, &w.qkv)[..] {
        [q] => (q, None, None),
        // Values that are the keys before their norm.
        [q, k] => (q, None, Some((k, k))),
        [q, k, v] => (q, None, Some((k, v))),
        [q, gate, k, v] => (q, Some(gate), Some((k, v))),
        _ => unreachable!("a layer has up to three attention projections, and may have a gate"),
    };
    let mut placed = |x: View, norm: Option<NormWeights>, table: Option<usize>| {
        let mut x = x;
        if !c.head_norms_last {
            x = norm_where_present(b, c, norm, x);
        }
        if let Some(table) = table {
            x = b.rope(x, heads.key_dim, table, c.rope_order);
        }
        if c.head_norms_last {
            x = norm_where_present(b, c, norm, x);
        }
        x
    };
    let q = placed(q, w.q_norm, layer.rope.map(|rope| rope.q));
    let kv = kv.map(|(k, v)| (placed(k, w.k_norm, layer.rope.map(|rope| rope.k)), v));
    let cache = c.cache_layer(i);
    if let Some((k, mut v)) = kv {
        if c.value_norms {
            v = b.plain_rms_norm(v, heads.value_dim, c.norm_eps);
        }
        b.kv_write(cache, k, v);
    }
    let mixed = b.attention(Attention {
        layer: cache,
        q,
        n_heads: heads.n,
        n_kv_heads: heads.n_kv,
        head_dim: heads.key_dim,
        value_dim: heads.value_dim,
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
        FfnWeights::Beside(both) => {
            let y = beside::feed_forward(b, c, both, h, x);
            let y = norm_where_present(b, c, w.post_ffw_norm, y);
            return b.add(x, y);
        }
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
