//! Several residual streams side by side: the builder methods of the ops that mix them.

use super::builder::PlanBuilder;
use super::op::Op;
use super::plan::View;

impl PlanBuilder<'_> {
    /// Streams with mixtures of others added; `mix` has a factor for each pair, less `plus`.
    pub fn stream_mix(
        &mut self,
        streams: View,
        (others, width): (View, usize),
        mix: View,
        plus: f32,
    ) -> View {
        assert_eq!((streams.cols % width, others.cols % width), (0, 0));
        assert_eq!(mix.cols, streams.cols / width * (others.cols / width));
        self.record(self.rows(streams), streams.cols, |out| Op::StreamMix {
            streams,
            others,
            mix,
            plus,
            width,
            out,
        })
    }

    /// Each run of as many columns as `like` has, with its length.
    pub fn match_length(&mut self, input: View, like: View) -> View {
        assert_eq!(input.cols % like.cols, 0, "whole runs");
        assert_eq!(self.rows(input), self.rows(like));
        self.record(self.rows(input), input.cols, |out| Op::MatchLength {
            input,
            like,
            out,
        })
    }

    /// What is more than `cutoff` standard deviations above the mean of the row, the rest zero.
    pub fn gaussian_top_k(&mut self, input: View, cutoff: f32) -> View {
        assert!(input.cols > 1, "one number does not deviate");
        self.record(self.rows(input), input.cols, |out| Op::GaussianTopK {
            input,
            cutoff,
            out,
        })
    }
}
