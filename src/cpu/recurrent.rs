//! Operations along a sequence: short convolutions and the gated delta rule.
//!
//! Every column or head goes through the rows of a sequence in order, so that neither chunks nor
//! what shares the batch change a result.

use super::buffer::{Buffer, Matrix, Shared};
use super::pool::{Pool, PoolError};
use super::rowwise::{load, store};
use super::simd::{InstructionSet, Isa, Kernel, LANES, Lanes, math};
use crate::backend::{Batch, DeltaHeads, MAX_DELTA_HEAD, MAX_KERNEL, Run};

/// Columns of a convolution that one task takes.
const CONV_COLUMNS: usize = 256;

/// Vectors of value columns that the delta rule keeps in registers.
const DELTA_VECTORS: usize = 4;

/// The operands of [`crate::backend::Op::ShortConv`].
pub struct ShortConv<'a> {
    pub input: Matrix<'a>,
    /// `[cols, kernel]`
    pub weight: &'a [f32],
    pub kernel: usize,
    pub silu: bool,
}

/// Convolves every sequence of the batch; `states` are of `(kernel - 1) * cols` floats each.
///
/// # Errors
/// Those of the pool.
pub fn short_conv(
    isa: InstructionSet,
    pool: &mut Pool,
    states: &mut Buffer,
    batch: &Batch,
    op: &ShortConv<'_>,
    out: &mut [f32],
) -> Result<(), PoolError> {
    let runs: Vec<Run> = batch.runs().collect();
    let n_blocks = op.input.cols.div_ceil(CONV_COLUMNS);
    let states = &Shared::new(states.floats_mut());
    let out = &Shared::new(out);
    let task = |i: usize, _: &mut [Lanes]| {
        let first = i % n_blocks * CONV_COLUMNS;
        for column in (first..op.input.cols.min(first + CONV_COLUMNS)).step_by(LANES) {
            isa.run(ConvColumns {
                op,
                run: runs[i / n_blocks],
                column,
                states,
                out,
            });
        }
    };
    pool.run(runs.len() * n_blocks, 0, &task)
}

/// Up to sixteen columns of one sequence.
struct ConvColumns<'a> {
    op: &'a ShortConv<'a>,
    run: Run,
    column: usize,
    states: &'a Shared<'a>,
    out: &'a Shared<'a>,
}

impl Kernel for ConvColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let ConvColumns {
            op, run, column, ..
        } = self;
        let (cols, kernel) = (op.input.cols, op.kernel);
        let width = LANES.min(cols - column);
        let zero = isa.splat(0.0);
        let mut weights = [zero; MAX_KERNEL];
        let mut past = [zero; MAX_KERNEL];
        let state = run.state * (kernel - 1) * cols + column;
        for j in 0..kernel {
            let mut lanes = [0.0; LANES];
            for (lane, weight) in lanes[..width].iter_mut().enumerate() {
                *weight = op.weight[(column + lane) * kernel + j];
            }
            weights[j] = isa.load(&lanes);
            if j + 1 < kernel && !run.begins {
                // SAFETY: each run has a state of its own, and each column one task.
                past[j] = load(isa, unsafe { self.states.part(state + j * cols, width) });
            }
        }
        for row in run.first..run.first + run.len {
            past[kernel - 1] = load(isa, &op.input.row(row)[column..column + width]);
            let mut sum = zero;
            for j in 0..kernel {
                sum = isa.fma(weights[j], past[j], sum);
            }
            if op.silu {
                sum = math::silu(isa, sum);
            }
            // SAFETY: each row belongs to one run, and each column to one task.
            store(isa, sum, unsafe {
                self.out.part(row * cols + column, width)
            });
            past.copy_within(1..kernel, 0);
        }
        for (j, x) in past[..kernel - 1].iter().enumerate() {
            // SAFETY: as where it was read.
            store(isa, *x, unsafe {
                self.states.part(state + j * cols, width)
            });
        }
    }
}

/// The operands of [`crate::backend::Op::DeltaNet`].
pub struct DeltaNet<'a> {
    pub qkv: Matrix<'a>,
    pub alpha: Matrix<'a>,
    pub beta: Matrix<'a>,
    pub decay: &'a [f32],
    pub bias: &'a [f32],
    pub heads: DeltaHeads,
    pub eps: f32,
}

/// Applies the rule to every sequence of the batch; `states` are of
/// [`DeltaHeads::state_size`] floats each.
///
/// # Errors
/// Those of the pool.
pub fn delta_net(
    isa: InstructionSet,
    pool: &mut Pool,
    states: &mut Buffer,
    batch: &Batch,
    op: &DeltaNet<'_>,
    out: &mut [f32],
) -> Result<(), PoolError> {
    let runs: Vec<Run> = batch.runs().collect();
    let n_heads = op.heads.n_heads;
    let states = &Shared::new(states.floats_mut());
    let out = &Shared::new(out);
    let task = |i: usize, _: &mut [Lanes]| {
        let (run, head) = (runs[i / n_heads], i % n_heads);
        let size = op.heads.head_dim * op.heads.head_dim;
        // SAFETY: each run has a state of its own, and each head of it one task.
        let state = unsafe { states.part((run.state * n_heads + head) * size, size) };
        if run.begins {
            state.fill(0.0);
        }
        isa.run(DeltaHead {
            op,
            run,
            head,
            state,
            out,
        });
    };
    pool.run(runs.len() * n_heads, 0, &task)
}

