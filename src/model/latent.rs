//! Multi-head latent attention: its weights and its plan. DeepSeek-AI 2024,
//! <https://arxiv.org/abs/2405.04434>.

use super::config::Latent;
use super::loader::Loader;
use super::weights::NormWeights;
use super::{Config, Error};
use crate::backend::{Attention, ExpertProducts, Heads, PlanBuilder, View, WeightId};

/// The weights of one layer but for the output's.
#[derive(Debug)]
pub(super) struct LatentWeights {
    latent: Latent,
    /// From the residual stream to a compressed query and its norm, where queries are compressed.
    q_down: Option<(WeightId, NormWeights)>,
    /// To the queries of all heads.
    q: WeightId,
    /// To the compressed vector of keys and values and the columns of keys that turn.
    kv_down: WeightId,
    kv_norm: NormWeights,
    kv_up: KvUp,
}

/// How the compressed vector becomes keys and values.
#[derive(Debug)]
enum KvUp {
    /// A matrix per head for queries instead of keys, and one per head for what attention makes
    /// of the compressed vectors.
    Absorbed { keys: WeightId, values: WeightId },
    /// Keys without the columns that turn, and values, head by head.
    Whole(WeightId),
}

impl LatentWeights {
    /// The tensors of layer `i`.
    pub fn load(
        loader: &mut Loader<'_>,
        i: usize,
        c: &Config,
        latent: Latent,
    ) -> Result<LatentWeights, Error> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let (n_heads, rank) = (c.n_heads, latent.kv_rank);
        let q_rows = n_heads * (latent.nope_dim + latent.rope_dim);
        let (q_down, q) = match latent.q_rank {
            None => (None, loader.matrix(&name("attn_q.weight"), q_rows, c.dim)?),
            Some(q_rank) => {
                let down = loader.matrix(&name("attn_q_a.weight"), q_rank, c.dim)?;
                let norm = loader.needed_norm(&name("attn_q_a_norm"), q_rank, c)?;
                let up = loader.matrix(&name("attn_q_b.weight"), q_rows, q_rank)?;
                (Some((down, norm)), up)
            }
        };
        let kv_up = match latent.absorbed {
            true => KvUp::Absorbed {
                keys: loader.heads(&name("attn_k_b.weight"), [latent.nope_dim, rank, n_heads])?,
                values: loader
                    .heads(&name("attn_v_b.weight"), [rank, latent.value_dim, n_heads])?,
            },
            false => {
                let rows = n_heads * (latent.nope_dim + latent.value_dim);
                KvUp::Whole(loader.matrix(&name("attn_kv_b.weight"), rows, rank)?)
            }
        };
        let kv_rows = rank + latent.rope_dim;
        Ok(LatentWeights {
            latent,
            q_down,
            q,
            kv_down: loader.matrix(&name("attn_kv_a_mqa.weight"), kv_rows, c.dim)?,
            kv_norm: loader.needed_norm(&name("attn_kv_a_norm"), rank, c)?,
            kv_up,
        })
    }
}

impl Loader<'_> {
    /// A matrix for each head: `[cols, rows, n_heads]`.
    fn heads(&mut self, name: &str, shape: [usize; 3]) -> Result<WeightId, Error> {
        self.check(name, &shape.map(|n| n as u64))?;
        self.add_experts(&[name], shape[2], 1)
    }
}

/// The heads' results side by side, `[tokens, n_heads * latent.value_dim]`.
pub(super) fn attention(
    b: &mut PlanBuilder,
    c: &Config,
    w: &LatentWeights,
    i: usize,
    h: View,
) -> View {
    let latent = &w.latent;
    let (nope, turning) = (latent.nope_dim, latent.rope_dim);
    // What reads `h` stands together, so that it may share a norm and a launch.
    let mut q = b.matmul(h, w.q_down.map_or(w.q, |(down, _)| down), None, None);
    let kv = b.matmul(h, w.kv_down, None, None);
    if let Some((_, norm)) = w.q_down {
        let compressed = b.rms_norm(q, norm.weight, c.norm_eps);
        q = b.matmul(compressed, w.q, None, None);
    }
    let q_turning = Heads {
        view: q.columns(nope, q.cols - nope),
        stride: nope + turning,
        width: turning,
    };
    let q_turning = b.concat_heads(c.n_heads, q_turning, None);
    let q_turning = side_by_side(b.rope(q_turning, turning, 0, c.rope_order), turning);
    let k_turning = b.rope(
        kv.columns(latent.kv_rank, turning),
        turning,
        0,
        c.rope_order,
    );
    let compressed = b.rms_norm(kv.columns(0, latent.kv_rank), w.kv_norm.weight, c.norm_eps);
    let q_still = Heads {
        view: q,
        stride: nope + turning,
        width: nope,
    };
    let shared = Heads {
        view: k_turning,
        stride: 0,
        width: turning,
    };
    let attend = |b: &mut PlanBuilder, q: View| {
        b.attention(Attention {
            layer: i,
            q,
            n_heads: c.n_heads,
            n_kv_heads: c.n_kv_heads,
            head_dim: c.head_dim,
            value_dim: c.value_dim,
            scale: c.attention_scale,
            causal: true,
            window: None,
            soft_cap: None,
            sinks: None,
            alibi: None,
        })
    };
    match w.kv_up {
        KvUp::Absorbed { keys, values } => {
            let each_head = |weight, input, slot_stride| ExpertProducts {
                input,
                slot_stride,
                route: None,
                n_used: c.n_heads,
                weight,
                bias: None,
            };
            let q_still = b.matmul_experts(each_head(keys, q_still.view, q_still.stride));
            let q_still = side_by_side(q_still, latent.kv_rank);
            let q = b.concat_heads(c.n_heads, q_still, Some(q_turning));
            let k = b.concat_heads(1, side_by_side(compressed, latent.kv_rank), Some(shared));
            b.kv_write(i, k, compressed);
            let mixed = attend(b, q);
            b.matmul_experts(each_head(values, mixed, latent.kv_rank))
        }
        KvUp::Whole(weight) => {
            let kv = b.matmul(compressed, weight, None, None);
            let stride = nope + latent.value_dim;
            let k_still = Heads {
                view: kv,
                stride,
                width: nope,
            };
            let values = Heads {
                view: kv.columns(nope, kv.cols - nope),
                stride,
                width: latent.value_dim,
            };
            let q = b.concat_heads(c.n_heads, q_still, Some(q_turning));
            let k = b.concat_heads(c.n_heads, k_still, Some(shared));
            let v = b.concat_heads(c.n_heads, values, None);
            b.kv_write(i, k, v);
            attend(b, q)
        }
    }
}

/// Heads of `width` columns that lie side by side.
fn side_by_side(view: View, width: usize) -> Heads {
    Heads {
        view,
        stride: width,
        width,
    }
}
