//! The operations that plans are made of.
//!
//! They are pure: each reads views and writes one whole new buffer, so that two devices can be
//! compared buffer by buffer. Memory is shared afterwards, by lifetime.

use super::experts::{ExpertProducts, Routing};
use super::low_rank::RowBlock;
use super::plan::{BufferId, View};
use super::recurrent::DeltaHeads;
use super::weight::WeightId;

/// Which pairs of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeOrder {
    /// Neighbours `(2i, 2i + 1)`: llama.
    Norm,
    /// Halves `(i, i + rotary_dim / 2)`: qwen2, gemma3, most others.
    Neox,
}

/// The non-linearity of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x / (1 + exp(-x))`
    Silu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// The number itself: the gate is a factor.
    Identity,
    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt(2)))`
    GeluErf,
    /// `max(x, 0)^2`
    ReluSquared,
    /// `y / (1 + exp(-1.702 y))` with `y = min(x, 7)`. As a gate it multiplies
    /// `clamp(up, -7, 7) + 1`: gpt-oss.
    ClampedSwish,
}

impl Activation {
    /// Bound and slope of [`Activation::ClampedSwish`].
    pub const SWISH_LIMIT: f32 = 7.0;
    /// See [`Activation::SWISH_LIMIT`].
    pub const SWISH_SLOPE: f32 = 1.702;
}

/// Which row of a matrix [`Op::Embed`] takes for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EmbedRow {
    /// That of its id: the embedding matrix.
    Token,
    /// That of its position: learned positions.
    Position,
    /// The same for all: a token type.
    Fixed(usize),
}

/// Attention over the cached positions of each token's sequence, its own included:
/// `softmax(scale * q k^T) v`. Query head `h` reads key head `h / (n_heads / n_kv_heads)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Number of the layer whose cache is read.
    pub layer: usize,
    /// `[tokens, n_heads * head_dim]`
    pub q: View,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and of values; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Columns of a query and of a key.
    pub head_dim: usize,
    /// Columns of a value and of a result.
    pub value_dim: usize,
    /// Factor of the scores, `1 / sqrt(head_dim)` in most models.
    pub scale: f32,
    /// Position q sees p where `p <= q`. Otherwise, in prefill only, it sees all positions of its
    /// sequence up to the last row in the batch, which must begin the sequence.
    pub causal: bool,
    /// With window w, position q sees p where `q - p < w`; where it is not causal, those where
    /// `|q - p| <= w / 2`.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)` before the softmax.
    pub soft_cap: Option<f32>,
    /// `[1, n_heads]`: a score per head that takes its share of the softmax and has no value.
    /// Xiao et al. 2023, <https://arxiv.org/abs/2309.17453>, learned as in gpt-oss.
    pub sinks: Option<WeightId>,
    /// The largest bias b of attention with linear biases: scores lose `slope * |q - p|`, with the
    /// slopes of [`alibi_slope`].
    pub alibi: Option<f32>,
}

/// Columns of a buffer that belong to heads: head h has `width` columns from `h * stride` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Heads {
    /// `[rows, columns of the heads]`
    pub view: View,
    /// Zero where all heads share the same columns.
    pub stride: usize,
    /// Columns of a head that are taken.
    pub width: usize,
}

