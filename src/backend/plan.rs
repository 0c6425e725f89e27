//! The list of operations of one step.
//!
//! Operations are pure: each reads views and writes one whole new buffer, so that two devices
//! can be compared buffer by buffer. Memory is shared afterwards, by lifetime.

use super::experts::{ExpertProducts, Routing};
use super::recurrent::DeltaHeads;
use super::weight::WeightId;
use super::{Phase, RopeTable};

/// A buffer of 32-bit floats `[rows, cols]`, row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// What the rows of a buffer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One per token of the batch.
    Tokens,
    /// One per wanted row of the batch.
    Outputs,
}

/// What the backend must allocate for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferInfo {
    pub rows: Rows,
    pub cols: usize,
    /// Buffers with one storage number never live at the same time and share memory.
    pub storage: usize,
}

/// Columns `offset .. offset + cols` of every row of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    pub buffer: BufferId,
    pub offset: usize,
    pub cols: usize,
}

impl View {
    /// Columns `offset .. offset + cols` of this view.
    pub fn columns(self, offset: usize, cols: usize) -> View {
        assert!(offset + cols <= self.cols, "columns inside the view");
        View {
            offset: self.offset + offset,
            cols,
            ..self
        }
    }
}

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
    pub layer: usize,
    /// `[tokens, n_heads * head_dim]`
    pub q: View,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// Columns of a query and of a key.
    pub head_dim: usize,
    /// Columns of a value and of a result.
    pub value_dim: usize,
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
    pub view: View,
    /// Zero where all heads share the same columns.
    pub stride: usize,
    pub width: usize,
}

/// One operation. Sizes that are not written here are those of its views and buffers.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `out[t] = scale * weight[row of t]`; out `[tokens, dim]`
    Embed {
        weight: WeightId,
        row: EmbedRow,
        scale: f32,
        out: BufferId,
    },
    /// `out[i] = input[outputs[i]]`; out `[outputs, cols]`
    SelectRows { input: View, out: BufferId },
    /// `x / sqrt(mean(x^2) + eps) * weight` over each run of `group` columns; `weight` is
    /// `[1, group]`. Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>.
    RmsNorm {
        input: View,
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
        input: View,
        weight: Option<WeightId>,
        bias: Option<WeightId>,
        group: usize,
        eps: f32,
        out: BufferId,
    },
    /// `out = input * weight^T (+ bias) (+ residual)`; out `[rows, weight.rows]`, `bias` `[1, weight.rows]`
    Matmul {
        input: View,
        weight: WeightId,
        bias: Option<WeightId>,
        residual: Option<View>,
        out: BufferId,
    },
    /// The experts of each row: the numbers of the chosen ones as floats, best first, then their
    /// weights; out `[rows, 2 * n_used]`. `bias` `[1, n_experts]` is added for the choice alone,
    /// and `factors` `[1, n_experts]` multiply the weights at last.
    MoeRoute {
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
        input: View,
        head_dim: usize,
        table: usize,
        order: RopeOrder,
        out: BufferId,
    },
    /// Stores keys and values of every token in its slot of the layer's cache.
    KvWrite { layer: usize, k: View, v: View },
    /// See [`Attention`]; out `[tokens, n_heads * value_dim]`
    Attention { attention: Attention, out: BufferId },
    /// The mean over all positions of the sequence that each wanted row is the last of; the batch
    /// holds them all. out `[outputs, cols]`
    Pool { input: View, out: BufferId },
    /// Causal convolution along each sequence, every column alone: the sum over `j` of
    /// `weight[c * kernel + j] * x[p - kernel + 1 + j][c]` at position `p`, with 0 before the
    /// sequence, then SiLU where `silu` is set. `weight` is `[1, cols * kernel]`. The last
    /// `kernel - 1` rows of a sequence, `[kernel - 1, cols]`, are its state number `state`.
    ShortConv {
        state: usize,
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
        qkv: View,
        alpha: View,
        beta: View,
        decay: WeightId,
        bias: WeightId,
        heads: DeltaHeads,
        eps: f32,
        out: BufferId,
    },
    /// `activation(gate) * up`, with up as the activation wants it
    Glu {
        gate: View,
        up: View,
        activation: Activation,
        out: BufferId,
    },
    /// `activation(input)`
    Activate {
        input: View,
        activation: Activation,
        out: BufferId,
    },
    /// `factor * input`
    Scale {
        input: View,
        factor: f32,
        out: BufferId,
    },
    /// `a + b`
    Add { a: View, b: View, out: BufferId },
    /// `cap * tanh(input / cap)`
    SoftCap {
        input: View,
        cap: f32,
        out: BufferId,
    },
    /// The best candidates of each row, returned by `run`.
    TopK { input: View, k: usize },
}

