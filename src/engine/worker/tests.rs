//! Runs on a fake backend: whatever else happens, each request gets the tokens it gets alone.

mod harness;
mod prefixes;

use super::super::fake::{self, FakeOptions, Fault};
use super::super::{FinishReason, Request, SamplingParams, Usage};
use super::*;
use harness::{
    Client, Harness, Numbers, ended, essence, greedy, long, prompt, random_request, reference,
};

#[test]
fn one_request_gets_the_tokens_of_the_logits() {
    for (equal, samples) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut numbers = Numbers(1);
        for seed in 0..20 {
            let mut request = greedy(prompt(&mut numbers, 1 + seed * 7));
            request.params.temperature = (seed % 2) as f32;
            request.params.seed = Some(seed as u64);
            let options = FakeOptions {
                decode_equals_prefill: equal,
                samples,
                ..FakeOptions::default()
            };
            let answer = Harness::new(options, 1000).answer(request.clone());
            assert_eq!(answer.tokens, reference(&request, equal));
        }
    }
}

/// A device that chooses tokens has its next step before it is asked for the last one's token.
#[test]
fn the_next_step_begins_before_a_token_is_read() {
    let options = FakeOptions {
        samples: true,
        ..FakeOptions::default()
    };
    let mut harness = Harness::new(options, 1000);
    let turn = |harness: &mut Harness| {
        harness.worker.turn(false).expect("a healthy device");
        harness.worker.ahead.is_some()
    };
    let request = long(40, 10, 3);
    let mut first = harness.submit(request.clone());
    assert!(!turn(&mut harness), "a prompt's token begins the answer");
    for _ in 1..9 {
        assert!(turn(&mut harness), "a token is still to come");
    }
    first.read(100);
    assert_eq!(first.answer.tokens.len(), 9);
    assert!(!turn(&mut harness), "the budget ends with the next token");
    first.read(100);
    assert_eq!(first.answer.tokens, reference(&request, false));

    // Those who come, who go, and who need the host's choice.
    let mut first = harness.submit(long(40, 100, 4));
    assert!(!turn(&mut harness));
    assert!(turn(&mut harness));
    let second = harness.submit(long(40, 50, 5));
    assert!(!turn(&mut harness), "there is a place for the second");
    assert!(!turn(&mut harness), "its prompt");
    assert!(turn(&mut harness), "both go on");
    drop(second);
    assert!(!turn(&mut harness), "the second went away");
    assert!(turn(&mut harness), "the first goes on");
    let third = harness.submit(Request {
        logprobs: Some(1),
        ..long(40, 50, 6)
    });
    (0..4).for_each(|_| _ = turn(&mut harness));
    assert!(!turn(&mut harness), "the host chooses a token");
    drop(third);
    (0..3).for_each(|_| _ = turn(&mut harness));
    first.read(100);
    assert!(turn(&mut harness), "the first goes on");
}

/// The step after an end was begun in vain: nothing of it is left.
#[test]
fn an_end_that_is_seen_late_leaves_no_trace() {
    let hosted = FakeOptions::default();
    let sampling = FakeOptions {
        samples: true,
        ..hosted
    };
    let mut numbers = Numbers(3);
    let requests = (0..400).map(|_| Request {
        n_predict: Some(60),
        ..greedy(prompt(&mut numbers, 70))
    });
    let ends = |r: &Request| (2..50).contains(&reference(r, false).len());
    let mut n_in_vain = 0;
    let mut harness = Harness::new(sampling, 1000);
    for request in requests.filter(ends).take(5) {
        let answer = harness.answer(request.clone());
        n_in_vain += usize::from(harness.worker.ahead.is_some());
        assert_eq!(
            essence(&answer),
            essence(&Harness::new(hosted, 1000).answer(request.clone()))
        );
        assert_eq!(ended(&answer).0, FinishReason::Stop);
        // The next turn of the talk, in the pages of the first, at once.
        let mut tokens = request.tokens;
        tokens.extend(&answer.tokens);
        tokens.extend([20, 30, 40]);
        let next = greedy(tokens);
        assert_eq!(harness.answer(next.clone()).tokens, reference(&next, false));
    }
    assert_eq!(n_in_vain, 5);
    harness.worker.turn(false).expect("a healthy device");
    assert_eq!(harness.n_free_pages(), harness.n_pages);
}

