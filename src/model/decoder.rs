//! The plan of a decoder, top to bottom.

use super::Config;
use super::weights::{LayerWeights, Projections, Weights};
use crate::backend::{Attention, BatchShape, Plan, PlanBuilder, View};

/// Records one step: token ids to logits of the wanted rows.
pub(super) fn plan(c: &Config, w: &Weights, shape: BatchShape, top_k: Option<usize>) -> Plan {
    let mut b = PlanBuilder::new(shape, &w.specs, c.rope_tables.clone());
    b.scope("embed");
    let mut x = b.embed(w.embed, c.embed_scale);
    for (i, layer) in w.layers.iter().enumerate() {
        b.scope(format!("blk.{i}"));
        x = attention(&mut b, c, layer, i, x);
        x = feed_forward(&mut b, c, layer, x);
    }
    b.scope("output");
    let wanted = b.select_rows(x);
    let normed = b.rms_norm(wanted, w.output_norm, c.norm_eps);
    let mut logits = b.matmul(normed, w.output, None, None);
    if let Some(cap) = c.final_soft_cap {
        logits = b.soft_cap(logits, cap);
    }
    b.output(logits);
    if let Some(k) = top_k {
        b.top_k(logits, k.min(c.vocab_size));
    }
    b.finish()
}

/// `x + attention(norm(x))`, `[tokens, dim]`.
fn attention(b: &mut PlanBuilder, c: &Config, w: &LayerWeights, layer: usize, x: View) -> View {
    let kind = &c.layers[layer];
    let h = b.rms_norm(x, w.attn_norm, c.norm_eps);
    let [mut q, mut k, v] = project(b, h, &w.qkv)[..] else {
        unreachable!("a layer has three attention projections");
    };
    if let Some(norm) = w.q_norm {
        q = b.rms_norm(q, norm, c.norm_eps);
    }
    if let Some(norm) = w.k_norm {
        k = b.rms_norm(k, norm, c.norm_eps);
    }
    let q = b.rope(q, c.head_dim, kind.rope_table, c.rope_order);
    let k = b.rope(k, c.head_dim, kind.rope_table, c.rope_order);
    b.kv_write(layer, k, v);
    let mixed = b.attention(Attention {
        layer,
        q,
        n_heads: c.n_heads,
        n_kv_heads: c.n_kv_heads,
        head_dim: c.head_dim,
        value_dim: c.value_dim,
        scale: c.attention_scale,
        causal: true,
        window: kind.window,
        soft_cap: c.attention_soft_cap,
        sinks: w.sinks,
        alibi: None,
    });
    let output = w.attn_output;
    match w.post_attention_norm {
        None => b.matmul(mixed, output.weight, output.bias, Some(x)),
        Some(norm) => {
            let y = b.matmul(mixed, output.weight, output.bias, None);
            let y = b.rms_norm(y, norm, c.norm_eps);
            b.add(x, y)
        }
    }
}

/// `x + down(activation(gate(norm(x))) * up(norm(x)))`, `[tokens, dim]`.
fn feed_forward(b: &mut PlanBuilder, c: &Config, w: &LayerWeights, x: View) -> View {
    let h = b.rms_norm(x, w.ffn_norm, c.norm_eps);
    let [gate, up] = project(b, h, &w.gate_up)[..] else {
        unreachable!("a layer has two feed-forward projections");
    };
    let h = b.glu(gate, up, c.activation);
    let down = w.ffn_down;
    match w.post_ffw_norm {
        None => b.matmul(h, down.weight, down.bias, Some(x)),
        Some(norm) => {
            let y = b.matmul(h, down.weight, down.bias, None);
            let y = b.rms_norm(y, norm, c.norm_eps);
            b.add(x, y)
        }
    }
}

/// The results of several matrices over one input, as views of the joined products.
fn project(b: &mut PlanBuilder, input: View, projections: &Projections) -> Vec<View> {
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
