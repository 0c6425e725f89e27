//! The oracle's operations along a sequence, and their cases.

use std::collections::HashMap;

use ollama_wgpu::backend::*;

use crate::case::Case;
use crate::file::{File, Random};

/// Recurrent states by (number, slot).
pub type States = HashMap<(usize, usize), Vec<f64>>;

/// Results of all tokens, one after another.
pub fn run<'a>(
    batch: &Batch,
    op: &Op,
    row: impl Fn(View, usize) -> &'a [f64],
    vector: impl Fn(WeightId) -> &'a [f64],
    states: &mut States,
) -> Vec<f64> {
    let mut out = Vec::new();
    for run in batch.runs() {
        for i in run.first..run.first + run.len {
            match *op {
                Op::ShortConv {
                    state,
                    input,
                    weight,
                    kernel,
                    silu,
                    ..
                } => {
                    let x = row(input, i);
                    let past = states.entry((state, run.state)).or_default();
                    if batch.positions[i] == 0 {
                        *past = vec![0.0; (kernel - 1) * x.len()];
                    }
                    past.extend(x);
                    out.extend(short_conv(past, vector(weight), kernel, silu));
                    past.drain(..x.len());
                }
                Op::DeltaNet {
                    state,
                    qkv,
                    alpha,
                    beta,
                    decay,
                    bias,
                    heads,
                    eps,
                    ..
                } => {
                    let memory = states.entry((state, run.state)).or_default();
                    if batch.positions[i] == 0 {
                        *memory = vec![0.0; heads.state_size()];
                    }
                    let n = heads.head_dim * heads.head_dim;
                    for (h, memory) in memory.chunks_mut(n).enumerate() {
                        let softplus = (row(alpha, i)[h] + vector(bias)[h]).exp().ln_1p();
                        let keep = (vector(decay)[h] * softplus).exp();
                        let rate = 1.0 / (1.0 + (-row(beta, i)[h]).exp());
                        let parts = parts(row(qkv, i), heads, h, f64::from(eps));
                        out.extend(delta(memory, parts, keep, rate));
                    }
                }
                _ => unreachable!("called for operations along a sequence"),
            }
        }
    }
    out
}

/// `rows` are the last `kernel` ones.
fn short_conv(rows: &[f64], weight: &[f64], kernel: usize, silu: bool) -> Vec<f64> {
    let cols = rows.len() / kernel;
    let column = |c: usize| {
        let terms = (0..kernel).map(|j| weight[c * kernel + j] * rows[j * cols + c]);
        let y: f64 = terms.sum();
        if silu { y / (1.0 + (-y).exp()) } else { y }
    };
    (0..cols).map(column).collect()
}

/// Query, key and value of a head, the first two normalised.
fn parts(qkv: &[f64], heads: DeltaHeads, h: usize, eps: f64) -> [Vec<f64>; 3] {
    let dim = heads.head_dim;
    let head = |at: usize| qkv[at * dim..][..dim].to_vec();
    let normal = |x: Vec<f64>| {
        let length = (x.iter().map(|x| x * x).sum::<f64>() + eps).sqrt();
        x.into_iter().map(|x| x / length).collect()
    };
    let key = heads.key_head(h);
    [
        normal(head(key)),
        normal(head(heads.n_key_heads + key)),
        head(2 * heads.n_key_heads + h),
    ]
}

/// One step of one head; the state is `[key column, value column]`.
fn delta(state: &mut [f64], [q, k, v]: [Vec<f64>; 3], keep: f64, rate: f64) -> Vec<f64> {
    let dim = q.len();
    state.iter_mut().for_each(|s| *s *= keep);
    let read = |state: &[f64], x: &[f64], j: usize| -> f64 {
        (0..dim).map(|i| state[i * dim + j] * x[i]).sum()
    };
    let change: Vec<f64> = (0..dim)
        .map(|j| rate * (v[j] - read(state, &k, j)))
        .collect();
    for i in 0..dim {
        (0..dim).for_each(|j| state[i * dim + j] += k[i] * change[j]);
    }
    let scale = 1.0 / (dim as f64).sqrt();
    (0..dim).map(|j| scale * read(state, &q, j)).collect()
}

/// Convolutions and delta rules over sequences of several lengths.
pub fn cases(cases: &mut Vec<Case>) {
    for (cols, kernel, silu) in [(1, 2, false), (70, 3, false), (128, 4, true), (33, 8, true)] {
        for lengths in [&[1][..], &[2, 40], &[9, 1, 70]] {
            cases.push(short_conv_case(cols, kernel, silu, lengths));
        }
    }
    let heads = |n_heads, n_key_heads, head_dim, grouped| DeltaHeads {
        n_heads,
        n_key_heads,
        head_dim,
        grouped,
    };
    for heads in [
        heads(1, 1, 16, false),
        heads(4, 2, 32, false),
        heads(6, 3, 48, true),
        heads(2, 1, 128, true),
        heads(2, 2, 256, false),
    ] {
        for lengths in [&[1][..], &[2, 40], &[9, 1, 70]] {
            cases.push(delta_net_case(heads, lengths));
        }
    }
}

