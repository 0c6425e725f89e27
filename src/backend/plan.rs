//! The list of operations of one step, and the builder that the model writes it with.
//!
//! Operations are pure: each reads views and writes one whole new buffer, so that two devices
//! can be compared buffer by buffer. Memory is shared afterwards, by lifetime.

use super::experts::{ExpertProducts, Routing};
use super::weight::{WeightId, WeightSpec};
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

/// The non-linearity of a gated feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    Silu,
    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`
    GeluTanh,
}

/// Causal attention over the cached positions of each token's sequence, its own included:
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
    /// With window w, position q sees p where `q - p < w`.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)` before the softmax.
    pub soft_cap: Option<f32>,
    /// `[1, n_heads]`: a score per head that takes its share of the softmax and has no value.
    /// Xiao et al. 2023, <https://arxiv.org/abs/2309.17453>, learned as in gpt-oss.
    pub sinks: Option<WeightId>,
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
    /// `out[t] = scale * weight[tokens[t]]`; out `[tokens, dim]`
    Embed {
        weight: WeightId,
        scale: f32,
        out: BufferId,
    },
    /// `out[i] = input[outputs[i]]`; out `[outputs, cols]`
    SelectRows { input: View, out: BufferId },
    /// `x / sqrt(mean(x^2) + eps) * weight` over each run of `group` columns; `weight` is
    /// `[1, group]`. Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>.
    RmsNorm {
        input: View,
        weight: WeightId,
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
    /// weights; out `[rows, 2 * n_used]`. `bias` `[1, n_experts]` is added for the choice alone.
    MoeRoute {
        scores: View,
        bias: Option<WeightId>,
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
    /// `activation(gate) * up`
    Glu {
        gate: View,
        up: View,
        activation: Activation,
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
            Op::Matmul { .. } => "matmul",
            Op::MoeRoute { .. } => "moe_route",
            Op::MatmulExperts { .. } => "matmul_experts",
            Op::MoeCombine { .. } => "moe_combine",
            Op::ConcatHeads { .. } => "concat_heads",
            Op::Rope { .. } => "rope",
            Op::KvWrite { .. } => "kv_write",
            Op::Attention { .. } => "attention",
            Op::Glu { .. } => "glu",
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
            | Op::Matmul { out, .. }
            | Op::MoeRoute { out, .. }
            | Op::MatmulExperts { out, .. }
            | Op::MoeCombine { out, .. }
            | Op::ConcatHeads { out, .. }
            | Op::Rope { out, .. }
            | Op::Attention { out, .. }
            | Op::Glu { out, .. }
            | Op::Add { out, .. }
            | Op::SoftCap { out, .. } => Some(out),
            Op::KvWrite { .. } | Op::TopK { .. } => None,
        }
    }

    /// The views it reads.
    pub fn inputs(&self) -> impl Iterator<Item = View> {
        let (a, b) = match *self {
            Op::Embed { .. } => (None, None),
            Op::MoeRoute { scores, .. } => (Some(scores), None),
            Op::MatmulExperts { products, .. } => (Some(products.input), products.route),
            Op::MoeCombine { experts, route, .. } => (Some(experts), Some(route)),
            Op::ConcatHeads { a, b, .. } => (Some(a.view), b.map(|b| b.view)),
            Op::SelectRows { input, .. }
            | Op::RmsNorm { input, .. }
            | Op::Rope { input, .. }
            | Op::SoftCap { input, .. }
            | Op::TopK { input, .. } => (Some(input), None),
            Op::Matmul {
                input, residual, ..
            } => (Some(input), residual),
            Op::KvWrite { k, v, .. } => (Some(k), Some(v)),
            Op::Attention { attention, .. } => (Some(attention.q), None),
            Op::Glu { gate, up, .. } => (Some(gate), Some(up)),
            Op::Add { a, b, .. } => (Some(a), Some(b)),
        };
        let third = match *self {
            Op::MoeCombine { residual, .. } => residual,
            _ => None,
        };
        a.into_iter().chain(b).chain(third)
    }
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

/// A recorded step.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub shape: BatchShape,
    pub ops: Vec<Op>,
    /// What each op computes, such as `blk.3.attn_q`; as many as ops.
    pub labels: Vec<String>,
    pub buffers: Vec<BufferInfo>,
    pub rope_tables: Vec<RopeTable>,
    /// Buffers that are still readable after the step.
    pub outputs: Vec<BufferId>,
}

impl Plan {
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

    /// Gives every buffer memory of its own, so that all can be read after the step.
    pub fn keep_all(mut self) -> Plan {
        for (i, buffer) in self.buffers.iter_mut().enumerate() {
            buffer.storage = i;
        }
        self.outputs = (0..self.buffers.len()).map(BufferId).collect();
        self
    }
}

