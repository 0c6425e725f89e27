//! The oracle of several residual streams.

use ollama_wgpu::backend::Op;

pub fn stream_mix(
    streams: &[f64],
    (others, width): (&[f64], usize),
    mix: &[f64],
    plus: f64,
) -> Vec<f64> {
    let n = others.len() / width;
    let number = |at: usize| {
        let (i, column) = (at / width, at % width);
        let added = (0..n).map(|j| (mix[i * n + j] + plus) * others[j * width + column]);
        streams[at] + added.sum::<f64>()
    };
    (0..streams.len()).map(number).collect()
}

fn mean_square(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64
}

pub fn match_length(x: &[f64], like: &[f64]) -> Vec<f64> {
    let run = |x: &[f64]| -> Vec<f64> {
        let square = mean_square(x).max(f64::from(Op::LEAST_SQUARE));
        let scale = (mean_square(like) / square).sqrt();
        x.iter().map(|x| x * scale).collect()
    };
    x.chunks(like.len()).flat_map(run).collect()
}

pub fn gaussian_top_k(x: &[f64], cutoff: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let least = mean + cutoff * variance.sqrt();
    x.iter().map(|x| (x - least).max(0.0)).collect()
}
