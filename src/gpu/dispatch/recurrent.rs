//! Launches of operations along a sequence.

use super::parts::activation_parts;
use super::{Dispatch, WORKGROUP};
use crate::backend::{Activation, Op, Rows};
use crate::gpu::batch::RUNS_WORD;
use crate::gpu::launch::{Extent, Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// Value columns of the delta rule that a workgroup takes, as in its kernel.
const DELTA_COLUMNS: usize = 16;

impl Dispatch<'_> {
    /// The launch of a convolution along each sequence.
    pub(super) fn short_conv(&self, op: &Op) -> Result<Launch, String> {
        let Op::ShortConv {
            state,
            input,
            weight,
            kernel,
            silu,
            out,
        } = *op
        else {
            unreachable!("called for convolutions");
        };
        self.state(state, (kernel - 1) * input.cols)?;
        self.weight(weight)?;
        let activation = match silu {
            true => Activation::Silu,
            false => Activation::Identity,
        };
        let shader = self
            .elementwise("kernels/short_conv", input.cols, out)
            .number("KERNEL", kernel)
            .parts(activation_parts(activation));
        let shader = self.view(shader, "X", input);
        Ok(Launch {
            shader: self.along_runs(shader),
            bindings: vec![
                reads(self.slot(input.buffer)),
                reads(Slot::Weight(weight, 0)),
                reads(Slot::Batch),
                writes(Slot::State(state)),
                writes(self.slot(out)),
            ],
            grid: per_run(input.cols.div_ceil(WORKGROUP)),
        })
    }

    /// The launch of the gated delta rule.
    pub(super) fn delta_net(&self, op: &Op) -> Result<Launch, String> {
        let Op::DeltaNet {
            state,
            qkv,
            alpha,
            beta,
            decay,
            bias,
            heads,
            eps,
            out,
        } = *op
        else {
            unreachable!("called for delta rules");
        };
        self.state(state, heads.state_size())?;
        self.weight(decay)?;
        self.weight(bias)?;
        let shader = Shader::new("kernels/delta_net")
            .number("DIM", heads.head_dim)
            .number("HEADS", heads.n_heads)
            .number("KEY_HEADS", heads.n_key_heads)
            .flag("GROUPED", heads.grouped)
            .number("OUT_STRIDE", self.stride(out))
            .float("EPS", eps)
            .parts(&["parts/logistic"]);
        let shader = self.view(self.view(shader, "QKV", qkv), "ALPHA", alpha);
        let shader = self.view(self.reduce(shader, WORKGROUP), "BETA", beta);
        Ok(Launch {
            shader: self.along_runs(shader),
            bindings: vec![
                reads(self.slot(qkv.buffer)),
                reads(self.slot(alpha.buffer)),
                reads(self.slot(beta.buffer)),
                reads(Slot::Weight(decay, 0)),
                reads(Slot::Weight(bias, 0)),
                reads(Slot::Batch),
                writes(Slot::State(state)),
                writes(self.slot(out)),
            ],
            grid: per_run(heads.n_heads * heads.head_dim / DELTA_COLUMNS),
        })
    }

    fn along_runs(&self, shader: Shader) -> Shader {
        let shader = shader.number("RUNS_WORD", RUNS_WORD);
        self.rows_word(shader.parts(&["parts/runs"]), Rows::Tokens)
    }

    /// Checks that the cache keeps a state of that size.
    fn state(&self, number: usize, size: usize) -> Result<(), String> {
        let cache = self.cache.ok_or("the cache was not allocated")?;
        match cache.states.get(number) {
            Some(kept) if kept.size == size => Ok(()),
            _ => Err(format!("there is no state {number} of {size} numbers")),
        }
    }
}

/// Workgroups for each sequence of the batch.
fn per_run(groups: usize) -> [Extent; 3] {
    [Extent::Fixed(groups), Extent::Runs, Extent::Fixed(1)]
}
