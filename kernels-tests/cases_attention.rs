//! Cases of attention as decoders have it, over prompts in chunks and the tokens after them.

use ollama_wgpu::backend::*;

use crate::case::{Case, Weight};
use crate::cases::below;
use crate::file::{File, Random};

/// Heads and options of one attention case.
#[derive(Clone, Copy, Debug)]
struct Heads {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    value_dim: usize,
    window: Option<usize>,
    soft_cap: Option<f32>,
    sinks: bool,
    /// Queries and keys are turned before.
    rope: Option<RopeOrder>,
    norms: Norms,
    alibi: Option<f32>,
    kv_type: KvType,
}

/// Which norms queries and keys have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Norms {
    None,
    /// Each head of both, before it is turned.
    Heads,
    /// The same, and each head of the values, which has no weights.
    HeadsAndValues,
    /// Each head of both, after it is turned.
    HeadsLast,
    /// All heads together, before they are turned.
    Rows,
}

/// All of them.
pub fn all(cases: &mut Vec<Case>) {
    let heads = |n_heads, n_kv_heads, head_dim, window, soft_cap| Heads {
        n_heads,
        n_kv_heads,
        head_dim,
        value_dim: head_dim,
        window,
        soft_cap,
        sinks: false,
        rope: None,
        norms: Norms::None,
        alibi: None,
        kv_type: KvType::F16,
    };
    let unequal = |n_heads, n_kv_heads, head_dim, value_dim| Heads {
        value_dim,
        ..heads(n_heads, n_kv_heads, head_dim, None, None)
    };
    let sinks = |heads| Heads {
        sinks: true,
        ..heads
    };
    let turned = |heads, order| Heads {
        rope: Some(order),
        ..heads
    };
    let with = |norms, heads| Heads { norms, ..heads };
    let normed = |heads| with(Norms::Heads, heads);
    let biased = |heads| Heads {
        alibi: Some(8.0),
        ..heads
    };
    let table = [
        heads(4, 4, 32, None, None),
        heads(9, 3, 64, None, None),
        heads(14, 2, 64, None, Some(5.0)),
        heads(5, 1, 80, Some(8), None),
        heads(4, 1, 256, Some(33), Some(20.0)),
        heads(2, 2, 96, Some(1), None),
        heads(8, 1, 128, Some(64), None),
        sinks(heads(6, 2, 64, None, None)),
        sinks(heads(4, 2, 32, Some(8), None)),
        biased(heads(12, 12, 64, None, None)),
        biased(heads(6, 2, 32, None, None)),
        unequal(4, 4, 48, 40),
        // Multi-head latent attention: one wide key head.
        unequal(4, 1, 576, 512),
        turned(heads(9, 3, 64, None, None), RopeOrder::Norm),
        turned(heads(4, 2, 16, None, None), RopeOrder::Neox),
        turned(unequal(4, 2, 48, 40), RopeOrder::Neox),
        normed(turned(heads(4, 2, 128, None, None), RopeOrder::Neox)),
        normed(turned(heads(2, 1, 24, None, None), RopeOrder::Norm)),
        normed(turned(heads(4, 1, 320, None, None), RopeOrder::Neox)),
        normed(turned(unequal(4, 2, 48, 40), RopeOrder::Neox)),
        normed(heads(6, 2, 64, None, None)),
        with(
            Norms::HeadsAndValues,
            turned(heads(4, 2, 64, None, None), RopeOrder::Neox),
        ),
        with(
            Norms::HeadsLast,
            turned(heads(4, 2, 48, None, None), RopeOrder::Neox),
        ),
        with(
            Norms::Rows,
            turned(heads(6, 2, 96, None, None), RopeOrder::Norm),
        ),
        // More heads to a key head than a workgroup takes.
        normed(turned(heads(22, 2, 32, None, None), RopeOrder::Norm)),
    ];
    for heads in table {
        for kv_type in [KvType::F16, KvType::F32] {
            let heads = Heads { kv_type, ..heads };
            cases.push(attention_case(heads, &[1], 3));
            cases.push(attention_case(heads, &[31, 2], 4));
            cases.push(attention_case(heads, &[32, 33, 70], 2));
        }
    }
    // Quantised types need heads of whole blocks.
    for heads in [
        table[0],
        table[1],
        table[4],
        heads(5, 1, 96, Some(40), None),
    ] {
        for kv_type in [KvType::Q8_0, KvType::Q4_0] {
            let heads = Heads { kv_type, ..heads };
            cases.push(attention_case(heads, &[31, 2, 70], 2));
        }
    }
    let long = Heads {
        kv_type: KvType::F16,
        ..table[1]
    };
    cases.push(attention_case(long, &[600], 2));
    cases.push(attention_case(sinks(long), &[600], 2));
    cases.push(attention_case(biased(long), &[600], 2));
}

