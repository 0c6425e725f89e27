//! Cases of what only encoders do: attention in both directions, pooling.

use ollama_wgpu::backend::*;

use crate::case::Case;
use crate::cases::below;
use crate::file::{File, Random};

/// Tokens that the cases draw from.
const VOCABULARY: usize = 64;

/// All of them.
pub fn all(cases: &mut Vec<Case>) {
    for lengths in [&[1][..], &[31, 2, 33], &[7, 100, 1, 64]] {
        for (n_heads, n_kv_heads, head_dim) in [(12, 12, 32), (6, 2, 64), (3, 1, 256)] {
            for (window, alibi) in [
                (None, None),
                (Some(8), None),
                (Some(65), None),
                (None, Some(8.0)),
            ] {
                let heads = Heads {
                    n_heads,
                    n_kv_heads,
                    head_dim,
                    window,
                    alibi,
                };
                cases.push(attention(heads, lengths, KvType::F32));
            }
        }
        cases.push(pool(lengths));
    }
    let heads = Heads {
        n_heads: 4,
        n_kv_heads: 4,
        head_dim: 64,
        window: Some(16),
        alibi: None,
    };
    cases.push(attention(heads, &[40, 3], KvType::F16));
}

/// Heads and options of one attention case.
#[derive(Clone, Copy, Debug)]
struct Heads {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    alibi: Option<f32>,
}

/// Whole sequences of these lengths, their last rows wanted, in pages that are not in order.
fn whole(lengths: &[usize], r: &mut Random) -> (Batch, usize) {
    let n_pages = lengths
        .iter()
        .map(|n| n.div_ceil(PAGE_TOKENS))
        .sum::<usize>()
        + 2;
    let mut free: Vec<u32> = (0..n_pages as u32).collect();
    let mut batch = Batch {
        tables: Vec::new(),
        states: (0..lengths.len() as u32).collect(),
        ..Batch::single(Phase::Prefill, &[], 0, Vec::new())
    };
    for (sequence, &n) in lengths.iter().enumerate() {
        let pages = (0..n.div_ceil(PAGE_TOKENS)).map(|_| free.swap_remove(below(r, free.len())));
        let table: Vec<u32> = pages.collect();
        for position in 0..n {
            let slot =
                table[position / PAGE_TOKENS] as usize * PAGE_TOKENS + position % PAGE_TOKENS;
            batch.tokens.push(below(r, VOCABULARY) as u32);
            batch.positions.push(position as u32);
            batch.slots.push(slot as u32);
            batch.sequences.push(sequence as u32);
        }
        batch.tables.push(table);
        batch.outputs.push(batch.tokens.len() as u32 - 1);
    }
    (batch, n_pages)
}

fn attention(heads: Heads, lengths: &[usize], kv_type: KvType) -> Case {
    let mut r = Random::new(lengths.iter().sum::<usize>() as u64 + heads.head_dim as u64);
    let q_dim = heads.n_heads * heads.head_dim;
    let kv_dim = heads.n_kv_heads * heads.head_dim;
    let cols = q_dim + 2 * kv_dim;
    let values: Vec<f32> = r
        .floats(VOCABULARY * cols)
        .iter()
        .map(|v| 1.7 * v)
        .collect();
    let mut file = File::default();
    file.floats("source", VOCABULARY, cols, &values);
    let (batch, n_pages) = whole(lengths, &mut r);
    Case {
        name: format!("encoder attention {heads:?} {kv_type:?} lengths {lengths:?}"),
        file: file.open(),
        weights: vec!["source".into()],
        cache: Some(CacheSpec {
            kv_type,
            n_pages,
            layers: vec![KvDims {
                keys: kv_dim,
                values: kv_dim,
            }],
            n_sequences: lengths.len(),
            states: Vec::new(),
        }),
        steps: vec![batch],
        record: Box::new(move |b| {
            let x = b.embed(WeightId(0), 1.0);
            let (k, v) = (x.columns(q_dim, kv_dim), x.columns(q_dim + kv_dim, kv_dim));
            // A layer before it, in the same slots.
            b.kv_write(0, v, k);
            b.kv_write(0, k, v);
            b.attention(Attention {
                layer: 0,
                q: x.columns(0, q_dim),
                n_heads: heads.n_heads,
                n_kv_heads: heads.n_kv_heads,
                head_dim: heads.head_dim,
                value_dim: heads.head_dim,
                scale: 1.0 / (heads.head_dim as f32).sqrt(),
                causal: false,
                window: heads.window,
                soft_cap: None,
                sinks: None,
                alibi: heads.alibi,
            })
        }),
        top_k: None,
    }
}

fn pool(lengths: &[usize]) -> Case {
    let mut r = Random::new(lengths.iter().sum::<usize>() as u64);
    let mut file = File::default();
    file.floats("source", VOCABULARY, 70, &r.floats(VOCABULARY * 70));
    let (mut batch, _) = whole(lengths, &mut r);
    // One of the sequences is not wanted.
    batch.outputs.truncate(lengths.len().div_ceil(2));
    Case {
        name: format!("pool lengths {lengths:?}"),
        file: file.open(),
        weights: vec!["source".into()],
        cache: None,
        steps: vec![batch],
        record: Box::new(|b| {
            let x = b.embed(WeightId(0), 1.0);
            b.pool(x.columns(3, 65))
        }),
        top_k: None,
    }
}
