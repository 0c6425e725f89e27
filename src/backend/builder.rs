//! The builder that a model writes its plan with.

use super::experts::ExpertProducts;
use super::low_rank::LowRank;
use super::op::{Activation, Attention, EmbedRow, Op, RopeOrder};
use super::plan::{BatchShape, BufferId, BufferInfo, Plan, Rows, View};
use super::storage::share_storage;
use super::weight::{WeightId, WeightSpec};
use super::{MAX_CANDIDATES, RopeTable};

/// Records a plan. Every method checks shapes, appends one op and returns what it makes; where a
/// weight has low-rank updates, their ops follow. A shape that does not fit is a bug in the model's
/// code, since tensors were checked at load: it panics.
#[derive(Debug)]
pub struct PlanBuilder<'a> {
    pub(super) weights: &'a [WeightSpec],
    pub(super) updates: &'a [LowRank],
    plan: Plan,
    scope: String,
    layer: Option<usize>,
}

impl<'a> PlanBuilder<'a> {
    /// An empty plan over these weights, whose ids are their indices.
    pub fn new(shape: BatchShape, weights: &'a [WeightSpec], rope_tables: Vec<RopeTable>) -> Self {
        PlanBuilder {
            weights,
            updates: &[],
            scope: String::new(),
            layer: None,
            plan: Plan {
                shape,
                ops: Vec::new(),
                labels: Vec::new(),
                layers: Vec::new(),
                buffers: Vec::new(),
                rope_tables,
                outputs: Vec::new(),
                inputs: Vec::new(),
            },
        }
    }

    /// Names what follows in labels; it belongs to no layer.
    pub fn scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
        self.layer = None;
    }

    /// Begins a layer, such as `blk.3`.
    pub fn layer(&mut self, layer: usize) {
        self.scope(format!("blk.{layer}"));
        self.layer = Some(layer);
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
        self.plan.layers.push(self.layer);
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
            | Op::RmsNorm {
                weight: Some(weight),
                ..
            }
            | Op::MatmulExperts {
                products: ExpertProducts { weight, .. },
                ..
            }
            | Op::LayerNorm {
                weight: Some(weight),
                ..
            }
            | Op::AddLowRank { up: weight, .. } => {
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
        let rows = self.plain_embed(weight, scale);
        self.update_embedding(weight, scale, rows)
    }

    pub(super) fn plain_embed(&mut self, weight: WeightId, scale: f32) -> View {
        self.embed_rows(weight, EmbedRow::Token, scale)
    }

    /// One row of a matrix per token: by its id, by its position, or the same for all.
    pub fn embed_rows(&mut self, weight: WeightId, row: EmbedRow, scale: f32) -> View {
        let WeightSpec { rows, cols, .. } = self.weights[weight.0];
        assert!(!matches!(row, EmbedRow::Fixed(i) if i >= rows));
        self.record(Rows::Tokens, cols, |out| Op::Embed {
            weight,
            row,
            scale,
            out,
        })
    }

    /// A vector in every row, rows being those of `like`.
    pub fn repeat(&mut self, vector: WeightId, like: View) -> View {
        let all = self.embed_rows(vector, EmbedRow::Fixed(0), 1.0);
        match self.rows(like) {
            Rows::Tokens => all,
            Rows::Outputs => self.select_rows(all),
        }
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
        self.rms_norm_of(input, Some(weight), group, eps)
    }

    /// Root-mean-square norm over each run of `group` columns.
    pub fn plain_rms_norm(&mut self, input: View, group: usize, eps: f32) -> View {
        self.rms_norm_of(input, None, group, eps)
    }

    fn rms_norm_of(
        &mut self,
        input: View,
        weight: Option<WeightId>,
        group: usize,
        eps: f32,
    ) -> View {
        assert_eq!(input.cols % group, 0, "whole groups");
        self.record(self.rows(input), input.cols, |out| Op::RmsNorm {
            input,
            weight,
            group,
            eps,
            out,
        })
    }

    /// Layer norm over each run of `group` columns. Weight and bias have a number for each column
    /// of one run, or of several that follow each other.
    pub fn layer_norm(
        &mut self,
        input: View,
        weight: Option<WeightId>,
        bias: Option<WeightId>,
        group: usize,
        eps: f32,
    ) -> View {
        assert_eq!(input.cols % group, 0, "whole groups");
        for id in weight.into_iter().chain(bias) {
            let vector = &self.weights[id.0];
            assert_eq!(vector.rows, 1, "{}", vector.name);
            assert_eq!(vector.cols % group, 0, "{}", vector.name);
            assert_eq!(input.cols % vector.cols, 0, "{}", vector.name);
        }
        self.record(self.rows(input), input.cols, |out| Op::LayerNorm {
            input,
            weight,
            bias,
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
        let product = self.plain_matmul(input, weight, bias, residual);
        self.update_product(weight, input, product)
    }

    pub(super) fn plain_matmul(
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

    /// The mean over each wanted row's sequence.
    pub fn pool(&mut self, input: View) -> View {
        assert_eq!(self.rows(input), Rows::Tokens);
        let cols = input.cols;
        self.record(Rows::Outputs, cols, |out| Op::Pool { input, out })
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

    /// Activation without a gate.
    pub fn activate(&mut self, input: View, activation: Activation) -> View {
        self.record(self.rows(input), input.cols, |out| Op::Activate {
            input,
            activation,
            out,
        })
    }

    /// Product with a number.
    pub fn scale(&mut self, input: View, factor: f32) -> View {
        self.record(self.rows(input), input.cols, |out| Op::Scale {
            input,
            factor,
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
        assert!(k <= MAX_CANDIDATES);
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
