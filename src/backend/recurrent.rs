//! Operations along a sequence, with a state that outlives the step.

use super::builder::PlanBuilder;
use super::op::Op;
use super::plan::{Rows, View};
use super::weight::WeightId;

/// Most columns of a head of the delta rule; whole vectors of 16.
pub const MAX_DELTA_HEAD: usize = 256;

/// Longest convolution along a sequence.
pub const MAX_KERNEL: usize = 8;

/// The heads of [`Op::DeltaNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeltaHeads {
    /// Heads of values, of states and of the result.
    pub n_heads: usize,
    /// Heads of queries and keys.
    pub n_key_heads: usize,
    /// Columns of a query, a key and a value alike.
    pub head_dim: usize,
    /// Whether neighbours share a key head; else the key heads are dealt out in turn.
    pub grouped: bool,
}

impl DeltaHeads {
    /// Columns of all queries, keys and values of a token.
    pub fn qkv_dim(&self) -> usize {
        (2 * self.n_key_heads + self.n_heads) * self.head_dim
    }

    /// Columns of the result.
    pub fn out_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Floats of a sequence's state.
    pub fn state_size(&self) -> usize {
        self.out_dim() * self.head_dim
    }

    /// The key head of a value head.
    pub fn key_head(&self, head: usize) -> usize {
        match self.grouped {
            true => head / (self.n_heads / self.n_key_heads),
            false => head % self.n_key_heads,
        }
    }
}

impl PlanBuilder<'_> {
    /// Convolution of each column along the sequence; its length follows from the weight.
    pub fn short_conv(&mut self, state: usize, input: View, weight: WeightId, silu: bool) -> View {
        let n_weights = self.weights[weight.0].cols;
        assert_eq!(self.weights[weight.0].rows, 1);
        assert_eq!(n_weights % input.cols, 0);
        let kernel = n_weights / input.cols;
        assert!((2..=MAX_KERNEL).contains(&kernel));
        self.record(Rows::Tokens, input.cols, |out| Op::ShortConv {
            state,
            input,
            weight,
            kernel,
            silu,
            out,
        })
    }

    /// Gated delta rule. `gates` are alpha and beta, `weights` decay and bias.
    pub fn delta_net(
        &mut self,
        state: usize,
        qkv: View,
        gates: (View, View),
        weights: (WeightId, WeightId),
        heads: DeltaHeads,
        eps: f32,
    ) -> View {
        let ((alpha, beta), (decay, bias)) = (gates, weights);
        assert_eq!(heads.n_heads % heads.n_key_heads, 0);
        assert!(heads.head_dim.is_multiple_of(16) && heads.head_dim <= MAX_DELTA_HEAD);
        assert_eq!(qkv.cols, heads.qkv_dim());
        assert_eq!((alpha.cols, beta.cols), (heads.n_heads, heads.n_heads));
        for id in [decay, bias] {
            assert_eq!(self.weights[id.0].cols, heads.n_heads);
        }
        self.record(Rows::Tokens, heads.out_dim(), |out| Op::DeltaNet {
            state,
            qkv,
            alpha,
            beta,
            decay,
            bias,
            heads,
            eps,
            out,
        })
    }
}
