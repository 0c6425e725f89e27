//! Logits to the next token: biases, penalties, top-k, typical-p, top-p, min-p, temperature, draw, in
//! llama.cpp's order.
//!
//! The backend's best candidates are used where they provably decide; else the caller reads the
//! whole row. Both give the same token, since every step computes the same numbers over the same
//! list. All arithmetic is f64.

use std::collections::HashMap;

use super::grammar::Allowed;
use super::{Error, SamplingParams};
use crate::backend::{Candidates, MAX_CANDIDATES, Penalties, Sampling};

/// How many numbers a device draws from: 32-bit floats hold them exactly.
const DEVICE_UNIFORMS: f64 = (1 << 24) as f64;

/// Below this, any two logits that differ do so by more than a draw can notice, and a quotient may
/// exceed a float's range.
const LEAST_TEMPERATURE: f32 = 1e-20;

/// A token and its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    id: u32,
    logit: f64,
}

/// Tokens; once sorted by falling logit, equal ones by rising id.
#[derive(Debug)]
struct Ranking {
    entries: Vec<Entry>,
    /// ln(sum(exp(logit))) over all of which the entries are the beginning; none where it must
    /// be summed over the entries.
    log_sum_exp: Option<f64>,
    /// Whether no token outside of the entries can still be chosen.
    is_whole: bool,
}

impl Ranking {
    /// Leaves nothing that a later step could decide by.
    fn give_up(&mut self) {
        self.entries.clear();
        self.is_whole = false;
    }
}

/// Chooses the tokens of one request.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
}

impl Sampler {
    /// Values that make no sense switch their step off.
    pub fn new(params: &SamplingParams, seed: u64) -> Sampler {
        let or = |value: f32, off: f32| if value.is_finite() { value } else { off };
        let mut params = params.clone();
        params.temperature = match params.temperature > 0.0 {
            true => params.temperature.min(f32::MAX),
            false => 0.0,
        };
        params.repeat_penalty = or(params.repeat_penalty, 1.0);
        if params.repeat_penalty <= 0.0 {
            params.repeat_penalty = 1.0;
        }
        params.presence_penalty = or(params.presence_penalty, 0.0);
        params.frequency_penalty = or(params.frequency_penalty, 0.0);
        params.top_p = or(params.top_p, 1.0);
        params.typical_p = or(params.typical_p, 1.0);
        params.min_p = or(params.min_p, 0.0).min(1.0);
        params.logit_bias.retain(|(_, bias)| bias.is_finite());
        Sampler { params, seed }
    }

    /// How a device chooses the token at `index` of the generation; none where its candidates may
    /// not decide, or the step is one that devices do not have. `before` are all tokens but the
    /// last. It depends on the request alone: so does who chooses, and with it the token.
    pub fn on_device(&self, before: &[u32], index: usize) -> Option<Sampling> {
        let p = &self.params;
        if !p.logit_bias.is_empty() {
            return None;
        }
        let best = Sampling {
            penalties: self.penalties(before)?,
            ..Sampling::best()
        };
        let uniform = uniform(self.seed, index as u64) * DEVICE_UNIFORMS;
        let sampling = match p.temperature == 0.0 {
            true => best,
            false if p.typical_p < 1.0 => return None,
            false => Sampling {
                temperature: p.temperature.max(LEAST_TEMPERATURE),
                top_k: u32::try_from(p.top_k).ok()?,
                top_p: p.top_p,
                log_min_p: match p.min_p > 0.0 {
                    true => f64::from(p.min_p).ln() as f32,
                    false => f32::MIN,
                },
                uniform: (uniform.floor() / DEVICE_UNIFORMS) as f32,
                ..best
            },
        };
        sampling.check().ok().map(|()| sampling)
    }