fn without_draft(request: &Request) -> Request {
    Request {
        n_draft: 0,
        ..request.clone()
    }
}

/// Random arrivals, cancellations, slow readers and, with few pages, preemptions.
fn storm(options: FakeOptions, n_ctx: usize, seed: u64) -> usize {
    let mut numbers = Numbers(seed);
    let n_requests = 60;
    let requests: Vec<Request> = (0..n_requests)
        .map(|case| random_request(&mut numbers, case))
        .collect();
    let mut harness = Harness::new(options, n_ctx);
    let mut clients: Vec<(usize, Client)> = Vec::new();
    let (mut n_submitted, mut n_whole) = (0, 0);
    for _ in 0..100_000 {
        if n_submitted < n_requests && numbers.below(3) == 0 {
            let client = harness.submit(requests[n_submitted].clone());
            clients.push((n_submitted, client));
            n_submitted += 1;
        }
        harness.worker.turn(false).expect("a healthy device");
        if numbers.below(40) == 0 && !clients.is_empty() {
            let (case, mut client) = clients.swap_remove(numbers.below(clients.len()));
            client.read(usize::MAX);
            let alone = Harness::new(
                FakeOptions {
                    n_parallel: 1,
                    ..options
                },
                n_ctx,
            )
            .answer(without_draft(&requests[case]));
            assert!(alone.tokens.starts_with(&client.answer.tokens));
        }
        for (_, client) in &mut clients {
            client.read(numbers.below(3));
        }
        clients.retain(|(case, client)| {
            if client.is_done() {
                let big = FakeOptions {
                    n_parallel: 1,
                    n_pages: 64,
                    n_batch: 1000,
                    ..options
                };
                let alone = Harness::new(big, n_ctx).answer(without_draft(&requests[*case]));
                assert_eq!(essence(&client.answer), essence(&alone), "request {case}");
                n_whole += 1;
            }
            !client.is_done()
        });
        if n_submitted == n_requests && clients.is_empty() {
            break;
        }
    }
    assert!(clients.is_empty(), "all requests end");
    harness.worker.turn(false).expect("a healthy device");
    assert_eq!(harness.n_free_pages(), harness.n_pages);
    assert_eq!(harness.worker.scheduler.n_free_states(), options.n_parallel);
    assert_eq!(harness.n_open.load(std::sync::atomic::Ordering::Relaxed), 0);
    n_whole
}

#[test]
fn tokens_do_not_depend_on_what_else_runs() {
    let mut n_whole = 0;
    for (seed, equal, is_recurrent, samples) in [
        (1, false, false, false),
        (2, true, false, false),
        (3, false, true, false),
        (4, true, true, false),
        (5, false, false, true),
        (6, true, false, true),
        (7, false, true, true),
    ] {
        for (n_parallel, n_batch, n_pages) in [(4, 64, 64), (8, 7, 64), (3, 300, 10), (8, 33, 8)] {
            let options = FakeOptions {
                n_parallel,
                n_batch,
                n_pages,
                decode_equals_prefill: equal,
                is_recurrent,
                samples,
                ..FakeOptions::default()
            };
            n_whole += storm(options, 256, seed * 100 + n_batch as u64);
        }
    }
    assert!(
        n_whole > 1050,
        "most requests are read to their end: {n_whole}"
    );
}

#[test]
fn right_guesses_are_taken_and_change_no_token() {
    for (equal, temperature) in [(true, 0.0), (true, 0.7), (false, 0.0)] {
        let options = FakeOptions {
            decode_equals_prefill: equal,
            period: Some(7),
            ..FakeOptions::default()
        };
        let mut plain = long(20, 20, 3);
        plain.n_predict = Some(200);
        plain.logprobs = Some(2);
        plain.params.temperature = temperature;
        plain.params.seed = Some(1);
        let guessing = Request {
            n_draft: 5,
            ..plain.clone()
        };
        let expected = Harness::new(options, 150).answer(plain);
        let answer = Harness::new(options, 150).answer(guessing);
        assert_eq!(essence(&answer), essence(&expected));
        assert_eq!(answer.logprobs, expected.logprobs);
        let Usage {
            drafted_tokens,
            accepted_tokens,
            ..
        } = ended(&answer).1;
        match (equal, temperature > 0.0) {
            (false, _) => assert_eq!((drafted_tokens, accepted_tokens), (0, 0)),
            // The first period and the ends of pages are not guessed.
            (true, false) => assert!(accepted_tokens > 120 && drafted_tokens < 180),
            (true, true) => assert!(drafted_tokens >= accepted_tokens),
        }
    }
}