/// One head of one sequence; its state is `[key column, value column]`.
struct DeltaHead<'a> {
    op: &'a DeltaNet<'a>,
    run: Run,
    head: usize,
    state: &'a mut [f32],
    out: &'a Shared<'a>,
}

impl Kernel for DeltaHead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let DeltaHead { op, run, head, .. } = self;
        let DeltaHeads {
            head_dim,
            n_key_heads,
            n_heads,
            ..
        } = op.heads;
        let key_head = op.heads.key_head(head);
        let (mut q, mut k) = ([0.0; MAX_DELTA_HEAD], [0.0; MAX_DELTA_HEAD]);
        let (q, k) = (&mut q[..head_dim], &mut k[..head_dim]);
        for row in run.first..run.first + run.len {
            let part = |at: usize| &op.qkv.row(row)[at * head_dim..][..head_dim];
            let scale = 1.0 / (head_dim as f32).sqrt();
            normalise(isa, part(key_head), op.eps, scale, q);
            normalise(isa, part(n_key_heads + key_head), op.eps, 1.0, k);
            let values = part(2 * n_key_heads + head);
            let (alpha, beta) = (op.alpha.row(row)[head], op.beta.row(row)[head]);
            let step = DeltaStep {
                keep: keep(op.decay[head], alpha + op.bias[head]),
                rate: rate(beta),
                q,
                k,
            };
            // SAFETY: each row belongs to one run, and each head to one task.
            let out = unsafe { self.out.part((row * n_heads + head) * head_dim, head_dim) };
            let mut column = 0;
            while column + DELTA_VECTORS * LANES <= head_dim {
                step.columns::<I, DELTA_VECTORS>(isa, column, values, self.state, out);
                column += DELTA_VECTORS * LANES;
            }
            while column < head_dim {
                step.columns::<I, 1>(isa, column, values, self.state, out);
                column += LANES;
            }
        }
    }
}

/// `exp(decay * ln(1 + e^x))`, in 64 bits: one number a head.
fn keep(decay: f32, x: f32) -> f32 {
    let x = f64::from(x);
    let softplus = x.max(0.0) + (-x.abs()).exp().ln_1p();
    (f64::from(decay) * softplus).exp() as f32
}

/// `1 / (1 + e^-x)`, in 64 bits.
fn rate(x: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(x)).exp())) as f32
}

/// `out = scale * x / sqrt(sum(x^2) + eps)`
#[inline(always)]
fn normalise<I: Isa>(isa: I, x: &[f32], eps: f32, scale: f32, out: &mut [f32]) {
    let mut squares = isa.splat(0.0);
    for x in x.chunks(LANES) {
        let x = load(isa, x);
        squares = isa.fma(x, x, squares);
    }
    let factor = isa.splat(scale / (isa.sum(squares) + eps).sqrt());
    for (x, out) in x.chunks(LANES).zip(out.chunks_mut(LANES)) {
        store(isa, isa.mul(load(isa, x), factor), out);
    }
}

/// What a token does to all columns of a head's state.
struct DeltaStep<'a> {
    keep: f32,
    rate: f32,
    q: &'a [f32],
    k: &'a [f32],
}

impl DeltaStep<'_> {
    /// `N` vectors of value columns from `column` on.
    #[inline(always)]
    fn columns<I: Isa, const N: usize>(
        &self,
        isa: I,
        column: usize,
        values: &[f32],
        state: &mut [f32],
        out: &mut [f32],
    ) {
        let dim = self.k.len();
        let (keep, rate) = (isa.splat(self.keep), isa.splat(self.rate));
        let mut change = [isa.splat(0.0); N];
        for (i, &k) in self.k.iter().enumerate() {
            let k = isa.mul(isa.splat(k), keep);
            let row = &state[i * dim + column..][..N * LANES];
            for (n, sum) in change.iter_mut().enumerate() {
                *sum = isa.fma(k, load(isa, &row[n * LANES..][..LANES]), *sum);
            }
        }
        for (n, sum) in change.iter_mut().enumerate() {
            let value = load(isa, &values[column + n * LANES..][..LANES]);
            *sum = isa.mul(rate, isa.sub(value, *sum));
        }
        let mut result = [isa.splat(0.0); N];
        for (i, (&k, &q)) in self.k.iter().zip(self.q).enumerate() {
            let (k, q) = (isa.splat(k), isa.splat(q));
            let row = &mut state[i * dim + column..][..N * LANES];
            for n in 0..N {
                let place = &mut row[n * LANES..][..LANES];
                let kept = isa.mul(load(isa, place), keep);
                let new = isa.fma(k, change[n], kept);
                store(isa, new, place);
                result[n] = isa.fma(q, new, result[n]);
            }
        }
        for (n, sum) in result.iter().enumerate() {
            store(isa, *sum, &mut out[column + n * LANES..][..LANES]);
        }
    }
}