/// Records a plan. Every method checks shapes, appends one op and returns what it makes. A shape
/// that does not fit is a bug in the model's code, since tensors were checked at load: it panics.
#[derive(Debug)]
pub struct PlanBuilder<'a> {
    pub(super) weights: &'a [WeightSpec],
    plan: Plan,
    scope: String,
}

impl<'a> PlanBuilder<'a> {
    /// An empty plan over these weights, whose ids are their indices.
    pub fn new(shape: BatchShape, weights: &'a [WeightSpec], rope_tables: Vec<RopeTable>) -> Self {
        PlanBuilder {
            weights,
            scope: String::new(),
            plan: Plan {
                shape,
                ops: Vec::new(),
                labels: Vec::new(),
                buffers: Vec::new(),
                rope_tables,
                outputs: Vec::new(),
            },
        }
    }

    /// Names what follows in labels, such as `blk.3`.
    pub fn scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    fn buffer(&mut self, rows: Rows, cols: usize) -> BufferId {
        let storage = self.plan.buffers.len();
        self.plan.buffers.push(BufferInfo {
            rows,
            cols,
            storage,
        });
        BufferId(storage)
    }

    fn whole(&self, buffer: BufferId) -> View {
        View {
            buffer,
            offset: 0,
            cols: self.plan.buffers[buffer.0].cols,
        }
    }

    pub(super) fn rows(&self, view: View) -> Rows {
        self.plan.buffers[view.buffer.0].rows
    }

    fn push(&mut self, op: Op, detail: &str) {
        let label = match detail {
            "" => format!("{}.{}", self.scope, op.name()),
            detail => format!("{}.{detail}", self.scope),
        };
        self.plan.labels.push(label);
        self.plan.ops.push(op);
    }

    /// Appends an op that writes a new buffer of `cols` columns.
    pub(super) fn record(
        &mut self,
        rows: Rows,
        cols: usize,
        op: impl FnOnce(BufferId) -> Op,
    ) -> View {
        let out = self.buffer(rows, cols);
        let op = op(out);
        let detail = match &op {
            Op::Matmul { weight, .. }
            | Op::RmsNorm { weight, .. }
            | Op::MatmulExperts {
                products: ExpertProducts { weight, .. },
                ..
            } => {
                let name = &self.weights[weight.0].name;
                format!("{}({name})", op.name())
            }
            _ => String::new(),
        };
        self.push(op, &detail);
        self.whole(out)
    }

    /// Rows of the embedding matrix, one per token.
    pub fn embed(&mut self, weight: WeightId, scale: f32) -> View {
        let cols = self.weights[weight.0].cols;
        self.record(Rows::Tokens, cols, |out| Op::Embed { weight, scale, out })
    }

    /// The wanted rows alone.
    pub fn select_rows(&mut self, input: View) -> View {
        assert_eq!(self.rows(input), Rows::Tokens);
        let cols = input.cols;
        self.record(Rows::Outputs, cols, |out| Op::SelectRows { input, out })
    }

    /// Root-mean-square norm over each run of as many columns as the weight has.
    pub fn rms_norm(&mut self, input: View, weight: WeightId, eps: f32) -> View {
        let group = self.weights[weight.0].cols;
        assert_eq!(self.weights[weight.0].rows, 1);
        assert_eq!(input.cols % group, 0, "whole groups");
        self.record(self.rows(input), input.cols, |out| Op::RmsNorm {
            input,
            weight,
            group,
            eps,
            out,
        })
    }

    /// Product with a weight, plus optional bias and residual.
    pub fn matmul(
        &mut self,
        input: View,
        weight: WeightId,
        bias: Option<WeightId>,
        residual: Option<View>,
    ) -> View {
        let (rows, cols) = (self.weights[weight.0].rows, self.weights[weight.0].cols);
        assert_eq!(input.cols, cols, "{}", self.weights[weight.0].name);
        if let Some(bias) = bias {
            let bias = &self.weights[bias.0];
            assert_eq!(bias.rows * bias.cols, rows, "{}", bias.name);
        }
        if let Some(residual) = residual {
            assert_eq!(residual.cols, rows);
            assert_eq!(self.rows(residual), self.rows(input));
        }
        self.record(self.rows(input), rows, |out| Op::Matmul {
            input,
            weight,
            bias,
            residual,
            out,
        })
    }

