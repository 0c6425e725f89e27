//! Beginnings of prompts that are in the cache already.

use super::super::super::fake::FakeOptions;
use super::harness::{Harness, Numbers, ended, greedy, long, prompt, reference};

#[test]
fn a_second_turn_finds_its_prefix_in_the_cache() {
    for (equal, n_cached) in [(false, 96), (true, 128)] {
        let options = FakeOptions {
            decode_equals_prefill: equal,
            ..FakeOptions::default()
        };
        let mut harness = Harness::new(options, 1000);
        let first = long(100, 40, 3);
        let answer = harness.answer(first.clone());
        assert_eq!(ended(&answer).1.cached_tokens, 0);
        let mut tokens = first.tokens;
        tokens.extend(&answer.tokens);
        tokens.extend(prompt(&mut Numbers(13), 10));
        let second = greedy(tokens);
        let answer = harness.answer(second.clone());
        assert_eq!(ended(&answer).1.cached_tokens, n_cached);
        assert_eq!(answer.tokens, reference(&second, equal));
    }
}

#[test]
fn a_long_shared_beginning_is_computed_once() {
    let options = FakeOptions {
        n_pages: 128,
        ..FakeOptions::default()
    };
    let mut harness = Harness::new(options, 2000);
    let shared = prompt(&mut Numbers(5), 1000);
    for (tail, n_cached) in [(7, 0), (8, 992), (9, 992)] {
        let own = prompt(&mut Numbers(tail), 30);
        let answer = harness.answer(greedy([&shared[..], &own].concat()));
        let usage = ended(&answer).1;
        assert_eq!((usage.prompt_tokens, usage.cached_tokens), (1030, n_cached));
    }
}

#[test]
fn a_recurrent_model_computes_a_prefix_again() {
    let options = FakeOptions {
        is_recurrent: true,
        decode_equals_prefill: true,
        ..FakeOptions::default()
    };
    let mut harness = Harness::new(options, 1000);
    let request = long(100, 20, 3);
    for _ in 0..2 {
        let answer = harness.answer(request.clone());
        assert_eq!(answer.tokens, reference(&request, true));
        assert_eq!(ended(&answer).1.cached_tokens, 0);
    }
}

#[test]
fn a_prompt_of_whole_cached_pages_still_computes_its_last_token() {
    let mut harness = Harness::new(FakeOptions::default(), 1000);
    let request = greedy(prompt(&mut Numbers(5), 64));
    let first = harness.answer(request.clone());
    let second = harness.answer(request);
    assert_eq!(ended(&second).1.cached_tokens, 32);
    assert_eq!(first.tokens, second.tokens);
}