/// Prefills one sequence per length, each in two chunks, then decodes all of them together.
fn attention_case(heads: Heads, lengths: &[usize], n_decode: usize) -> Case {
    let mut r = Random::new(lengths.iter().sum::<usize>() as u64 + heads.head_dim as u64);
    let q_dim = heads.n_heads * heads.head_dim;
    let kv = KvDims {
        keys: heads.n_kv_heads * heads.head_dim,
        values: heads.n_kv_heads * heads.value_dim,
    };
    let cols = q_dim + kv.keys + kv.values;
    let n_vocab = 64;
    let values: Vec<f32> = r.floats(n_vocab * cols).iter().map(|v| 1.7 * v).collect();
    let mut file = File::default();
    file.floats("source", n_vocab, cols, &values);
    let sinks: Vec<f32> = r.floats(heads.n_heads).iter().map(|v| 4.0 * v).collect();
    file.floats("sinks", 1, heads.n_heads, &sinks);
    for (name, columns) in [("q_norm", q_dim), ("k_norm", kv.keys)] {
        let group = match heads.norms {
            Norms::Rows => columns,
            _ => heads.head_dim,
        };
        file.floats(name, 1, group, &r.floats(group));
    }
    let (steps, n_pages) = attention_steps(lengths, n_decode, n_vocab, &mut r);
    Case {
        name: format!("attention {heads:?} lengths {lengths:?}"),
        file: file.open(),
        weights: ["source", "sinks", "q_norm", "k_norm"]
            .map(Weight::from)
            .into(),
        cache: Some(CacheSpec {
            kv_type: heads.kv_type,
            n_pages,
            // The layer under test is the second, so that layers must not be mixed up.
            layers: vec![
                KvDims {
                    keys: kv.values,
                    values: kv.keys,
                },
                kv,
            ],
            n_sequences: lengths.len(),
            states: Vec::new(),
        }),
        steps,
        record: Box::new(move |b| {
            let x = b.embed(WeightId(0), 1.0);
            let k = x.columns(q_dim, kv.keys);
            let v = x.columns(q_dim + kv.keys, kv.values);
            b.kv_write(0, v, k);
            let (mut q, mut k) = (x.columns(0, q_dim), k);
            let mut placed = |mut x, norm| {
                let last = heads.norms == Norms::HeadsLast;
                if heads.norms != Norms::None && !last {
                    x = b.rms_norm(x, norm, 1e-5);
                }
                if let Some(order) = heads.rope {
                    x = b.rope(x, heads.head_dim, 0, order);
                }
                if last {
                    x = b.rms_norm(x, norm, 1e-5);
                }
                x
            };
            (q, k) = (placed(q, WeightId(2)), placed(k, WeightId(3)));
            let v = match heads.norms {
                Norms::HeadsAndValues => b.plain_rms_norm(v, heads.value_dim, 1e-5),
                _ => v,
            };
            b.kv_write(1, k, v);
            b.attention(Attention {
                layer: 1,
                q,
                n_heads: heads.n_heads,
                n_kv_heads: heads.n_kv_heads,
                head_dim: heads.head_dim,
                value_dim: heads.value_dim,
                scale: 1.0 / (heads.head_dim as f32).sqrt(),
                causal: true,
                window: heads.window,
                soft_cap: heads.soft_cap,
                sinks: heads.sinks.then_some(WeightId(1)),
                alibi: heads.alibi,
            })
        }),
        top_k: None,
    }
}

/// Batches over shuffled pages: two prefill chunks of all sequences, then decode steps.
fn attention_steps(
    lengths: &[usize],
    n_decode: usize,
    n_vocab: usize,
    r: &mut Random,
) -> (Vec<Batch>, usize) {
    let pages_of = |n: usize| (n + n_decode).div_ceil(PAGE_TOKENS);
    let n_pages: usize = lengths.iter().map(|&n| pages_of(n)).sum::<usize>() + 2;
    let mut free: Vec<u32> = (0..n_pages as u32).collect();
    let mut tables: Vec<Vec<u32>> = Vec::new();
    for &n in lengths {
        let table = (0..pages_of(n)).map(|_| free.swap_remove(below(r, free.len())));
        tables.push(table.collect());
    }
    let mut step = |phase, ranges: Vec<std::ops::Range<usize>>| {
        let mut batch = Batch {
            phase,
            tokens: Vec::new(),
            positions: Vec::new(),
            slots: Vec::new(),
            sequences: Vec::new(),
            tables: tables.clone(),
            states: (0..tables.len() as u32).collect(),
            outputs: Vec::new(),
        };
        for (sequence, range) in ranges.into_iter().enumerate() {
            for position in range {
                let page = tables[sequence][position / PAGE_TOKENS];
                batch.tokens.push(below(r, n_vocab) as u32);
                batch.positions.push(position as u32);
                batch.sequences.push(sequence as u32);
                batch
                    .slots
                    .push(page * PAGE_TOKENS as u32 + (position % PAGE_TOKENS) as u32);
            }
        }
        batch
    };
    let half = |n: usize| n.div_ceil(2);
    let mut steps = vec![step(
        Phase::Prefill,
        lengths.iter().map(|&n| 0..half(n)).collect(),
    )];
    steps.push(step(
        Phase::Prefill,
        lengths.iter().map(|&n| half(n)..n).collect(),
    ));
    for i in 0..n_decode {
        let ranges = lengths.iter().map(|&n| n + i..n + i + 1).collect();
        steps.push(step(Phase::Decode, ranges));
    }
    steps.retain(|s| s.n_tokens() > 0);
    (steps, n_pages)
}
