//! The steps against a plain twin, from candidates and from whole rows.

use super::*;
use crate::engine::fake::{best, log_sum_exp, sample};

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
            logit_bias: Vec::new(),
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
fn both(sampler: &Sampler, row: &[f32], n: usize, history: &[u32], index: usize) -> (u32, bool) {
    let best = best(row, n);
    let full = sampler
        .choose_from_row(row, best.log_sum_exp, history, index, None)
        .expect("finite logits");
    let short = sampler
        .choose(&best, row.len(), history, index, None)
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
fn a_device_is_told_to_choose_what_the_host_would() {
    let mut numbers = Numbers(7);
    let (mut n_equal, mut n_told) = (0, 0);
    for case in 0..3000 {
        let params = numbers.params();
        let row = numbers.row(1000);
        let history: Vec<u32> = (0..1 + numbers.below(150))
            .map(|_| numbers.below(row.len()) as u32)
            .collect();
        let sampler = Sampler::new(&params, case);
        let (own, before) = history.split_last().expect("not empty");
        let Some(sampling) = sampler.on_device(before, case as usize) else {
            continue;
        };
        // Its candidates must decide for the host too.
        let (token, short) = both(&sampler, &row, MAX_CANDIDATES, &history, case as usize);
        assert!(short, "{params:?}");
        n_told += 1;
        n_equal += usize::from(sample(&sampling, *own, &row) == Some(token));
    }
    // The device draws from 2^24 numbers.
    assert!(
        n_told > 700 && n_equal >= n_told - 1,
        "{n_equal} of {n_told}"
    );
}

#[test]
fn what_a_device_cannot_decide_is_the_hosts() {
    let told = |params: SamplingParams| Sampler::new(&params, 1).on_device(&[5; 200], 0).is_some();
    let default = SamplingParams::default;
    assert!(told(default()));
    let greedy = SamplingParams {
        temperature: 0.0,
        top_k: 0,
        typical_p: 0.5,
        ..default()
    };
    assert!(
        told(greedy.clone()),
        "the best token needs none of the steps"
    );
    let penalised = |repeat_penalty, repeat_last_n| SamplingParams {
        repeat_penalty,
        repeat_last_n,
        ..default()
    };
    assert!(told(penalised(1.1, 64)) && told(penalised(0.5, 0)));
    for params in [
        penalised(0.9, 64),
        penalised(1.1, 100),
        penalised(1.1, -1),
        SamplingParams {
            presence_penalty: -0.1,
            ..greedy
        },
        SamplingParams {
            top_k: 0,
            ..default()
        },
        SamplingParams {
            top_k: 129,
            ..default()
        },
        SamplingParams {
            typical_p: 0.9,
            ..default()
        },
    ] {
        assert!(!told(params.clone()), "{params:?}");
    }
}

#[test]
fn what_a_grammar_does_not_allow_has_no_probability() {
    let mut numbers = Numbers(3);
    let (mut n_equal, mut n_short) = (0, 0);
    let n_cases = 2000;
    for case in 0..n_cases {
        let params = numbers.params();
        let vocab_size = numbers.one_of(&[7, 128, 1000]);
        let row = numbers.row(vocab_size);
        let share = numbers.one_of(&[0.02, 0.3, 0.9]);
        let mut allowed = Allowed::alloc(vocab_size);
        allowed.allow_token(numbers.below(vocab_size) as u32);
        for id in 0..vocab_size as u32 {
            if numbers.next() < share {
                allowed.allow_token(id);
            }
        }
        let sampler = Sampler::new(&params, case as u64);
        let best = best(&row, 128);
        let full = sampler
            .choose_from_row(&row, best.log_sum_exp, &[], case, Some(&allowed))
            .expect("an allowed token");
        let short = sampler
            .choose(&best, vocab_size, &[], case, Some(&allowed))
            .expect("finite logits");
        assert!(allowed.is_allowed(full));
        assert_eq!(short.unwrap_or(full), full, "{sampler:?}");
        n_short += usize::from(short.is_some());
        // As if the vocabulary had no other tokens.
        let ids: Vec<usize> = (0..vocab_size)
            .filter(|&id| allowed.is_allowed(id as u32))
            .collect();
        let others: Vec<f32> = ids.iter().map(|&id| row[id]).collect();
        let wanted = ids[twin(&params, case as u64, &others, &[], case) as usize];
        n_equal += usize::from(full as usize == wanted);
    }
    assert!(n_equal >= n_cases - 3, "{n_equal} of {n_cases}");
    assert!(n_short > n_cases / 3, "{n_short} of {n_cases}");
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
        let best = best(&row, 2);
        assert_eq!(
            sampler.choose(&best, 3, &[], 0, None),
            Err(Error::InvalidLogits)
        );
        let chosen = sampler.choose_from_row(&row, 0.0, &[], 0, None);
        assert_eq!(chosen, Err(Error::InvalidLogits));
    }
    let row = [f32::NAN, 1.0, f32::NEG_INFINITY];
    assert_eq!(sampler.choose_from_row(&row, 1.0, &[], 0, None), Ok(1));
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
            logit_bias: Vec::new(),
        };
        let row = numbers.row(200);
        let (token, _) = both(&Sampler::new(&params, case), &row, 128, &[0, 1, 1], 0);
        assert!(token < 200);
    }
}

#[test]
fn a_bias_is_added_to_the_model_s_own_logits() {
    let mut numbers = Numbers(11);
    let mut n_moved = 0;
    for case in 0..1000 {
        let vocab_size = numbers.one_of(&[7, 128, 1000]);
        let row = numbers.row(vocab_size);
        let history: Vec<u32> = (0..30).map(|_| numbers.below(vocab_size) as u32).collect();
        let plain = numbers.params();
        let mut biased = row.clone();
        let mut logit_bias = Vec::new();
        for id in [numbers.below(vocab_size), vocab_size - 1] {
            // In steps that floats hold exactly.
            let bias = numbers.one_of(&[-100.0, -4.5, 2.0, 100.0]);
            if !logit_bias.iter().any(|&(known, _)| known == id as u32) {
                biased[id] += bias;
                logit_bias.push((id as u32, bias));
            }
        }
        logit_bias.push((vocab_size as u32, 100.0));
        let params = SamplingParams {
            logit_bias,
            ..plain.clone()
        };
        let (with, without) = (Sampler::new(&params, 5), Sampler::new(&plain, 5));
        let best = best(&row, 128);
        let chosen = with.choose_from_row(&row, best.log_sum_exp, &history, case, None);
        let twin = without.choose_from_row(&biased, log_sum_exp(&biased), &history, case, None);
        // Sums of a row and of its candidates differ in their last digits, and a draw may notice.
        n_moved += usize::from(chosen != twin);
        assert_eq!(
            with.choose(&best, vocab_size, &history, case, None),
            Ok(None)
        );
        assert!(with.on_device(&history, case).is_none());
    }
    assert!(n_moved <= 2, "{n_moved} tokens differ");
}
