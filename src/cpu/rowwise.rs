//! Operations that compute each row alone: embedding, norms, rotary embedding, activations, sums.

use super::buffer::{Matrix, Shared};
use super::pool::{Pool, PoolError};
use super::simd::{InstructionSet, Isa, Kernel, LANES, Lanes, math};
use super::weight::WeightRows;
use crate::backend::{Activation, Heads, RopeOrder};

/// Fewest floats that are worth another thread.
const CHUNK_FLOATS: usize = 16 * 1024;

/// Calls `f` for each row of `out`, rows of `cols`, on all threads.
///
/// # Errors
/// Those of the pool.
pub fn each_row(
    pool: &mut Pool,
    cols: usize,
    out: &mut [f32],
    f: impl Fn(usize, &mut [f32]) + Sync,
) -> Result<(), PoolError> {
    let n_rows = out.len() / cols;
    let chunk_rows = CHUNK_FLOATS.div_ceil(cols);
    let out = &Shared::new(out);
    let task = |chunk: usize, _: &mut [Lanes]| {
        for row in chunk * chunk_rows..n_rows.min((chunk + 1) * chunk_rows) {
            // SAFETY: each row belongs to one chunk, and each chunk to one call.
            f(row, unsafe { out.part(row * cols, cols) });
        }
    };
    pool.run(n_rows.div_ceil(chunk_rows), 0, &task)
}

/// A row of an embedding matrix, scaled.
pub fn embed(weight: &WeightRows<'_>, row: usize, scale: f32, out: &mut [f32]) {
    weight.quant.decode(weight.row(row), out);
    if scale != 1.0 {
        out.iter_mut().for_each(|x| *x *= scale);
    }
}

/// Sixteen floats, or fewer and zeros.
#[inline(always)]
pub fn load<I: Isa>(isa: I, x: &[f32]) -> I::F {
    load_or(isa, x, 0.0)
}

/// Sixteen floats, or fewer and `rest`.
#[inline(always)]
fn load_or<I: Isa>(isa: I, x: &[f32], rest: f32) -> I::F {
    if let Ok(x) = x.try_into() {
        return isa.load(x);
    }
    let mut lanes = [rest; LANES];
    lanes[..x.len()].copy_from_slice(x);
    isa.load(&lanes)
}

/// The first lanes, as many as `out` takes.
#[inline(always)]
pub fn store<I: Isa>(isa: I, x: I::F, out: &mut [f32]) {
    if let Ok(out) = out.try_into() {
        return isa.store(x, out);
    }
    let mut lanes = [0.0; LANES];
    isa.store(x, &mut lanes);
    out.copy_from_slice(&lanes[..out.len()]);
}

/// `out = f(a, b)`, element by element.
#[inline(always)]
pub fn zip<I: Isa>(isa: I, a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(I::F, I::F) -> I::F) {
    let inputs = a.chunks(LANES).zip(b.chunks(LANES));
    for (out, (a, b)) in out.chunks_mut(LANES).zip(inputs) {
        store(isa, f(load(isa, a), load(isa, b)), out);
    }
}

/// `out = f(x)`, element by element.
#[inline(always)]
pub fn map<I: Isa>(isa: I, x: &[f32], out: &mut [f32], f: impl Fn(I::F) -> I::F) {
    for (out, x) in out.chunks_mut(LANES).zip(x.chunks(LANES)) {
        store(isa, f(load(isa, x)), out);
    }
}

/// The sum of all numbers.
#[inline(always)]
pub fn sum<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let mut sum = isa.splat(0.0);
    for x in x.chunks(LANES) {
        sum = isa.add(load(isa, x), sum);
    }
    isa.sum(sum)
}

/// The sum of squares of what is left of each number without `mean`.
#[inline(always)]
pub fn squares<I: Isa>(isa: I, x: &[f32], mean: f32) -> f32 {
    let means = isa.splat(mean);
    let mut squares = isa.splat(0.0);
    for x in x.chunks(LANES) {
        let off = isa.sub(load_or(isa, x, mean), means);
        squares = isa.fma(off, off, squares);
    }
    isa.sum(squares)
}

/// `x / sqrt(mean(x^2) + eps) (* weight)` over each run of `group` columns.
pub struct RmsNorm<'a> {
    pub x: &'a [f32],
    pub weight: Option<&'a [f32]>,
    pub group: usize,
    pub eps: f32,
    pub out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let n = self.group;
        for (x, out) in self.x.chunks_exact(n).zip(self.out.chunks_exact_mut(n)) {
            let scale = 1.0 / (squares(isa, x, 0.0) / n as f32 + self.eps).sqrt();
            let scale = isa.splat(scale);
            match self.weight {
                Some(weight) => zip(
                    isa,
                    x,
                    weight,
                    out,
                    #[inline(always)]
                    |x, w| isa.mul(isa.mul(x, scale), w),
                ),
                None => map(
                    isa,
                    x,
                    out,
                    #[inline(always)]
                    |x| isa.mul(x, scale),
                ),
            }
        }
    }
}