/// One operation. `out` is the buffer that it writes, all of it; sizes that are not written here are those of its
/// views and buffers. Rows are those of tokens or of outputs, as the buffer says.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `out[t] = scale * weight[row of t]`; out `[tokens, dim]`
    Embed {
        /// `[rows, dim]`
        weight: WeightId,
        row: EmbedRow,
        scale: f32,
        out: BufferId,
    },
    /// `out[i] = input[outputs[i]]`; input `[tokens, cols]`, out `[outputs, cols]`
    SelectRows { input: View, out: BufferId },
    /// `x / sqrt(mean(x^2) + eps) * weight` over each run of `group` columns; `weight` is
    /// `[1, group]`. Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>.
    RmsNorm {
        /// `[rows, cols]`, as `out`.
        input: View,
        /// None multiplies by 1.
        weight: Option<WeightId>,
        group: usize,
        eps: f32,
        out: BufferId,
    },
    /// `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) (* weight) (+ bias)` over each run of
    /// `group` columns; `weight` and `bias` are `[1, n]` with n a multiple of `group` that divides
    /// the columns: column c takes their number `c % n`. Ba et al. 2016,
    /// <https://arxiv.org/abs/1607.06450>.
    LayerNorm {
        /// `[rows, cols]`, as `out`.
        input: View,
        weight: Option<WeightId>,
        bias: Option<WeightId>,
        group: usize,
        eps: f32,
        out: BufferId,
    },
    /// `out = input * weight^T (+ bias) (+ residual)`; out `[rows, weight.rows]`, `bias` `[1, weight.rows]`
    Matmul {
        /// `[rows, weight.cols]`
        input: View,
        weight: WeightId,
        bias: Option<WeightId>,
        /// `[rows, weight.rows]`
        residual: Option<View>,
        out: BufferId,
    },
    /// The experts of each row: the numbers of the chosen ones as floats, best first, then their
    /// weights; out `[rows, 2 * n_used]`. `bias` `[1, n_experts]` is added for the choice alone,
    /// and `factors` `[1, n_experts]` multiply the weights at last.
    MoeRoute {
        /// `[rows, n_experts]`
        scores: View,
        bias: Option<WeightId>,
        factors: Option<WeightId>,
        routing: Routing,
        out: BufferId,
    },
    /// Products of each row's slots with the matrices of their experts, `input * weight^T
    /// (+ bias)`; no other expert's weights are read. The matrices that the weight joins within an
    /// expert give one part of the result each: out `[rows, parts, n_used, rows of a part]`.
    MatmulExperts {
        products: ExpertProducts,
        out: BufferId,
    },
    /// `sum over slots of weight * experts (+ residual)`; experts `[rows, n_used, cols]`, out
    /// `[rows, cols]`
    MoeCombine {
        experts: View,
        /// What [`Op::MoeRoute`] gives.
        route: View,
        residual: Option<View>,
        out: BufferId,
    },
    /// Heads of `a` and `b` one after another; out `[rows, n_heads, a.width + b.width]`
    ConcatHeads {
        n_heads: usize,
        a: Heads,
        b: Option<Heads>,
        out: BufferId,
    },
    /// Turns the first `2 * half_dim` columns of each head by the angles of `tables[table]`;
    /// the rest of the head is copied.
    Rope {
        /// `[tokens, n_heads * head_dim]`, as `out`.
        input: View,
        head_dim: usize,
        /// Number among the plan's `rope_tables`.
        table: usize,
        order: RopeOrder,
        out: BufferId,
    },
    /// Stores keys, `[tokens, n_kv_heads * head_dim]`, and values, `[tokens, n_kv_heads * value_dim]`, in each token's
    /// slot of the layer's cache.
    KvWrite { layer: usize, k: View, v: View },
    /// See [`Attention`]; out `[tokens, n_heads * value_dim]`
    Attention { attention: Attention, out: BufferId },
    /// The mean over all positions of the sequence that each wanted row is the last of; the batch
    /// holds them all. input `[tokens, cols]`, out `[outputs, cols]`
    Pool { input: View, out: BufferId },
    /// Causal convolution along each sequence, every column alone: the sum over `j` of
    /// `weight[c * kernel + j] * x[p - kernel + 1 + j][c]` at position `p`, with 0 before the
    /// sequence, then SiLU where `silu` is set. `weight` is `[1, cols * kernel]`. The last
    /// `kernel - 1` rows of a sequence, `[kernel - 1, cols]`, are its state number `state`.
    ShortConv {
        state: usize,
        /// `[tokens, cols]`, as `out`.
        input: View,
        weight: WeightId,
        kernel: usize,
        silu: bool,
        out: BufferId,
    },
    /// The gated delta rule along each sequence, every head alone: with
    /// `g = exp(decay[h] softplus(alpha[h] + bias[h]))` and `b = sigmoid(beta[h])`, state number
    /// `state`, `[heads, head_dim of q and k, head_dim of v]`, becomes
    /// `S = g S + k (b (v - (g S)^T k))^T`, and the result is `S^T q / sqrt(head_dim)`. q and k are
    /// divided by `sqrt(sum(x^2) + eps)` first. `qkv` holds the q and the k of `n_key_heads`, then
    /// the v of `n_heads`; head `h` uses key head `h / (n_heads / n_key_heads)` if `grouped`, else
    /// `h % n_key_heads`. Yang, Kautz and Hatamizadeh 2024, <https://arxiv.org/abs/2412.06464>.
    DeltaNet {
        state: usize,
        /// `[tokens, heads.qkv_dim()]`
        qkv: View,
        /// `[tokens, n_heads]`
        alpha: View,
        /// `[tokens, n_heads]`
        beta: View,
        /// `[1, n_heads]`
        decay: WeightId,
        /// `[1, n_heads]`
        bias: WeightId,
        heads: DeltaHeads,
        eps: f32,
        out: BufferId,
    },
    /// `activation(gate) * up`, with up as the activation wants it
    Glu {
        /// `[rows, cols]`, as `up` and `out`.
        gate: View,
        up: View,
        activation: Activation,
        out: BufferId,
    },
    /// `activation(input)`
    Activate {
        /// `[rows, cols]`, as `out`.
        input: View,
        activation: Activation,
        out: BufferId,
    },
    /// `factor * input`
    Scale {
        /// `[rows, cols]`, as `out`.
        input: View,
        factor: f32,
        out: BufferId,
    },
    /// `a + b`, all `[rows, cols]`
    Add { a: View, b: View, out: BufferId },
    /// `sum`, with `scale * up down` added to its columns of each block: `up` holds the rows of all
    /// blocks, one after another, and `down` as many columns for each as `up` has. Hu et al. 2021,
    /// <https://arxiv.org/abs/2106.09685>.
    AddLowRank {
        /// `[rows, cols]`, as `out`.
        sum: View,
        /// `[rows, blocks * rank]`
        down: View,
        /// `[rows of all blocks, rank]`
        up: WeightId,
        /// Columns of `sum`, in rising order and apart.
        blocks: Vec<RowBlock>,
        scale: f32,
        out: BufferId,
    },
    /// Streams of `width` columns that lie side by side, each with a mixture of others added:
    /// `out_i = streams_i + sum_j (mix[i * n + j] + plus) * others_j`; `others` holds n streams and
    /// `mix` is `[rows, streams * n]`. Baykal et al. 2023, <https://arxiv.org/abs/2301.13310>.
    StreamMix {
        /// `[rows, streams * width]`, as `out`.
        streams: View,
        /// `[rows, n * width]`
        others: View,
        mix: View,
        plus: f32,
        width: usize,
        out: BufferId,
    },
    /// Each run of as many columns as `like` has, with the length of `like`:
    /// `input * sqrt(mean(like^2) / max(mean(input^2), LEAST_SQUARE))`.
    MatchLength {
        /// `[rows, runs * like.cols]`, as `out`.
        input: View,
        /// `[rows, like.cols]`
        like: View,
        out: BufferId,
    },
    /// What is far above the mean of the row, the rest zero: `max(x - mean(x) - cutoff * s, 0)`
    /// where s is the standard deviation, of a sample. Gemma 3n.
    GaussianTopK {
        /// `[rows, cols]`, as `out`.
        input: View,
        cutoff: f32,
        out: BufferId,
    },
    /// `cap * tanh(input / cap)`
    SoftCap {
        /// `[rows, cols]`, as `out`.
        input: View,
        cap: f32,
        out: BufferId,
    },
    /// The best candidates of each row, `k` at most, returned by `run`; input `[outputs, n_vocab]`
    TopK { input: View, k: usize },
}