    /// Rotary embedding of whole heads.
    pub fn rope(&mut self, input: View, head_dim: usize, table: usize, order: RopeOrder) -> View {
        assert_eq!(input.cols % head_dim, 0);
        assert!(2 * self.plan.rope_tables[table].half_dim() <= head_dim);
        self.record(self.rows(input), input.cols, |out| Op::Rope {
            input,
            head_dim,
            table,
            order,
            out,
        })
    }

    /// Stores keys and values.
    pub fn kv_write(&mut self, layer: usize, k: View, v: View) {
        self.push(Op::KvWrite { layer, k, v }, "");
    }

    /// Attention over what [`PlanBuilder::kv_write`] stored.
    pub fn attention(&mut self, attention: Attention) -> View {
        assert_eq!(attention.q.cols, attention.n_heads * attention.head_dim);
        assert_eq!(attention.n_heads % attention.n_kv_heads, 0);
        let cols = attention.n_heads * attention.value_dim;
        self.record(Rows::Tokens, cols, |out| Op::Attention { attention, out })
    }

    /// Gated activation.
    pub fn glu(&mut self, gate: View, up: View, activation: Activation) -> View {
        assert_eq!(gate.cols, up.cols);
        self.record(self.rows(gate), gate.cols, |out| Op::Glu {
            gate,
            up,
            activation,
            out,
        })
    }

    /// Sum of two.
    pub fn add(&mut self, a: View, b: View) -> View {
        assert_eq!(a.cols, b.cols);
        assert_eq!(self.rows(a), self.rows(b));
        self.record(self.rows(a), a.cols, |out| Op::Add { a, b, out })
    }

    /// Soft cap.
    pub fn soft_cap(&mut self, input: View, cap: f32) -> View {
        self.record(self.rows(input), input.cols, |out| Op::SoftCap {
            input,
            cap,
            out,
        })
    }

    /// Returns the best `k` candidates of each row of logits.
    pub fn top_k(&mut self, input: View, k: usize) {
        assert!(k <= super::MAX_CANDIDATES);
        self.push(Op::TopK { input, k }, "");
    }

    /// Keeps a buffer readable after the step.
    pub fn output(&mut self, view: View) {
        self.plan.outputs.push(view.buffer);
    }

    /// Lets buffers share memory and hands the plan over.
    pub fn finish(mut self) -> Plan {
        share_storage(&mut self.plan);
        self.plan
    }
}

/// Gives each buffer the storage of one that was read for the last time before it is written.
/// Only buffers of one kind of rows share, so that sizes fit at every batch.
fn share_storage(plan: &mut Plan) {
    let mut last_use = vec![0; plan.buffers.len()];
    for (i, op) in plan.ops.iter().enumerate() {
        for view in op.inputs() {
            last_use[view.buffer.0] = i;
        }
    }
    for output in &plan.outputs {
        last_use[output.0] = usize::MAX;
    }
    // Storage number, kind of rows, and the op after which it is free.
    let mut storages: Vec<(Rows, usize)> = Vec::new();
    for (i, op) in plan.ops.iter().enumerate() {
        let Some(BufferId(out)) = op.out() else {
            continue;
        };
        let rows = plan.buffers[out].rows;
        let free = storages
            .iter()
            .position(|&(kind, until)| kind == rows && until < i);
        let storage = free.unwrap_or(storages.len());
        // A buffer that nobody reads is still written at op `i`.
        let until = last_use[out].max(i);
        match free {
            Some(s) => storages[s].1 = until,
            None => storages.push((rows, until)),
        }
        plan.buffers[out].storage = storage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: BatchShape = BatchShape {
        phase: Phase::Decode,
        n_tokens: 4,
        n_outputs: 4,
    };

    fn chain() -> Plan {
        let mut b = PlanBuilder::new(SHAPE, &[], vec![]);
        let embed = |out| Op::Embed {
            weight: WeightId(0),
            scale: 1.0,
            out,
        };
        let mut x = b.record(Rows::Tokens, 8, embed);
        for _ in 0..5 {
            let capped = b.soft_cap(x, 30.0);
            x = b.add(capped, x);
        }
        b.output(x);
        b.finish()
    }

    #[test]
    fn storage_is_shared_but_never_with_an_operand() {
        let plan = chain();
        for op in &plan.ops {
            let out = op.out().expect("these ops write");
            for view in op.inputs() {
                assert_ne!(
                    plan.buffers[view.buffer.0].storage, plan.buffers[out.0].storage,
                    "{op:?}"
                );
            }
        }
        assert!(plan.storage_sizes().len() < plan.buffers.len());
    }

    #[test]
    fn keep_all_separates_every_buffer() {
        let plan = chain().keep_all();
        assert_eq!(plan.storage_sizes().len(), plan.buffers.len());
        assert_eq!(plan.outputs.len(), plan.buffers.len());
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