    /// The penalties as a device has them: none inside where they are off, none at all where it
    /// cannot apply them.
    fn penalties(&self, before: &[u32]) -> Option<Option<Penalties>> {
        let p = &self.params;
        if p.repeat_last_n == 0 || !self.penalises() {
            return Some(None);
        }
        let n_before = usize::try_from(p.repeat_last_n).map_or(usize::MAX, |n| n - 1);
        let n_before = n_before.min(before.len());
        (n_before < MAX_CANDIDATES).then(|| {
            Some(Penalties {
                repeat: p.repeat_penalty,
                presence: p.presence_penalty,
                frequency: p.frequency_penalty,
                before: before[before.len() - n_before..].to_vec(),
            })
        })
    }

    fn penalises(&self) -> bool {
        let p = &self.params;
        p.repeat_penalty != 1.0 || p.presence_penalty != 0.0 || p.frequency_penalty != 0.0
    }

    /// The token at `index` of the generation, from the best candidates of a row; none if they do
    /// not decide. `history` are all tokens before it; with `allowed`, others have no probability.
    ///
    /// # Errors
    /// [`Error::InvalidLogits`] for NaN or infinite values.
    pub fn choose(
        &self,
        best: &Candidates,
        vocab_size: usize,
        history: &[u32],
        index: usize,
        allowed: Option<&Allowed>,
    ) -> Result<Option<u32>, Error> {
        if !self.params.logit_bias.is_empty() {
            // Any token outside of the candidates may be lifted over them.
            return Ok(None);
        }
        let pairs = best.ids.iter().copied().zip(best.logits.iter().copied());
        let seen = self.seen(history);
        let last = pairs.clone().next_back().ok_or(Error::InvalidLogits)?;
        let mut ranking = listed(pairs, best.log_sum_exp, vocab_size, allowed)?;
        self.penalise(&mut ranking, &seen);
        ranking.entries.sort_unstable_by(by_rank);
        if !seen.is_empty() && !ranking.is_whole {
            let certain = self.n_certain(&ranking.entries, last);
            ranking.entries.truncate(certain);
        }
        Ok(self.pick(ranking, vocab_size, index))
    }

    /// As [`Sampler::choose`], from all logits of the row. `log_sum_exp` is the backend's.
    ///
    /// # Errors
    /// [`Error::InvalidLogits`] for NaN or infinite values; [`Error::Grammar`] where no token is
    /// allowed.
    pub fn choose_from_row(
        &self,
        row: &[f32],
        log_sum_exp: f32,
        history: &[u32],
        index: usize,
        allowed: Option<&Allowed>,
    ) -> Result<u32, Error> {
        let pairs = (0..).zip(row.iter().copied());
        let mut ranking = listed(pairs, log_sum_exp, row.len(), allowed)?;
        if ranking.entries.is_empty() {
            return Err(Error::Grammar("no token may come next".into()));
        }
        ranking.is_whole = true;
        self.bias(&mut ranking);
        self.penalise(&mut ranking, &self.seen(history));
        self.keep_best(&mut ranking.entries);
        ranking.entries.sort_unstable_by(by_rank);
        self.pick(ranking, row.len(), index)
            .ok_or(Error::InvalidLogits)
    }

    /// Leaves out what a later step cuts off in any case: sorting a whole vocabulary takes longer
    /// than all those steps.
    fn keep_best(&self, entries: &mut Vec<Entry>) {
        let n = match self.params.temperature == 0.0 {
            true => 1,
            false => usize::try_from(self.params.top_k).unwrap_or(0),
        };
        if (1..entries.len()).contains(&n) {
            entries.select_nth_unstable_by(n - 1, by_rank);
            entries.truncate(n);
        }
    }

    /// Adds the biases to entries that are in the order of their ids.
    fn bias(&self, ranking: &mut Ranking) {
        for &(id, bias) in &self.params.logit_bias {
            if let Ok(at) = ranking.entries.binary_search_by_key(&id, |entry| entry.id) {
                ranking.entries[at].logit += f64::from(bias);
                ranking.log_sum_exp = None;
            }
        }
    }