/// `(x - mean) / sqrt(variance + eps) (* weight) (+ bias)` over each run of `group` columns.
pub struct LayerNorm<'a> {
    pub x: &'a [f32],
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub group: usize,
    pub eps: f32,
    pub out: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let n = self.group;
        let groups = self.x.chunks_exact(n).zip(self.out.chunks_exact_mut(n));
        for (i, (x, out)) in groups.enumerate() {
            let mean = sum(isa, x) / n as f32;
            let means = isa.splat(mean);
            let scale = 1.0 / (squares(isa, x, mean) / n as f32 + self.eps).sqrt();
            let scale = isa.splat(scale);
            let part = |vector: &'_ [f32]| i * n % vector.len();
            match self.weight {
                Some(weight) => zip(
                    isa,
                    x,
                    &weight[part(weight)..][..n],
                    out,
                    #[inline(always)]
                    |x, w| isa.mul(isa.mul(isa.sub(x, means), scale), w),
                ),
                None => map(
                    isa,
                    x,
                    out,
                    #[inline(always)]
                    |x| isa.mul(isa.sub(x, means), scale),
                ),
            }
            if let Some(bias) = self.bias {
                let bias = &bias[part(bias)..][..n];
                out.iter_mut().zip(bias).for_each(|(out, b)| *out += b);
            }
        }
    }
}

/// Turns the heads of one token; `angles` is `[half_dim, 2]`, cosine and sine.
pub struct Rope<'a> {
    pub x: &'a [f32],
    pub angles: &'a [f32],
    pub head_dim: usize,
    pub order: RopeOrder,
    pub out: &'a mut [f32],
}

impl Kernel for Rope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let angles = self.angles.as_chunks::<2>().0;
        let half = angles.len();
        let heads = self.x.chunks_exact(self.head_dim);
        for (x, out) in heads.zip(self.out.chunks_exact_mut(self.head_dim)) {
            let (x, x_rest) = x.split_at(2 * half);
            let (out, out_rest) = out.split_at_mut(2 * half);
            out_rest.copy_from_slice(x_rest);
            match self.order {
                RopeOrder::Norm => {
                    let pairs = x.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<2>().0);
                    for ((x, out), &[cos, sin]) in pairs.zip(angles) {
                        *out = [x[0] * cos - x[1] * sin, x[0] * sin + x[1] * cos];
                    }
                }
                RopeOrder::Neox => {
                    let (a, b) = x.split_at(half);
                    let (out_a, out_b) = out.split_at_mut(half);
                    for (i, &[cos, sin]) in angles.iter().enumerate() {
                        out_a[i] = a[i] * cos - b[i] * sin;
                        out_b[i] = a[i] * sin + b[i] * cos;
                    }
                }
            }
        }
    }
}

/// `activation(gate) * up`
pub struct Glu<'a> {
    pub gate: &'a [f32],
    pub up: &'a [f32],
    pub activation: Activation,
    pub out: &'a mut [f32],
}

impl Kernel for Glu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        zip(
            isa,
            self.gate,
            self.up,
            self.out,
            #[inline(always)]
            |gate, up| {
                let up = math::gated(isa, self.activation, up);
                isa.mul(math::activate(isa, self.activation, gate), up)
            },
        );
    }
}

/// A function of one number.
pub trait Elementwise: Copy {
    fn of<I: Isa>(self, isa: I, x: I::F) -> I::F;
}

impl Elementwise for Activation {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, x: I::F) -> I::F {
        math::activate(isa, self, x)
    }
}

/// `cap tanh(x / cap)`
#[derive(Clone, Copy)]
pub struct SoftCap(pub f32);

impl Elementwise for SoftCap {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, x: I::F) -> I::F {
        math::soft_cap(isa, x, self.0)
    }
}

/// `f(x)`, element by element.
pub struct Map<'a, F> {
    pub x: &'a [f32],
    pub f: F,
    pub out: &'a mut [f32],
}

impl<F: Elementwise> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        map(
            isa,
            self.x,
            self.out,
            #[inline(always)]
            |x| self.f.of(isa, x),
        );
    }
}

/// Heads of up to two matrices one after another, for row `i`.
pub fn concat_heads(
    n_heads: usize,
    i: usize,
    parts: &[Option<(Matrix<'_>, Heads)>; 2],
    out: &mut [f32],
) {
    let mut rest = out;
    for head in 0..n_heads {
        for (matrix, heads) in parts.iter().flatten() {
            let (place, after) = rest.split_at_mut(heads.width);
            place.copy_from_slice(&matrix.row(i)[head * heads.stride..][..heads.width]);
            rest = after;
        }
    }
}

/// `factor * x`
pub fn scale(x: &[f32], factor: f32, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = factor * x;
    }
}

/// Sum of two matrices.
pub fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a + b;
    }
}

/// Mean of some rows, added up in their order.
pub fn mean(input: &Matrix<'_>, rows: std::ops::RangeInclusive<usize>, out: &mut [f32]) {
    let scale = 1.0 / rows.clone().count() as f32;
    out.fill(0.0);
    for row in rows {
        out.iter_mut()
            .zip(input.row(row))
            .for_each(|(o, x)| *o += x);
    }
    out.iter_mut().for_each(|o| *o *= scale);
}

/// Root-mean-square norm of every row.
///
/// # Errors
/// Those of the pool.
pub fn rms_norm(
    isa: InstructionSet,
    pool: &mut Pool,
    input: Matrix<'_>,
    (weight, group): (Option<&[f32]>, usize),
    eps: f32,
    out: &mut [f32],
) -> Result<(), PoolError> {
    each_row(pool, input.cols, out, |i, out| {
        let x = input.row(i);
        isa.run(RmsNorm {
            x,
            weight,
            group,
            eps,
            out,
        });
    })
}
