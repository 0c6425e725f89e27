//! Cases of low-rank updates: ranks that are no whole span, blocks with gaps before, between and
//! behind them, more rows than a chunk has, and a last block that is no whole vector.

use ollama_wgpu::backend::*;
use ollama_wgpu::quant::QuantType;

use crate::case::Case;
use crate::cases;
use crate::file::{File, Random};

pub fn cases(cases: &mut Vec<Case>) {
    for (quant, rank, cols, blocks) in [
        (QuantType::F32, 1, 7, &[(0, 7)][..]),
        (QuantType::F32, 16, 600, &[(0, 64), (64, 32), (112, 488)]),
        (QuantType::F16, 5, 130, &[(3, 48), (60, 16), (100, 9)]),
        (QuantType::BF16, 40, 97, &[(1, 80)]),
        (QuantType::Q8_0, 32, 200, &[(16, 112), (150, 33)]),
    ] {
        for (phase, n) in [
            (Phase::Decode, 1),
            (Phase::Decode, 3),
            (Phase::Prefill, 1),
            (Phase::Prefill, 37),
        ] {
            let blocks = blocks.iter().map(|&(first, rows)| RowBlock { first, rows });
            cases.push(update(quant, rank, cols, blocks.collect(), phase, n));
        }
    }
}

fn update(
    quant: QuantType,
    rank: usize,
    cols: usize,
    blocks: Vec<RowBlock>,
    phase: Phase,
    n: usize,
) -> Case {
    let mut r = Random::new((cols * rank + n) as u64);
    let mut file = File::default();
    // What is read lies beside other numbers, so that both are views into wider rows.
    let width = 2 + cols + blocks.len() * rank + 3;
    file.floats("source", n, width, &r.floats(n * width));
    let rows = blocks.iter().map(|block| block.rows).sum();
    file.random("up", quant, rows, rank, &mut r);
    Case {
        name: format!(
            "add_low_rank {} of rank {rank} to {blocks:?} of {cols} x {n} {phase:?}",
            quant.name()
        ),
        file: file.open(),
        weights: vec!["source".into(), "up".into()],
        cache: None,
        steps: vec![cases::rows(phase, n)],
        record: Box::new(move |b| {
            let source = b.embed(WeightId(0), 1.0);
            let down = source.columns(2 + cols, blocks.len() * rank);
            let sum = source.columns(2, cols);
            b.add_low_rank(sum, down, WeightId(1), &blocks, -0.75)
        }),
        top_k: None,
    }
}