    /// How often each token occurs in what the penalties look at; empty if they are off.
    fn seen(&self, history: &[u32]) -> HashMap<u32, u32> {
        let p = &self.params;
        let mut seen = HashMap::new();
        if !self.penalises() {
            return seen;
        }
        let n = usize::try_from(p.repeat_last_n).unwrap_or(usize::MAX);
        for &token in &history[history.len().saturating_sub(n)..] {
            *seen.entry(token).or_insert(0) += 1;
        }
        seen
    }

    /// Repetition penalty: Keskar et al. 2019, <https://arxiv.org/abs/1909.05858>.
    fn penalise(&self, ranking: &mut Ranking, seen: &HashMap<u32, u32>) {
        let repeat = f64::from(self.params.repeat_penalty);
        let presence = f64::from(self.params.presence_penalty);
        let frequency = f64::from(self.params.frequency_penalty);
        if seen.is_empty() {
            return;
        }
        for entry in &mut ranking.entries {
            if let Some(&n) = seen.get(&entry.id) {
                let scaled = match entry.logit > 0.0 {
                    true => entry.logit / repeat,
                    false => entry.logit * repeat,
                };
                entry.logit = scaled - presence - f64::from(n) * frequency;
            }
        }
        ranking.log_sum_exp = None;
    }

    /// How many of the penalised candidates no token outside of them can overtake. Penalties
    /// that only lower logits leave the others at or below the last candidate.
    fn n_certain(&self, entries: &[Entry], (id, logit): (u32, f32)) -> usize {
        let p = &self.params;
        if p.repeat_penalty < 1.0 || p.presence_penalty < 0.0 || p.frequency_penalty < 0.0 {
            return 0;
        }
        let last = Entry {
            id,
            logit: f64::from(logit),
        };
        let certain = |e: &&Entry| by_rank(e, &last).is_le();
        entries.iter().take_while(certain).count()
    }

    /// Runs the steps; none if the entries do not decide one of them.
    fn pick(&self, mut ranking: Ranking, vocab_size: usize, index: usize) -> Option<u32> {
        if self.params.temperature == 0.0 {
            return Some(ranking.entries.first()?.id);
        }
        self.top_k(&mut ranking, vocab_size);
        if self.params.typical_p < 1.0 {
            if !ranking.is_whole {
                return None;
            }
            self.typical_p(&mut ranking);
        }
        self.top_p(&mut ranking);
        self.min_p(&mut ranking);
        ranking.is_whole.then(|| self.draw(&ranking, index))?
    }

    fn top_k(&self, ranking: &mut Ranking, vocab_size: usize) {
        let k = usize::try_from(self.params.top_k).unwrap_or(0);
        if (1..vocab_size).contains(&k) && k <= ranking.entries.len() {
            ranking.entries.truncate(k);
            ranking.log_sum_exp = None;
            ranking.is_whole = true;
        } else if k > 0 && k < vocab_size {
            // The mass of the best k is not known.
            ranking.log_sum_exp = None;
        }
    }

    /// Locally typical sampling: Meister et al. 2022, <https://arxiv.org/abs/2202.00666>.
    fn typical_p(&self, ranking: &mut Ranking) {
        let log_sum_exp = ranking.log_sum_exp.unwrap_or_else(|| sum(&ranking.entries));
        let surprise = |e: &Entry| log_sum_exp - e.logit;
        let finite = ranking.entries.iter().filter(|e| e.logit.is_finite());
        let entropy: f64 = finite.map(|e| (-surprise(e)).exp() * surprise(e)).sum();
        let atypical = |e: &Entry| (surprise(e) - entropy).abs();
        ranking
            .entries
            .sort_by(|a, b| atypical(a).total_cmp(&atypical(b)).then(a.id.cmp(&b.id)));
        let n = n_reaching(
            &ranking.entries,
            log_sum_exp,
            self.params.typical_p,
            |c, p| c > p,
        );
        ranking.entries.truncate(n.unwrap_or(usize::MAX));
        ranking.entries.sort_unstable_by(by_rank);
        ranking.log_sum_exp = None;
    }

