//! Twin of the kernel that chooses tokens: every step over the whole row, in f64. The engine's fake
//! backend chooses by it too.

use super::Sampling;

/// The token after a row of logits whose own token is `own`; none where they are not finite.
pub fn sample(sampling: &Sampling, own: u32, row: &[f32]) -> Option<u32> {
    let is_valid = row.iter().all(|x| !x.is_nan() && *x < f32::INFINITY);
    if !is_valid || row.iter().all(|x| x.is_infinite()) {
        return None;
    }
    let mut kept: Vec<(u32, f64)> = (0..).zip(row.iter().map(|&x| f64::from(x))).collect();
    if let Some(p) = &sampling.penalties {
        for (id, logit) in &mut kept {
            let seen = p.before.iter().chain([&own]);
            let n = seen.filter(|seen| *seen == id).count();
            if n > 0 {
                let repeat = f64::from(p.repeat);
                let scaled = if *logit > 0.0 {
                    *logit / repeat
                } else {
                    *logit * repeat
                };
                *logit = scaled - f64::from(p.presence) - n as f64 * f64::from(p.frequency);
            }
        }
    }
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    kept.truncate(sampling.top_k as usize);
    let best = kept[0].1;
    let weight = |logit: f64, temperature: f64| ((logit - best) / temperature).exp();
    if sampling.top_p < 1.0 {
        let total: f64 = kept.iter().map(|(_, logit)| weight(*logit, 1.0)).sum();
        let mut sum = 0.0;
        let reached = kept.iter().position(|(_, logit)| {
            sum += weight(*logit, 1.0);
            sum >= f64::from(sampling.top_p) * total
        });
        kept.truncate(reached.map_or(usize::MAX, |i| i + 1));
    }
    kept.retain(|(_, logit)| *logit == best || *logit >= best + f64::from(sampling.log_min_p));
    let temperature = f64::from(sampling.temperature);
    let total: f64 = kept
        .iter()
        .map(|(_, logit)| weight(*logit, temperature))
        .sum();
    let mut left = f64::from(sampling.uniform) * total;
    let drawn = kept.iter().find(|(_, logit)| {
        left -= weight(*logit, temperature);
        left < 0.0
    });
    Some(drawn.map_or(kept[0].0, |(id, _)| *id))
}