#[test]
fn short_of_pages_the_youngest_is_preempted_and_goes_on_later() {
    let options = FakeOptions {
        n_parallel: 2,
        n_pages: 4,
        ..FakeOptions::default()
    };
    let mut harness = Harness::new(options, 128);
    let requests = [long(40, 60, 1), long(40, 60, 2)];
    let mut clients: Vec<Client> = requests.iter().map(|r| harness.submit(r.clone())).collect();
    let mut n_preempted = 0;
    let mut n_running = 0;
    for _ in 0..500 {
        harness.worker.turn(false).expect("a healthy device");
        clients.iter_mut().for_each(|c| c.read(100));
        let now = harness.worker.scheduler.running.len();
        n_preempted += usize::from(now < n_running && !clients.iter().any(Client::is_done));
        n_running = now;
    }
    assert!(
        n_preempted > 0,
        "four pages cannot hold two of a hundred tokens"
    );
    for (client, request) in clients.iter().zip(&requests) {
        assert_eq!(client.answer.tokens, reference(request, false));
    }
}

#[test]
fn a_long_prompt_does_not_hold_up_those_who_generate() {
    let options = FakeOptions {
        n_batch: 8,
        ..FakeOptions::default()
    };
    let mut harness = Harness::new(options, 1000);
    let mut short = harness.submit(Request {
        n_predict: Some(1000),
        ..greedy(vec![10])
    });
    harness.worker.turn(false).expect("a healthy device");
    let _long = harness.submit(greedy(prompt(&mut Numbers(6), 400)));
    short.read(10);
    let before = short.answer.tokens.len();
    for _ in 0..20 {
        harness.worker.turn(false).expect("a healthy device");
    }
    short.read(100);
    assert!(short.answer.tokens.len() >= before + 9 || short.is_done());
}

#[test]
fn a_client_that_does_not_read_holds_up_itself_alone() {
    let mut harness = Harness::new(FakeOptions::default(), 1000);
    let long = |seed| Request {
        n_predict: Some(300),
        params: SamplingParams {
            temperature: 1.0,
            seed: Some(seed),
            ..Default::default()
        },
        ..greedy(vec![10])
    };
    // Seeds whose text is long.
    let seeds: Vec<u64> = (0..)
        .filter(|&s| reference(&long(s), false).len() == 300)
        .take(2)
        .collect();
    let mut slow = harness.submit(long(seeds[0]));
    let quick = harness.answer(long(seeds[1]));
    assert_eq!(quick.tokens, reference(&long(seeds[1]), false));
    assert!(!slow.is_done());
    assert!(
        !harness.worker.turn(false).expect("a healthy device"),
        "nothing to do"
    );
    while !slow.is_done() {
        slow.read(1000);
        harness.worker.turn(false).expect("a healthy device");
    }
    assert_eq!(slow.answer.tokens, reference(&long(seeds[0]), false));
}

#[test]
fn a_full_context_is_shifted_or_ends() {
    let base = Request {
        n_predict: Some(100),
        n_keep: 3,
        params: SamplingParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            ..Default::default()
        },
        ..greedy(prompt(&mut Numbers(8), 30))
    };
    let mut n_shifted = 0;
    for seed in 0..20 {
        let mut request = base.clone();
        request.params.seed = Some(seed);
        request.shift = false;
        let answer = Harness::new(FakeOptions::default(), 64).answer(request.clone());
        let (reason, usage) = ended(&answer);
        if reason == FinishReason::Stop {
            continue;
        }
        assert_eq!(usage.eval_tokens, 34, "prompt and answer fill 64 places");
        request.shift = true;
        let shifted = Harness::new(FakeOptions::default(), 64).answer(request);
        assert!(shifted.tokens.starts_with(&answer.tokens));
        assert!(shifted.tokens.len() > 34 || ended(&shifted).0 == FinishReason::Stop);
        n_shifted += usize::from(ended(&shifted).1.eval_tokens == 100);
    }
    assert!(n_shifted > 0);
}

