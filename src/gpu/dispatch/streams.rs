//! Operations of models with several residual streams.

use super::Dispatch;
use super::norm::{norm_workgroup, per_group};
use crate::backend::{BufferId, Op, View};
use crate::gpu::launch::{Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

impl Dispatch<'_> {
    pub(super) fn stream_mix(&self, op: &Op) -> Launch {
        let Op::StreamMix {
            streams,
            others,
            mix,
            plus,
            width,
            out,
        } = *op
        else {
            unreachable!("called for stream_mix");
        };
        let shader = self
            .elementwise("kernels/stream_mix", streams.cols, out)
            .number("WIDTH", width)
            .number("N_OTHERS", others.cols / width)
            .float("PLUS", plus);
        let shader = self.view(shader, "STREAMS", streams);
        let shader = self.view(self.view(shader, "OTHERS", others), "MIX", mix);
        self.simple(shader, &[streams, others, mix], streams.cols, out)
    }

    /// A workgroup takes a run.
    pub(super) fn match_length(&self, input: View, like: View, out: BufferId) -> Launch {
        let shader = self
            .view(Shader::new("kernels/match_length"), "X", input)
            .number("GROUP", like.cols)
            .number("OUT_STRIDE", self.stride(out))
            .float("LEAST_SQUARE", Op::LEAST_SQUARE);
        let shader = self.view(shader, "LIKE", like);
        self.by_run(shader, (input, like.cols), Some(like), out)
    }

    /// A workgroup takes a row.
    pub(super) fn gaussian_top_k(&self, input: View, cutoff: f32, out: BufferId) -> Launch {
        let shader = self
            .view(Shader::new("kernels/gaussian_top_k"), "X", input)
            .parts(&["parts/moments"])
            .number("GROUP", input.cols)
            .number("OUT_STRIDE", self.stride(out))
            .float("CUTOFF", cutoff);
        self.by_run(shader, (input, input.cols), None, out)
    }

    /// A launch with a workgroup for each run of so many columns.
    fn by_run(
        &self,
        shader: Shader,
        (input, group): (View, usize),
        like: Option<View>,
        out: BufferId,
    ) -> Launch {
        let rows = self.rows(out);
        let like = like.map(|like| reads(self.slot(like.buffer)));
        let mut bindings = vec![reads(self.slot(input.buffer))];
        bindings.extend(like);
        bindings.extend([reads(Slot::Batch), writes(self.slot(out))]);
        Launch {
            shader: self.rows_word(self.reduce(shader, norm_workgroup(group)), rows),
            bindings,
            grid: per_group(input.cols / group, rows),
        }
    }
}