    /// Nucleus sampling: Holtzman et al. 2019, <https://arxiv.org/abs/1904.09751>.
    fn top_p(&self, ranking: &mut Ranking) {
        if self.params.top_p >= 1.0 {
            return;
        }
        let log_sum_exp = match ranking.log_sum_exp {
            Some(known) => known,
            None if ranking.is_whole => sum(&ranking.entries),
            None => return ranking.give_up(),
        };
        let n = n_reaching(&ranking.entries, log_sum_exp, self.params.top_p, |c, p| {
            c >= p
        });
        if let Some(n) = n {
            ranking.entries.truncate(n.max(1));
            ranking.is_whole = true;
        } else if !ranking.is_whole {
            ranking.give_up();
        }
    }

    /// Min-p sampling: Nguyen et al. 2024, <https://arxiv.org/abs/2407.01082>.
    fn min_p(&self, ranking: &mut Ranking) {
        if self.params.min_p <= 0.0 || ranking.entries.is_empty() {
            return;
        }
        let least = ranking.entries[0].logit + f64::from(self.params.min_p).ln();
        let n = ranking.entries.partition_point(|e| e.logit >= least);
        ranking.is_whole |= n < ranking.entries.len();
        ranking.entries.truncate(n);
    }

    fn draw(&self, ranking: &Ranking, index: usize) -> Option<u32> {
        let best = ranking.entries.first()?;
        let temperature = f64::from(self.params.temperature);
        let weight = |e: &Entry| ((e.logit - best.logit) / temperature).exp();
        let total: f64 = ranking.entries.iter().map(weight).sum();
        let mut left = uniform(self.seed, index as u64) * total;
        for entry in &ranking.entries {
            left -= weight(entry);
            if left < 0.0 {
                return Some(entry.id);
            }
        }
        Some(best.id)
    }
}

/// The pairs that a grammar allows, in their order. With a grammar, their mass is not known; they are
/// whole where it allows no other token.
fn listed(
    pairs: impl Iterator<Item = (u32, f32)>,
    log_sum_exp: f32,
    vocab_size: usize,
    allowed: Option<&Allowed>,
) -> Result<Ranking, Error> {
    let usable = |&(id, logit): &(u32, f32)| !logit.is_nan() && (id as usize) < vocab_size;
    let mut best = f32::NEG_INFINITY;
    let mut entries = Vec::new();
    for (id, logit) in pairs.filter(usable) {
        best = best.max(logit);
        if allowed.is_none_or(|allowed| allowed.is_allowed(id)) {
            entries.push(Entry {
                id,
                logit: f64::from(logit),
            });
        }
    }
    if !best.is_finite() || !log_sum_exp.is_finite() {
        return Err(Error::InvalidLogits);
    }
    let n_allowed = allowed.map_or(vocab_size, Allowed::num_set);
    Ok(Ranking {
        is_whole: entries.len() >= n_allowed,
        entries,
        log_sum_exp: allowed.is_none().then_some(f64::from(log_sum_exp)),
    })
}

fn by_rank(a: &Entry, b: &Entry) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// ln(sum(exp(logit))) of entries that begin with the largest.
fn sum(entries: &[Entry]) -> f64 {
    let best = entries.first().map_or(0.0, |e| e.logit);
    let total: f64 = entries.iter().map(|e| (e.logit - best).exp()).sum();
    best + total.ln()
}

/// How many leading entries it takes until their probability `reached` the limit.
fn n_reaching(
    entries: &[Entry],
    log_sum_exp: f64,
    limit: f32,
    reached: impl Fn(f64, f64) -> bool,
) -> Option<usize> {
    let mut total = 0.0;
    let at = entries.iter().position(|e| {
        total += (e.logit - log_sum_exp).exp();
        reached(total, f64::from(limit))
    });
    at.map(|i| i + 1)
}

/// A number in `0..1` that depends on nothing but seed and index: SplitMix64's output function
/// (Steele et al. 2014, <https://doi.org/10.1145/2660193.2660195>) over both.
fn uniform(seed: u64, index: u64) -> f64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let gamma = 0x9E37_79B9_7F4A_7C15u64;
    let key = mix(seed.wrapping_add(gamma));
    let bits = mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(gamma)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
