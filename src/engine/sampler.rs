//! Logits to the next token: penalties, top-k, typical-p, top-p, min-p, temperature, draw, in
//! llama.cpp's order.
//!
//! The backend's best candidates are used where they provably decide; else the caller reads the
//! whole row. Both give the same token, since every step computes the same numbers over the same
//! list. All arithmetic is f64.

use std::collections::HashMap;

use super::{Error, SamplingParams};
use crate::backend::Candidates;

/// A token and its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    id: u32,
    logit: f64,
}

/// Tokens by falling logit, equal ones by rising id.
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
        params.temperature = params.temperature.min(f32::MAX).max(0.0);
        params.repeat_penalty = or(params.repeat_penalty, 1.0);
        if params.repeat_penalty <= 0.0 {
            params.repeat_penalty = 1.0;
        }
        params.presence_penalty = or(params.presence_penalty, 0.0);
        params.frequency_penalty = or(params.frequency_penalty, 0.0);
        params.top_p = or(params.top_p, 1.0);
        params.typical_p = or(params.typical_p, 1.0);
        params.min_p = or(params.min_p, 0.0).min(1.0);
        Sampler { params, seed }
    }

    /// The token at `index` of the generation, from the best candidates of a row; none if they do
    /// not decide. `history` are all tokens before it.
    ///
    /// # Errors
    /// [`Error::InvalidLogits`] for NaN or infinite values.
    pub fn choose(
        &self,
        best: &Candidates,
        vocab_size: usize,
        history: &[u32],
        index: usize,
    ) -> Result<Option<u32>, Error> {
        let pairs = best.ids.iter().copied().zip(best.logits.iter().copied());
        let is_whole = best.ids.len() >= vocab_size;
        let seen = self.seen(history);
        let last = pairs.clone().last().ok_or(Error::InvalidLogits)?;
        let mut ranking = rank(pairs, best.log_sum_exp, is_whole, vocab_size)?;
        if !seen.is_empty() {
            self.penalise(&mut ranking, &seen);
            if !is_whole {
                let certain = self.n_certain(&ranking.entries, last);
                ranking.entries.truncate(certain);
            }
        }
        Ok(self.pick(ranking, vocab_size, index))
    }

    /// As [`Sampler::choose`], from all logits of the row. `log_sum_exp` is the backend's.
    ///
    /// # Errors
    /// [`Error::InvalidLogits`] for NaN or infinite values.
    pub fn choose_from_row(
        &self,
        row: &[f32],
        log_sum_exp: f32,
        history: &[u32],
        index: usize,
    ) -> Result<u32, Error> {
        let pairs = (0..).zip(row.iter().copied());
        let seen = self.seen(history);
        let mut ranking = rank(pairs, log_sum_exp, true, row.len())?;
        if !seen.is_empty() {
            self.penalise(&mut ranking, &seen);
        }
        self.pick(ranking, row.len(), index)
            .ok_or(Error::InvalidLogits)
    }

    /// How often each token occurs in what the penalties look at; empty if they are off.
    fn seen(&self, history: &[u32]) -> HashMap<u32, u32> {
        let p = &self.params;
        let mut seen = HashMap::new();
        if p.repeat_penalty == 1.0 && p.presence_penalty == 0.0 && p.frequency_penalty == 0.0 {
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
        for entry in &mut ranking.entries {
            if let Some(&n) = seen.get(&entry.id) {
                let scaled = match entry.logit > 0.0 {
                    true => entry.logit / repeat,
                    false => entry.logit * repeat,
                };
                entry.logit = scaled - presence - f64::from(n) * frequency;
            }
        }
        ranking.entries.sort_unstable_by(by_rank);
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

/// Sorts the pairs and checks them.
fn rank(
    pairs: impl Iterator<Item = (u32, f32)>,
    log_sum_exp: f32,
    is_whole: bool,
    vocab_size: usize,
) -> Result<Ranking, Error> {
    let usable = |&(id, logit): &(u32, f32)| !logit.is_nan() && (id as usize) < vocab_size;
    let entry = |(id, logit): (u32, f32)| Entry {
        id,
        logit: f64::from(logit),
    };
    let mut entries: Vec<Entry> = pairs.filter(usable).map(entry).collect();
    entries.sort_unstable_by(by_rank);
    let best = entries.first().ok_or(Error::InvalidLogits)?;
    if !best.logit.is_finite() || !log_sum_exp.is_finite() {
        return Err(Error::InvalidLogits);
    }
    Ok(Ranking {
        entries,
        log_sum_exp: Some(f64::from(log_sum_exp)),
        is_whole,
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
mod tests {
    use super::*;

    /// Numbers that look random and are the same in every run.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> f64 {
            self.0 += 1;
            uniform(12345, self.0)
        }

        fn below(&mut self, n: usize) -> usize {
            (self.next() * n as f64) as usize
        }

        fn one_of<T: Copy>(&mut self, options: &[T]) -> T {
            options[self.below(options.len())]
        }

        fn params(&mut self) -> SamplingParams {
            SamplingParams {
                temperature: self.one_of(&[0.0, 0.3, 0.8, 1.0, 2.0]),
                top_k: self.one_of(&[-1, 0, 1, 5, 40, 100, 128, 129, 500]),
                top_p: self.one_of(&[0.0, 0.3, 0.9, 0.99, 1.0]),
                min_p: self.one_of(&[0.0, 0.0, 0.05, 0.5, 1.0]),
                typical_p: self.one_of(&[1.0, 1.0, 0.9, 0.2]),
                repeat_last_n: self.one_of(&[-1, 0, 8, 64]),
                repeat_penalty: self.one_of(&[1.0, 1.0, 1.1, 1.5, 0.8]),
                presence_penalty: self.one_of(&[0.0, 0.0, 0.5, -0.5]),
                frequency_penalty: self.one_of(&[0.0, 0.0, 0.3]),
                seed: None,
            }
        }

        /// A row whose spread varies, with some equal logits.
        fn row(&mut self, n: usize) -> Vec<f32> {
            let spread = self.one_of(&[0.5, 4.0, 30.0]);
            (0..n)
                .map(|_| ((self.next() - 0.5) * spread * 16.0).round() as f32 / 16.0)
                .collect()
        }
    }

    fn log_sum_exp(row: &[f32]) -> f32 {
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = row.iter().map(|&l| f64::from(l - best).exp()).sum();
        best + total.ln() as f32
    }

    fn candidates(row: &[f32], n: usize) -> Candidates {
        let mut ids: Vec<u32> = (0..row.len() as u32).collect();
        ids.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
        ids.truncate(n);
        Candidates {
            logits: ids.iter().map(|&id| row[id as usize]).collect(),
            ids,
            log_sum_exp: log_sum_exp(row),
        }
    }

    /// The steps written down one by one over probabilities of the whole vocabulary; a removed
    /// token has none.
    fn twin(p: &SamplingParams, seed: u64, row: &[f32], history: &[u32], index: usize) -> u32 {
        let mut logits: Vec<f64> = row.iter().map(|&l| f64::from(l)).collect();
        let n = if p.repeat_last_n < 0 {
            history.len()
        } else {
            p.repeat_last_n as usize
        };
        let window = &history[history.len() - n.min(history.len())..];
        for (id, logit) in logits.iter_mut().enumerate() {
            let count = window.iter().filter(|&&t| t as usize == id).count() as f64;
            if count > 0.0 {
                let repeat = f64::from(p.repeat_penalty);
                *logit = if *logit <= 0.0 {
                    *logit * repeat
                } else {
                    *logit / repeat
                };
                *logit -= f64::from(p.presence_penalty);
                *logit -= count * f64::from(p.frequency_penalty);
            }
        }
        let mut kept: Vec<usize> = (0..row.len()).collect();
        let by_logit = |kept: &mut Vec<usize>| {
            kept.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        };
        by_logit(&mut kept);
        if p.temperature == 0.0 {
            return kept[0] as u32;
        }
        let softmax = |kept: &[usize], t: f64| -> Vec<f64> {
            let best = kept.iter().map(|&i| logits[i]).fold(f64::MIN, f64::max);
            let e: Vec<f64> = kept
                .iter()
                .map(|&i| ((logits[i] - best) / t).exp())
                .collect();
            let total: f64 = e.iter().sum();
            e.iter().map(|x| x / total).collect()
        };
        if p.top_k > 0 {
            kept.truncate(p.top_k as usize);
        }
        if p.typical_p < 1.0 {
            let q = softmax(&kept, 1.0);
            let entropy: f64 = -q.iter().map(|q| q * q.ln()).sum::<f64>();
            let mut order: Vec<usize> = (0..kept.len()).collect();
            let far = |i: usize| (-q[i].ln() - entropy).abs();
            order.sort_by(|&a, &b| far(a).total_cmp(&far(b)).then(kept[a].cmp(&kept[b])));
            let mut total = 0.0;
            let mut n = 0;
            while n < order.len() && total <= f64::from(p.typical_p) {
                total += q[order[n]];
                n += 1;
            }
            kept = order[..n].iter().map(|&i| kept[i]).collect();
            by_logit(&mut kept);
        }
        if p.top_p < 1.0 {
            let q = softmax(&kept, 1.0);
            let mut total = 0.0;
            let mut n = 0;
            while n < kept.len() && (n == 0 || total < f64::from(p.top_p)) {
                total += q[n];
                n += 1;
            }
            kept.truncate(n);
        }
        let q = softmax(&kept, 1.0);
        let n = q
            .iter()
            .filter(|&&x| x >= q[0] * f64::from(p.min_p))
            .count();
        // The same bound in the other form, where rounding decides between equal logits.
        let least = logits[kept[0]] + f64::from(p.min_p).ln();
        let n2 = kept.iter().filter(|&&i| logits[i] >= least).count();
        assert!(
            n.abs_diff(n2)
                <= kept
                    .iter()
                    .filter(|&&i| (logits[i] - least).abs() < 1e-9)
                    .count()
        );
        kept.truncate(n2);
        let q = softmax(&kept, f64::from(p.temperature));
        let u = uniform(seed, index as u64);
        let mut total = 0.0;
        for (i, q) in kept.iter().zip(&q) {
            total += q;
            if u < total {
                return *i as u32;
            }
        }
        kept[0] as u32
    }

    /// What `choose` gives if the candidates decide, else what the row gives, as the worker does.
    fn both(
        sampler: &Sampler,
        row: &[f32],
        n: usize,
        history: &[u32],
        index: usize,
    ) -> (u32, bool) {
        let best = candidates(row, n);
        let full = sampler
            .choose_from_row(row, best.log_sum_exp, history, index)
            .expect("finite logits");
        let short = sampler
            .choose(&best, row.len(), history, index)
            .expect("finite logits");
        assert_eq!(short.unwrap_or(full), full, "{sampler:?}");
        (full, short.is_some())
    }

    #[test]
    fn candidates_and_whole_row_give_the_token_of_the_plain_twin() {
        let mut numbers = Numbers(0);
        let (mut n_equal, mut n_short) = (0, 0);
        let n_cases = 3000;
        for case in 0..n_cases {
            let params = numbers.params();
            let vocab_size = numbers.one_of(&[7, 128, 129, 1000]);
            let row = numbers.row(vocab_size);
            let history: Vec<u32> = (0..numbers.below(40))
                .map(|_| numbers.below(vocab_size) as u32)
                .collect();
            let sampler = Sampler::new(&params, case as u64);
            let (token, short) = both(&sampler, &row, 128, &history, case);
            n_short += usize::from(short);
            n_equal += usize::from(token == twin(&params, case as u64, &row, &history, case));
        }
        // The backend's log-sum-exp is an f32: a nucleus may end one token off.
        assert!(n_equal >= n_cases - 3, "{n_equal} of {n_cases}");
        assert!(n_short > n_cases / 2, "{n_short} of {n_cases}");
    }

    #[test]
    fn ollamas_defaults_never_need_the_whole_row() {
        let mut numbers = Numbers(7);
        for case in 0..200 {
            let row = numbers.row(5000);
            let sampler = Sampler::new(&SamplingParams::default(), case);
            assert!(both(&sampler, &row, 128, &[1, 2, 3], 0).1);
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_ids() {
        let params = SamplingParams {
            temperature: 0.0,
            ..Default::default()
        };
        let sampler = Sampler::new(&params, 0);
        assert_eq!(both(&sampler, &[1.0, 3.0, 3.0, 2.0], 2, &[], 0), (1, true));
    }

    #[test]
    fn penalties_can_lift_a_token_from_outside_the_candidates() {
        let params = SamplingParams {
            temperature: 0.0,
            presence_penalty: 5.0,
            ..Default::default()
        };
        let sampler = Sampler::new(&params, 0);
        let row = [9.0, 8.0, 7.0, 6.0];
        assert_eq!(both(&sampler, &row, 2, &[0, 1], 0), (2, false));
        assert_eq!(both(&sampler, &row, 2, &[0], 0), (1, true));
    }

    #[test]
    fn draws_follow_the_distribution_and_depend_on_seed_and_index_alone() {
        let params = SamplingParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            ..Default::default()
        };
        let row = [3f32.ln(), 0.0];
        let mut n = 0;
        for i in 0..4000 {
            let sampler = Sampler::new(&params, i / 2000);
            let token = both(&sampler, &row, 2, &[], i as usize).0;
            assert_eq!(token, both(&sampler, &row, 2, &[0, 1], i as usize).0);
            n += token;
        }
        assert!((900..1100).contains(&n), "a quarter of 4000 expected: {n}");
    }

    #[test]
    fn logits_that_are_no_numbers_are_errors_and_never_chosen() {
        let sampler = Sampler::new(&SamplingParams::default(), 0);
        for row in [[f32::NAN; 3], [f32::INFINITY; 3], [f32::NEG_INFINITY; 3]] {
            let best = candidates(&row, 2);
            assert_eq!(sampler.choose(&best, 3, &[], 0), Err(Error::InvalidLogits));
            let chosen = sampler.choose_from_row(&row, 0.0, &[], 0);
            assert_eq!(chosen, Err(Error::InvalidLogits));
        }
        let row = [f32::NAN, 1.0, f32::NEG_INFINITY];
        assert_eq!(sampler.choose_from_row(&row, 1.0, &[], 0), Ok(1));
    }

    #[test]
    fn senseless_parameters_still_give_a_token() {
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, f32::MAX];
        let mut numbers = Numbers(99);
        for case in 0..300 {
            let params = SamplingParams {
                temperature: numbers.one_of(&bad),
                top_k: numbers.one_of(&[i64::MIN, i64::MAX, 3]),
                top_p: numbers.one_of(&bad),
                min_p: numbers.one_of(&bad),
                typical_p: numbers.one_of(&bad),
                repeat_last_n: numbers.one_of(&[i64::MIN, i64::MAX]),
                repeat_penalty: numbers.one_of(&bad),
                presence_penalty: numbers.one_of(&bad),
                frequency_penalty: numbers.one_of(&bad),
                seed: None,
            };
            let row = numbers.row(200);
            let (token, _) = both(&Sampler::new(&params, case), &row, 128, &[0, 1, 1], 0);
            assert!(token < 200);
        }
    }
}
