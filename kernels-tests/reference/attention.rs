//! The oracle of attention.

use ollama_wgpu::backend::*;

use super::{Reference, dot};

impl Reference {
    /// The result for row `i`.
    pub(super) fn attention(
        &self,
        plan: &Plan,
        batch: &Batch,
        a: &Attention,
        i: usize,
    ) -> Vec<f64> {
        let position = batch.positions[i] as usize;
        let table = &batch.tables[batch.sequences[i] as usize];
        let last = (0..batch.n_tokens()).rfind(|&r| batch.sequences[r] == batch.sequences[i]);
        let last = batch.positions[last.expect("row i itself")] as usize;
        let sees = |p: &usize| match (a.causal, a.window) {
            (true, None) => *p <= position,
            (true, Some(w)) => *p <= position && position - p < w,
            (false, None) => true,
            (false, Some(w)) => position.abs_diff(*p) <= w / 2,
        };
        let seen: Vec<usize> = (0..=last).filter(sees).collect();
        let slot =
            |p: &usize| table[p / PAGE_TOKENS] * PAGE_TOKENS as u32 + (p % PAGE_TOKENS) as u32;
        let slots: Vec<u32> = seen.iter().map(slot).collect();
        let mut out = Vec::new();
        for head in 0..a.n_heads {
            let kv = head / (a.n_heads / a.n_kv_heads);
            let q = &self.row(plan, a.q, i)[head * a.head_dim..][..a.head_dim];
            let slope = a.alibi.map_or(0.0, |b| alibi_slope(b, a.n_heads, head));
            let score = |(slot, p): (&u32, &usize)| {
                let key = &self.keys[&(a.layer, *slot)][kv * a.head_dim..][..a.head_dim];
                let s = dot(q, key) * f64::from(a.scale);
                let cap = |c: f32| f64::from(c) * (s / f64::from(c)).tanh();
                a.soft_cap.map_or(s, cap) - f64::from(slope) * position.abs_diff(*p) as f64
            };
            let scores: Vec<f64> = slots.iter().zip(&seen).map(score).collect();
            let sink = a.sinks.map(|sinks| self.weights[sinks.0].values[head]);
            let max = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |s| (s - max).exp());
            let value = |d: usize| -> f64 {
                let values = |slot: &u32| self.values[&(a.layer, *slot)][kv * a.value_dim + d];
                let terms = slots.iter().zip(&weights);
                terms.map(|(slot, w)| w * values(slot)).sum()
            };
            out.extend((0..a.value_dim).map(|d| value(d) / total));
        }
        out
    }
}