impl Op {
    /// What [`Op::MatchLength`] takes the mean square of its input for, at least.
    pub const LEAST_SQUARE: f32 = 1e-5;

    /// The operation's one name: builder method, shader file, CPU function, test, metric.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::SelectRows { .. } => "select_rows",
            Op::RmsNorm { .. } => "rms_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Matmul { .. } => "matmul",
            Op::MoeRoute { .. } => "moe_route",
            Op::MatmulExperts { .. } => "matmul_experts",
            Op::MoeCombine { .. } => "moe_combine",
            Op::ConcatHeads { .. } => "concat_heads",
            Op::Rope { .. } => "rope",
            Op::KvWrite { .. } => "kv_write",
            Op::Attention { .. } => "attention",
            Op::Pool { .. } => "pool",
            Op::ShortConv { .. } => "short_conv",
            Op::DeltaNet { .. } => "delta_net",
            Op::Glu { .. } => "glu",
            Op::Activate { .. } => "activate",
            Op::Scale { .. } => "scale",
            Op::Add { .. } => "add",
            Op::AddLowRank { .. } => "add_low_rank",
            Op::StreamMix { .. } => "stream_mix",
            Op::MatchLength { .. } => "match_length",
            Op::GaussianTopK { .. } => "gaussian_top_k",
            Op::SoftCap { .. } => "soft_cap",
            Op::TopK { .. } => "top_k",
        }
    }

    /// The buffer it writes.
    pub fn out(&self) -> Option<BufferId> {
        match *self {
            Op::Embed { out, .. }
            | Op::SelectRows { out, .. }
            | Op::RmsNorm { out, .. }
            | Op::LayerNorm { out, .. }
            | Op::Matmul { out, .. }
            | Op::MoeRoute { out, .. }
            | Op::MatmulExperts { out, .. }
            | Op::MoeCombine { out, .. }
            | Op::ConcatHeads { out, .. }
            | Op::Rope { out, .. }
            | Op::Attention { out, .. }
            | Op::Pool { out, .. }
            | Op::ShortConv { out, .. }
            | Op::DeltaNet { out, .. }
            | Op::Glu { out, .. }
            | Op::Activate { out, .. }
            | Op::Scale { out, .. }
            | Op::Add { out, .. }
            | Op::AddLowRank { out, .. }
            | Op::StreamMix { out, .. }
            | Op::MatchLength { out, .. }
            | Op::GaussianTopK { out, .. }
            | Op::SoftCap { out, .. } => Some(out),
            Op::KvWrite { .. } | Op::TopK { .. } => None,
        }
    }

    /// The views it reads.
    pub fn inputs(&self) -> impl Iterator<Item = View> {
        let third = match *self {
            Op::DeltaNet { beta, .. } => Some(beta),
            Op::StreamMix { mix, .. } => Some(mix),
            Op::MoeCombine { residual, .. } => residual,
            _ => None,
        };
        let (a, b) = match *self {
            Op::Embed { .. } => (None, None),
            Op::MoeRoute { scores, .. } => (Some(scores), None),
            Op::MatmulExperts { products, .. } => (Some(products.input), products.route),
            Op::MoeCombine { experts, route, .. } => (Some(experts), Some(route)),
            Op::ConcatHeads { a, b, .. } => (Some(a.view), b.map(|b| b.view)),
            Op::SelectRows { input, .. }
            | Op::Pool { input, .. }
            | Op::ShortConv { input, .. }
            | Op::RmsNorm { input, .. }
            | Op::LayerNorm { input, .. }
            | Op::Activate { input, .. }
            | Op::Scale { input, .. }
            | Op::Rope { input, .. }
            | Op::SoftCap { input, .. }
            | Op::GaussianTopK { input, .. }
            | Op::TopK { input, .. } => (Some(input), None),
            Op::Matmul {
                input, residual, ..
            } => (Some(input), residual),
            Op::KvWrite { k, v, .. } => (Some(k), Some(v)),
            Op::Attention { attention, .. } => (Some(attention.q), None),
            Op::DeltaNet { qkv, alpha, .. } => (Some(qkv), Some(alpha)),
            Op::Glu { gate, up, .. } => (Some(gate), Some(up)),
            Op::Add { a, b, .. } => (Some(a), Some(b)),
            Op::AddLowRank { sum, down, .. } => (Some(sum), Some(down)),
            Op::StreamMix {
                streams, others, ..
            } => (Some(streams), Some(others)),
            Op::MatchLength { input, like, .. } => (Some(input), Some(like)),
        };
        a.into_iter().chain(b).chain(third)
    }
}

/// The factor of a head's distances in attention with linear biases, where `bias` is the largest
/// (8 everywhere so far): a power of two for each head, in two interleaved series where the heads
/// are no power of two. Press et al. 2021, <https://arxiv.org/abs/2108.12409>.
pub fn alibi_slope(bias: f32, n_heads: usize, head: usize) -> f32 {
    let whole = 1 << n_heads.ilog2();
    let power = match head < whole {
        true => (head + 1) as f32,
        false => (head - whole) as f32 + 0.5,
    };
    (-bias / whole as f32 * power).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_fall_by_powers_of_two() {
        assert_eq!([0, 7].map(|h| alibi_slope(8.0, 8, h)), [0.5, 1.0 / 256.0]);
        // The second series begins between the first two of the first.
        let first = [0, 8].map(|h| alibi_slope(8.0, 12, h));
        assert_eq!(first, [0.5, 0.5f32.sqrt()]);
    }
}
