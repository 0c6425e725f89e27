//! The oracle of low-rank updates.

use ollama_wgpu::backend::RowBlock;

/// Adds `scale * up down` to the columns of each block; `up` gives its row of a number.
pub fn add<'a>(
    sum: &mut [f64],
    down: &[f64],
    up: impl Fn(usize) -> &'a [f64],
    blocks: &[RowBlock],
    scale: f64,
) {
    let rank = down.len() / blocks.len();
    let mut row = 0;
    for (block, down) in blocks.iter().zip(down.chunks(rank)) {
        for sum in &mut sum[block.first..][..block.rows] {
            let terms = up(row).iter().zip(down).map(|(u, d)| u * d);
            *sum += scale * terms.sum::<f64>();
            row += 1;
        }
    }
}
