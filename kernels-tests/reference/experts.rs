//! Experts and heads, as the plainest loops.

use ollama_wgpu::backend::*;

use super::{Matrix, add, dot};

/// Numbers of the chosen experts, then their weights.
pub fn moe_route(
    scores: &[f64],
    bias: Option<&[f64]>,
    factors: Option<&[f64]>,
    routing: &Routing,
) -> Vec<f64> {
    let weights: Vec<f64> = match routing.gating {
        Gating::Softmax => softmax(scores),
        Gating::Sigmoid => scores.iter().map(|s| 1.0 / (1.0 + (-s).exp())).collect(),
        Gating::SoftmaxOfChosen => scores.to_vec(),
    };
    let mut keys = weights.clone();
    if let Some(bias) = bias {
        add(&mut keys, bias);
    }
    let size = keys.len() / routing.n_groups;
    let best_two = |group: &[f64]| -> f64 {
        let order = falling(group);
        order.iter().take(2).map(|&e| group[e]).sum()
    };
    let sums: Vec<f64> = keys.chunks(size).map(best_two).collect();
    let groups = &falling(&sums)[..routing.n_groups_used];
    let mut order = falling(&keys);
    order.retain(|e| groups.contains(&(e / size)));
    order.truncate(routing.n_used);
    let mut chosen: Vec<f64> = order.iter().map(|&e| weights[e]).collect();
    if routing.gating == Gating::SoftmaxOfChosen {
        chosen = softmax(&chosen);
    }
    let sum = match routing.normalise {
        true => chosen.iter().sum::<f64>().max(f64::from(Routing::MIN_SUM)),
        false => 1.0,
    };
    let ids = order.iter().map(|&e| e as f64);
    let weights = chosen.iter().map(|w| w / sum * f64::from(routing.scale));
    let factor = |e: &usize| factors.map_or(1.0, |factors| factors[*e]);
    let weights = weights.zip(&order).map(|(w, e)| w * factor(e));
    ids.chain(weights).collect()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
    x.iter().map(|x| (x - max).exp() / sum).collect()
}

/// Places by falling value, equal ones by rising number.
fn falling(x: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].total_cmp(&x[a]).then(a.cmp(&b)));
    order
}

/// One row: `[parts, n_used, rows of a part]`.
pub fn matmul_experts(
    p: &ExpertProducts,
    input: &[f64],
    route: Option<&[f64]>,
    w: &Matrix,
    bias: Option<&[f64]>,
) -> Vec<f64> {
    let part_rows = w.rows / w.n_experts / w.n_parts;
    let mut out = Vec::new();
    for part in 0..w.n_parts {
        for slot in 0..p.n_used {
            let expert = route.map_or(slot, |route| route[slot] as usize);
            let first = (expert * w.n_parts + part) * part_rows;
            let x = &input[slot * p.slot_stride..][..w.cols];
            for row in first..first + part_rows {
                out.push(dot(w.row(row), x) + bias.map_or(0.0, |bias| bias[row]));
            }
        }
    }
    out
}

/// The weighted sum of one row's slots.
pub fn moe_combine(experts: &[f64], route: &[f64], residual: Option<&[f64]>) -> Vec<f64> {
    let weights = &route[route.len() / 2..];
    let cols = experts.len() / weights.len();
    let mut out = vec![0.0; cols];
    for (x, weight) in experts.chunks(cols).zip(weights) {
        let terms: Vec<f64> = x.iter().map(|x| weight * x).collect();
        add(&mut out, &terms);
    }
    if let Some(residual) = residual {
        add(&mut out, residual);
    }
    out
}

/// Heads of both, one after another.
pub fn concat_heads(n_heads: usize, parts: &[(Heads, &[f64])]) -> Vec<f64> {
    let head = |h: usize| {
        let columns = parts
            .iter()
            .map(move |(heads, x)| &x[h * heads.stride..][..heads.width]);
        columns.flatten().copied()
    };
    (0..n_heads).flat_map(head).collect()
}