#[test]
fn budgets_stops_and_repeats_end_a_generation() {
    let mut harness = Harness::new(FakeOptions::default(), 300);
    let mut numbers = Numbers(9);
    let request = greedy(prompt(&mut numbers, 20));
    let whole = harness.answer(request.clone());
    assert!(whole.text.len() > 5, "this prompt does not end early");

    let none = harness.answer(Request {
        n_predict: Some(0),
        ..request.clone()
    });
    assert_eq!(
        (none.tokens.len(), ended(&none).0),
        (0, FinishReason::Length)
    );

    let three = harness.answer(Request {
        n_predict: Some(3),
        ..request.clone()
    });
    assert_eq!(three.tokens, whole.tokens[..3]);
    assert_eq!(ended(&three).0, FinishReason::Length);

    let stop = whole.text.chars().skip(2).take(2).collect::<String>();
    let stopped = harness.answer(Request {
        stop: vec![stop.clone()],
        ..request.clone()
    });
    assert_eq!(
        stopped.text,
        whole.text.split(&stop).next().expect("a part")
    );
    assert_eq!(ended(&stopped).0, FinishReason::Stop);

    // A sampler that can only repeat: the penalty below 1 lifts what was seen.
    let repeating = Request {
        n_predict: Some(200),
        params: SamplingParams {
            temperature: 0.0,
            presence_penalty: -100.0,
            repeat_last_n: 1,
            ..Default::default()
        },
        ..greedy(vec![20])
    };
    let again = harness.answer(Request {
        max_repeats: Some(5),
        ..repeating.clone()
    });
    assert_eq!((again.text.len(), ended(&again).0), (7, FinishReason::Stop));

    // Nothing is longer than ten contexts.
    for (n_predict, expected) in [(None, 300), (Some(301), 300), (Some(299), 299)] {
        let answer = Harness::new(FakeOptions::default(), 30).answer(Request {
            n_predict,
            shift: true,
            ..repeating.clone()
        });
        let (reason, usage) = ended(&answer);
        assert_eq!(
            (usage.eval_tokens, reason),
            (expected, FinishReason::Length)
        );
    }
}

#[test]
fn logprobs_are_those_before_sampling_and_one_for_each_token() {
    let mut harness = Harness::new(FakeOptions::default(), 300);
    let request = Request {
        logprobs: Some(2),
        n_predict: Some(10),
        params: SamplingParams {
            temperature: 1.5,
            top_k: 0,
            top_p: 1.0,
            seed: Some(4),
            ..Default::default()
        },
        ..greedy(prompt(&mut Numbers(10), 9))
    };
    let answer = harness.answer(request.clone());
    assert_eq!(answer.logprobs.len(), answer.tokens.len());
    for (i, logprob) in answer.logprobs.iter().enumerate() {
        let row = fake::reference_logits(&request.tokens, &answer.tokens[..i], false);
        let total = fake::log_sum_exp(&row);
        assert_eq!(logprob.chosen.token, answer.tokens[i]);
        let expected = row[answer.tokens[i] as usize] - total;
        assert!((logprob.chosen.logprob - expected).abs() < 1e-5);
        assert_eq!(logprob.top.len(), 2);
        assert!(logprob.top[0].logprob >= logprob.top[1].logprob);
        assert!(logprob.top[0].logprob >= logprob.chosen.logprob);
    }
}

#[test]
fn control_tokens_are_shown_only_where_asked_for() {
    let lift = |visible_tokens| Request {
        n_predict: Some(2),
        visible_tokens,
        params: SamplingParams {
            temperature: 0.0,
            presence_penalty: -100.0,
            repeat_last_n: 1,
            ..Default::default()
        },
        ..greedy(vec![1])
    };
    let mut harness = Harness::new(FakeOptions::default(), 300);
    let hidden = harness.answer(lift(vec![]));
    assert_eq!((hidden.text.as_str(), hidden.tokens.len()), ("", 2));
    assert_eq!(harness.answer(lift(vec![1])).text, "<mark><mark>");
}

#[test]
fn logits_that_are_no_numbers_fail_their_request_alone() {
    for (samples, step) in [(false, 0), (true, 0), (true, 2)] {
        let options = FakeOptions {
            fault: Some(Fault::NotANumber(step)),
            samples,
            ..FakeOptions::default()
        };
        let mut harness = Harness::new(options, 300);
        let request = long(2, 20, 1);
        let bad = harness.answer(request.clone());
        assert_eq!(bad.end, Some(Err(Error::InvalidLogits)));
        let good = harness.answer(request.clone());
        assert_eq!(good.tokens, reference(&request, false));
    }
}