const N_VOCAB: usize = 50;

fn short_conv_case(cols: usize, kernel: usize, silu: bool, lengths: &[usize]) -> Case {
    let mut r = Random::new((cols * kernel + lengths.len()) as u64);
    let mut file = File::default();
    file.floats("source", N_VOCAB, cols + 1, &r.floats(N_VOCAB * (cols + 1)));
    file.floats("conv", 1, cols * kernel, &r.floats(cols * kernel));
    let (steps, n_states) = steps(lengths, &mut r);
    Case {
        name: format!("short_conv {cols} x {kernel} silu {silu} lengths {lengths:?}"),
        file: file.open(),
        weights: vec!["source".into(), "conv".into()],
        cache: Some(CacheSpec {
            n_pages: n_states * N_PAGES,
            n_sequences: n_states,
            // The state under test is the second, so that states must not be mixed up.
            states: states([5, (kernel - 1) * cols]),
            layers: vec![KvDims::default()],
            ..CacheSpec::default()
        }),
        steps,
        record: Box::new(move |b| {
            let x = b.embed(WeightId(0), 1.0);
            b.short_conv(1, x.columns(1, cols), WeightId(1), silu)
        }),
        top_k: None,
    }
}

fn delta_net_case(heads: DeltaHeads, lengths: &[usize]) -> Case {
    let mut r = Random::new((heads.qkv_dim() + lengths.len()) as u64);
    let mut file = File::default();
    let (qkv, n) = (heads.qkv_dim(), heads.n_heads);
    let cols = qkv + 2 * n;
    let values: Vec<f32> = r.floats(N_VOCAB * cols).iter().map(|x| 2.0 * x).collect();
    file.floats("source", N_VOCAB, cols, &values);
    let decay: Vec<f32> = r.floats(n).iter().map(|x| -x.abs()).collect();
    file.floats("decay", 1, n, &decay);
    file.floats("bias", 1, n, &r.floats(n));
    let (steps, n_states) = steps(lengths, &mut r);
    Case {
        name: format!("delta_net {heads:?} lengths {lengths:?}"),
        file: file.open(),
        weights: vec!["source".into(), "decay".into(), "bias".into()],
        cache: Some(CacheSpec {
            n_pages: n_states * N_PAGES,
            n_sequences: n_states,
            states: states([3, heads.state_size()]),
            layers: vec![KvDims::default()],
            ..CacheSpec::default()
        }),
        steps,
        record: Box::new(move |b| {
            let x = b.embed(WeightId(0), 1.0);
            let gates = (x.columns(qkv, n), x.columns(qkv + n, n));
            let weights = (WeightId(1), WeightId(2));
            b.delta_net(1, x.columns(0, qkv), gates, weights, heads, 1e-6)
        }),
        top_k: None,
    }
}

fn states(sizes: [usize; 2]) -> Vec<StateSpec> {
    sizes.map(|size| StateSpec { layer: 0, size }).to_vec()
}

/// Pages of each sequence.
const N_PAGES: usize = 4;

/// Two prefill chunks, two decode steps, then the sequences begin anew in each other's slots.
fn steps(lengths: &[usize], r: &mut Random) -> (Vec<Batch>, usize) {
    let n = lengths.len();
    let n_states = n + 2;
    let mut steps = Vec::new();
    let mut step = |phase, ranges: Vec<std::ops::Range<usize>>, shift: usize| {
        let mut batch = Batch::single(phase, &[], 0, Vec::new());
        batch.tables.clear();
        batch.states.clear();
        for (i, range) in ranges.into_iter().enumerate() {
            for position in range {
                batch.tokens.push((r.next() % N_VOCAB as u64) as u32);
                batch.positions.push(position as u32);
                batch.slots.push(NO_SLOT);
                batch.sequences.push(i as u32);
            }
            let pages = i * N_PAGES..(i + 1) * N_PAGES;
            batch.tables.push(pages.map(|page| page as u32).collect());
            batch
                .states
                .push(((i * (n_states - 1) + shift) % n_states) as u32);
        }
        if batch.n_tokens() > 0 {
            steps.push(batch);
        }
    };
    let half = |n: usize| n.div_ceil(2);
    let ranges =
        |f: &dyn Fn(usize) -> std::ops::Range<usize>| lengths.iter().map(|&n| f(n)).collect();
    for shift in [0, 1] {
        step(Phase::Prefill, ranges(&|n| 0..half(n)), shift);
        step(Phase::Prefill, ranges(&|n| half(n)..n), shift);
        step(Phase::Decode, ranges(&|n| n..n + 1), shift);
        step(Phase::Decode, ranges(&|n| n + 1..n + 2), shift);
    }
    (steps, n_states)
}