impl Op {
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
            | Op::SoftCap { out, .. } => Some(out),
            Op::KvWrite { .. } | Op::TopK { .. } => None,
        }
    }

    /// The views it reads.
    pub fn inputs(&self) -> impl Iterator<Item = View> {
        let third = match *self {
            Op::DeltaNet { beta, .. } => Some(beta),
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
            | Op::TopK { input, .. } => (Some(input), None),
            Op::Matmul {
                input, residual, ..
            } => (Some(input), residual),
            Op::KvWrite { k, v, .. } => (Some(k), Some(v)),
            Op::Attention { attention, .. } => (Some(attention.q), None),
            Op::DeltaNet { qkv, alpha, .. } => (Some(qkv), Some(alpha)),
            Op::Glu { gate, up, .. } => (Some(gate), Some(up)),
            Op::Add { a, b, .. } => (Some(a), Some(b)),
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

/// The largest batch that a plan serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchShape {
    pub phase: Phase,
    pub n_tokens: usize,
    pub n_outputs: usize,
}

impl BatchShape {
    /// The largest number of rows of that kind.
    pub fn n_rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.n_tokens,
            Rows::Outputs => self.n_outputs,
        }
    }
}

/// Ops in a row that a backend may do at once, at most: none of them writes to memory that another
/// reads.
pub const MAX_RUN: usize = 3;

/// A recorded step.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub shape: BatchShape,
    pub ops: Vec<Op>,
    /// What each op computes, such as `blk.3.attn_q`; as many as ops.
    pub labels: Vec<String>,
    /// The layer that each op belongs to; none before the first layer and after the last.
    pub layers: Vec<Option<usize>>,
    pub buffers: Vec<BufferInfo>,
    pub rope_tables: Vec<RopeTable>,
    /// Buffers that are still readable after the step.
    pub outputs: Vec<BufferId>,
    /// Buffers that no op writes: they are filled before the step.
    pub inputs: Vec<BufferId>,
}

impl Plan {
    /// Bytes of all storages, at the largest batch.
    pub fn bytes(&self) -> u64 {
        self.storage_sizes().iter().map(|&n| 4 * n as u64).sum()
    }

    /// Numbers in an input at the largest batch; none if the buffer is no input.
    pub fn input_size(&self, buffer: BufferId) -> Option<usize> {
        let info = self.buffers.get(buffer.0)?;
        let size = self.shape.n_rows(info.rows) * info.cols;
        self.inputs.contains(&buffer).then_some(size)
    }

    /// Floats of each storage, at the largest batch.
    pub fn storage_sizes(&self) -> Vec<usize> {
        let n = self.buffers.iter().map(|b| b.storage + 1).max();
        let mut sizes = vec![0; n.unwrap_or(0)];
        for buffer in &self.buffers {
            let size = self.shape.n_rows(buffer.rows) * buffer.cols;
            sizes[buffer.storage] = sizes[buffer.storage].max(size);
        }
        sizes
    }

    /// Whether batches must hold their sequences whole ([`super::Batch::check_whole`]).
    pub fn needs_whole_sequences(&self) -> bool {
        let needs = |op: &Op| match op {
            Op::Attention { attention, .. } => !attention.causal,
            op => matches!(op, Op::Pool { .. }),
        };
        self.ops.iter().any(needs)
    }

    /// Fewest rows of the matrices that embed looks into by `row`; no bound where there are none.
    pub fn n_embed_rows(&self, row: EmbedRow, n_rows: impl Fn(WeightId) -> usize) -> usize {
        let rows = self.ops.iter().filter_map(|op| match op {
            Op::Embed { weight, row: r, .. } if *r == row => Some(n_rows(*weight)),
            _ => None,
        });
        rows.min().unwrap_or(usize::MAX)
    }

    /// Gives every buffer memory of its own, so that all can be read after the step.
    pub fn keep_all(mut self) -> Plan {
        for (i, buffer) in self.buffers.iter_mut().enumerate() {
            buffer.storage = i;
        }
        self.outputs = (0..self.buffers.len()).map(BufferId).collect();
        self
    }
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

    #[test]
    fn columns_of_a_view_add_up() {
        let view = View {
            buffer: BufferId(0),
            offset: 10,
            cols: 20,
        };
        assert_eq!(view.columns(5, 3).offset, 15);
    }
}
