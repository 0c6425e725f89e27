//! One arithmetic everywhere: instruction sets, kernels, batches, chunks and threads agree bit
//! for bit, and with plain loops.

use super::attention::{Attention, attention, kv_write};
use super::buffer::{Buffer, Matrix, Shared};
use super::cache::{LayerCache, Pages};
use super::format::integer::is_integer;
use super::matmul::{Input, Product, Rows, matmul_all, prepare};
use super::pool::Pool;
use super::simd::{InstructionSet, Isa, Kernel, LANES, Lanes, math};
use super::top_k::top_k;
use super::weight::WeightRows;
use crate::backend::{Batch, KvDims, KvType, NO_SLOT, PAGE_TOKENS, Phase};
use crate::quant::QuantType;

/// Numbers that look random: splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// Uniform between -1 and 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// Bytes of rows whose weights are small numbers: every f16 of a block lies below 1.
    fn rows(&mut self, quant: QuantType, n_weights: usize) -> Vec<u8> {
        if quant == QuantType::F32 {
            let floats = self.floats(n_weights);
            return floats.into_iter().flat_map(f32::to_le_bytes).collect();
        }
        let n_bytes = quant.row_bytes(n_weights);
        let mut bytes: Vec<u8> = (0..n_bytes).map(|_| self.byte()).collect();
        let halves: &[usize] = match quant {
            QuantType::Q2_K => &[80, 82],
            QuantType::Q3_K => &[108],
            QuantType::Q6_K => &[208],
            QuantType::TQ1_0 => &[52],
            QuantType::TQ2_0 => &[64],
            // The upper bits of its factor lie among the scales.
            QuantType::IQ1_M => &[54],
            QuantType::MXFP4 | QuantType::NVFP4 => &[],
            QuantType::Q4_1 | QuantType::Q5_1 | QuantType::Q4_K | QuantType::Q5_K => &[0, 2],
            _ => &[0],
        };
        for block in bytes.chunks_mut(quant.block_bytes()) {
            for &at in halves {
                block[at + 1] = block[at + 1] & 0x83 | 0x38;
            }
            if quant == QuantType::MXFP4 {
                block[0] = block[0] & 7 | 120;
            }
        }
        bytes
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The sum of products as [`super::matmul`] defines it.
fn plain_dot(w: &[f32], x: &[f32]) -> f32 {
    let mut acc: Lanes = [0.0; LANES];
    for (w, x) in w.chunks(LANES).zip(x.chunks(LANES)) {
        for (acc, (w, x)) in acc.iter_mut().zip(w.iter().zip(x)) {
            *acc = w.mul_add(*x, *acc);
        }
    }
    let pair = |i: usize| (acc[i] + acc[i + 8]) + (acc[i + 4] + acc[i + 12]);
    (pair(0) + pair(2)) + (pair(1) + pair(3))
}

/// Runs a product with floats.
fn run_product(isa: InstructionSet, pool: &mut Pool, product: Product<'_>, out: &mut [f32]) {
    let Input::Floats(input) = product.input else {
        unreachable!("tests have floats");
    };
    let Rows::All(n_tokens) = product.rows else {
        unreachable!("tests have all rows");
    };
    let mut changed = Buffer::default();
    let quant = product.weight.quant;
    let input = prepare(isa, pool, quant, input, n_tokens, &mut changed).expect("memory");
    let product = Product { input, ..product };
    let out = Shared::new(out);
    matmul_all(isa, pool, &[product], |_| &out).expect("runs");
}

/// A product that is computed with integers, by the slowest way through [`super::matmul`], and
/// proved: it may differ from the sum in f64 by half a step for each activation and, since it is
/// added up in f32, by a few millionths.
fn integer_dot(quant: QuantType, row: &[u8], w: &[f32], x: &[f32]) -> f32 {
    let mut out = [0.0];
    let product = Product {
        weight: WeightRows::join(quant, x.len(), std::iter::once((1, row))),
        input: Input::Floats(Matrix::new(x, x.len(), 0, x.len())),
        rows: Rows::All(1),
        bias: None,
        residual: None,
    };
    let scalar = InstructionSet::present()[0];
    let mut pool = Pool::new(1);
    run_product(scalar, &mut pool, product, &mut out);
    let steps = match quant {
        QuantType::Q4_K => 32767.0,
        QuantType::Q5_K => 16383.0,
        _ => 8191.0,
    };
    let (mut want, mut bound) = (0.0, 0.0);
    for (w, x) in w.chunks(256).zip(x.chunks(256)) {
        let largest = x
            .iter()
            .fold(0.0f64, |most, &x| most.max(f64::from(x).abs()));
        for (&w, &x) in w.iter().zip(x) {
            let (w, x) = (f64::from(w), f64::from(x));
            want += w * x;
            bound += w.abs() * largest / steps * 0.5001 + (w * x).abs() * 3e-6;
        }
    }
    let error = (f64::from(out[0]) - want).abs();
    assert!(error <= bound, "{quant:?}: {} instead of {want}", out[0]);
    out[0]
}

#[test]
fn products_have_one_arithmetic() {
    let mut random = Random::new(2);
    for quant in QuantType::all() {
        let lengths: &[usize] = match quant.block_len() {
            1 => &[1, 31, 33, 100, 1400],
            32 => &[32, 96, 1344],
            _ => &[256, 1536],
        };
        for &cols in lengths {
            for (rows, n_tokens) in [(1, 1), (3, 2), (7, 9), (67, 13), (9, 20), (3, 50)] {
                let first = rows / 2;
                let row_bytes = quant.row_bytes(cols);
                let bytes = random.rows(quant, rows * cols);
                let (a, b) = bytes.split_at(first * row_bytes);
                let mut weights = vec![0.0; rows * cols];
                quant.decode(&bytes, &mut weights);
                let x = random.floats(n_tokens * cols);
                let bias = random.floats(rows);
                let residual = random.floats(n_tokens * rows);
                let mut want = Vec::new();
                for t in 0..n_tokens {
                    for r in 0..rows {
                        let (w, x) = (&weights[r * cols..][..cols], &x[t * cols..][..cols]);
                        let dot = match is_integer(quant) {
                            true => integer_dot(quant, &bytes[r * row_bytes..][..row_bytes], w, x),
                            false => plain_dot(w, x),
                        };
                        want.push(dot + bias[r] + residual[t * rows + r]);
                    }
                }
                let product = |token: usize, n_tokens: usize| Product {
                    weight: WeightRows::join(
                        quant,
                        cols,
                        [(first, a), (rows - first, b)].into_iter(),
                    ),
                    input: Input::Floats(Matrix::new(&x[token * cols..], cols, 0, cols)),
                    rows: Rows::All(n_tokens),
                    bias: Some(&bias),
                    residual: Some(Matrix::new(&residual[token * rows..], rows, 0, rows)),
                };
                for isa in InstructionSet::present() {
                    let mut pool = Pool::new(2);
                    let case = format!("{} {quant:?} {rows} x {cols} x {n_tokens}", isa.name());
                    let mut out = vec![0.0; rows * n_tokens];
                    let whole = product(0, n_tokens);
                    run_product(isa, &mut pool, whole, &mut out);
                    assert_eq!(bits(&out), bits(&want), "{case}");
                    let last = n_tokens - 1;
                    let out = &mut out[..rows];
                    run_product(isa, &mut pool, product(last, 1), out);
                    assert_eq!(bits(out), bits(&want[last * rows..]), "{case}, one token");
                }
            }
        }
    }
}

/// A sequence whose pages lie in reverse, cut into steps at the given positions.
fn steps(n_tokens: usize, cuts: &[usize]) -> Vec<Batch> {
    let n_pages = n_tokens.div_ceil(PAGE_TOKENS) as u32;
    let table: Vec<u32> = (0..n_pages).rev().collect();
    let ends = cuts.iter().copied().chain([n_tokens]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let batch = |(start, end): (usize, usize)| {
        let mut batch = Batch::single(Phase::Prefill, &vec![0; end - start], start, vec![]);
        batch.tables = vec![table.clone()];
        for (slot, &p) in batch.slots.iter_mut().zip(&batch.positions) {
            let (page, token) = (p as usize / PAGE_TOKENS, p as usize % PAGE_TOKENS);
            *slot = table[page] * PAGE_TOKENS as u32 + token as u32;
        }
        batch
    };
    starts.zip(ends).map(batch).collect()
}

struct AttentionCase {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    soft_cap: Option<f32>,
    kv_type: KvType,
    sinks: bool,
}

/// A score without a value for each head, below and above the others.
const SINKS: [f32; 14] = [
    0.0, 1.5, -2.0, 9.0, 0.5, -0.5, 3.0, 2.5, 0.1, -7.0, 1.0, 0.2, 0.3, 4.0,
];

impl AttentionCase {
    /// The rows of all steps. Slots that nobody may see hold no numbers at first.
    fn run(
        &self,
        isa: InstructionSet,
        n_threads: usize,
        [q, k, v]: [&[f32]; 3],
        steps: &[Batch],
    ) -> Vec<f32> {
        let (dim, kv_dim) = (
            self.n_heads * self.head_dim,
            self.n_kv_heads * self.head_dim,
        );
        let mut pool = Pool::new(n_threads);
        let n_pages = steps[0].tables[0].len();
        let dims = KvDims {
            keys: kv_dim,
            values: kv_dim,
        };
        let mut cache = LayerCache::new(self.kv_type, n_pages, dims).expect("memory");
        let nan = vec![f32::NAN; kv_dim * n_pages * PAGE_TOKENS];
        let stale = Batch::single(Phase::Prefill, &vec![0; n_pages * PAGE_TOKENS], 0, vec![]);
        let matrix = |x| Matrix::new(x, kv_dim, 0, kv_dim);
        kv_write(isa, &mut cache, &stale, matrix(&nan), matrix(&nan));
        let mut out = Vec::new();
        for step in steps {
            let start = step.positions[0] as usize;
            let (k, v) = (&k[start * kv_dim..], &v[start * kv_dim..]);
            kv_write(isa, &mut cache, step, matrix(k), matrix(v));
            let op = Attention {
                q: Matrix::new(&q[start * dim..], dim, 0, dim),
                n_heads: self.n_heads,
                n_kv_heads: self.n_kv_heads,
                head_dim: self.head_dim,
                value_dim: self.head_dim,
                scale: 0.3,
                causal: true,
                window: self.window,
                soft_cap: self.soft_cap,
                sinks: self.sinks.then_some(&SINKS[..self.n_heads]),
                alibi: None,
            };
            let mut rows = vec![0.0; step.n_tokens() * dim];
            attention(isa, &mut pool, &cache, step, &op, &mut rows).expect("runs");
            out.extend(rows);
        }
        out
    }
}

#[test]
fn attention_does_not_depend_on_chunks_threads_or_instruction_set() {
    let mut random = Random::new(3);
    let case = |n_heads, n_kv_heads, head_dim, window, soft_cap, kv_type| AttentionCase {
        n_heads,
        n_kv_heads,
        head_dim,
        window,
        soft_cap,
        kv_type,
        sinks: n_heads == 14,
    };
    for case in [
        case(9, 3, 64, None, None, KvType::F16),
        case(14, 2, 20, Some(33), None, KvType::F32),
        case(4, 1, 256, Some(1), Some(2.0), KvType::F16),
        case(2, 2, 7, Some(40), None, KvType::F32),
        case(6, 2, 32, None, None, KvType::Q8_0),
        case(5, 1, 96, Some(33), None, KvType::Q8_0),
        case(14, 2, 64, None, None, KvType::Q4_0),
        case(3, 3, 160, Some(40), Some(2.0), KvType::Q4_0),
    ] {
        let n = 75;
        let q = random.floats(n * case.n_heads * case.head_dim);
        let k = random.floats(n * case.n_kv_heads * case.head_dim);
        let v = random.floats(n * case.n_kv_heads * case.head_dim);
        let inputs = [&q[..], &k[..], &v[..]];
        let singly: Vec<usize> = (1..n).collect();
        let scalar = InstructionSet::present()[0];
        let want = bits(&case.run(scalar, 1, inputs, &steps(n, &singly)));
        for isa in InstructionSet::present() {
            for cuts in [&[][..], &[1], &[31, 32, 33], &[64], &singly] {
                for n_threads in [1, 3] {
                    let got = case.run(isa, n_threads, inputs, &steps(n, cuts));
                    assert!(
                        bits(&got) == want,
                        "{} heads {} cut at {cuts:?}, {n_threads} threads",
                        isa.name(),
                        case.n_heads
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_without_a_slot_stores_nothing() {
    let isa = InstructionSet::best();
    let mut cache = LayerCache::new(KvType::F32, 1, KvDims { keys: 2, values: 2 }).expect("memory");
    let mut batch = Batch::single(Phase::Decode, &[0], 0, vec![]);
    batch.slots[0] = NO_SLOT;
    let x = Matrix::new(&[1.0, 2.0], 2, 0, 2);
    kv_write(isa, &mut cache, &batch, x, x);
    let LayerCache::F32(pages) = &cache else {
        unreachable!("made of this type");
    };
    assert_eq!(pages.keys(0, 0, 2), [[0.0; PAGE_TOKENS]; 2]);
    assert_eq!(pages.values(0, 0, 0, 0, 4), [[0.0; LANES]; 4]);
}

#[test]
fn candidates_are_the_best_with_ties_by_rising_id() {
    let mut random = Random::new(4);
    for cols in [1, 15, 40, 1000, 40_000] {
        // Few different values: ties everywhere. Some are infinite or no numbers.
        let logits: Vec<f32> = (0..2 * cols)
            .map(|_| match random.byte() {
                0 => f32::NEG_INFINITY,
                1 => f32::NAN,
                x => f32::from(x % 23) - 11.0,
            })
            .collect();
        for k in [1, 7, 128] {
            let mut want: Vec<Vec<u32>> = Vec::new();
            for row in logits.chunks(cols) {
                let key = |i: &u32| {
                    let x = row[*i as usize];
                    (x.is_nan(), std::cmp::Reverse((x * 2.0) as i64), *i)
                };
                let mut ids: Vec<u32> = (0..cols as u32).collect();
                ids.sort_by_key(key);
                ids.truncate(k);
                want.push(ids);
            }
            for isa in InstructionSet::present() {
                let matrix = Matrix::new(&logits, cols, 0, cols);
                let found = top_k(isa, &mut Pool::new(2), matrix, 2, k).expect("runs");
                let ids: Vec<Vec<u32>> = found.into_iter().map(|row| row.ids).collect();
                assert_eq!(ids, want, "{} best {k} of {cols}", isa.name());
            }
        }
    }
}

#[test]
fn the_sum_of_exponentials_is_that_of_f64() {
    let mut random = Random::new(5);
    let logits: Vec<f32> = (0..50_001).map(|_| 30.0 * random.float()).collect();
    let want = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
    let mut results = Vec::new();
    for isa in InstructionSet::present() {
        let matrix = Matrix::new(&logits, logits.len(), 0, logits.len());
        let found = top_k(isa, &mut Pool::new(2), matrix, 1, 1).expect("runs");
        assert!((f64::from(found[0].log_sum_exp) - want).abs() < 1e-5);
        results.push(found[0].log_sum_exp.to_bits());
    }
    assert!(results.windows(2).all(|w| w[0] == w[1]));
}

/// `exp` of sixteen numbers.
struct Exp(Lanes);

impl Kernel for Exp {
    type Output = Lanes;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Lanes {
        let mut out = [0.0; LANES];
        isa.store(math::exp(isa, isa.load(&self.0)), &mut out);
        out
    }
}

#[test]
fn exponentials_are_close_and_the_same_everywhere() {
    let mut random = Random::new(6);
    for round in 0..5_000 {
        let scale = if round % 2 == 0 { 88.0 } else { 1.0 };
        let x: Lanes = std::array::from_fn(|_| scale * random.float());
        let want = InstructionSet::present()[0].run(Exp(x));
        for (x, e) in x.iter().zip(want).filter(|(x, _)| **x > -86.6) {
            let exact = f64::from(*x).exp();
            assert!(
                (f64::from(e) / exact - 1.0).abs() < 2.5e-7,
                "exp({x}) = {e}"
            );
        }
        for isa in InstructionSet::present() {
            assert_eq!(bits(&isa.run(Exp(x))), bits(&want), "{}", isa.name());
        }
    }
}

#[test]
fn exponentials_have_limits() {
    let mut x = [0.0; LANES];
    x[..6].copy_from_slice(&[
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -200.0,
        89.0,
        88.7,
    ]);
    for isa in InstructionSet::present() {
        let e = isa.run(Exp(x));
        assert_eq!(e[0], f32::INFINITY);
        assert_eq!(e[1], 0.0);
        assert!(e[2].is_nan());
        assert_eq!(e[3], 0.0);
        assert_eq!(e[4], f32::INFINITY);
        assert!(e[5] > 3.3e38 && e[5].is_finite());
        assert_eq!(e[6], 1.0);
    }
}
