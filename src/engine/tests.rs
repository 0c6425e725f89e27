//! The handle of a model, over a fake device.

use super::*;
use crate::backend::BackendError;
use std::time::{Duration, Instant};

#[test]
fn truncated_prompts_have_ollamas_lengths() {
    let tokens: Vec<u32> = (0..10).collect();
    assert_eq!(truncate_prompt(&tokens, 8, 3, false), [0, 1, 2, 7, 8, 9]);
    assert_eq!(truncate_prompt(&tokens, 8, 2, true), [0, 1, 2, 7, 8, 9]);
    assert_eq!(truncate_prompt(&tokens, 11, 3, false), tokens);
    let long: Vec<u32> = (0..5000).collect();
    assert_eq!(truncate_prompt(&long, 4096, 4, false).len(), 2050);
    assert_eq!(truncate_prompt(&long, 4096, 4, true).len(), 2051);
    assert_eq!(truncate_prompt(&long, 8, -1, false).len(), 7);
    assert_eq!(truncate_prompt(&long, 8, 100, false).len(), 7);
    assert_eq!(truncate_prompt(&long, 4, 0, false).len(), 2);
}

fn engine(fault: Option<fake::Fault>, n_waiting: usize) -> (Engine, Arc<AtomicUsize>) {
    engine_on(fault, n_waiting, false)
}

fn engine_on(
    fault: Option<fake::Fault>,
    n_waiting: usize,
    samples: bool,
) -> (Engine, Arc<AtomicUsize>) {
    let (device, n_steps) = fake::device(fake::FakeOptions {
        n_parallel: 2,
        fault,
        samples,
        ..Default::default()
    });
    let options = EngineOptions {
        n_ctx: 512,
        n_parallel: 2,
        n_batch: 64,
        n_waiting,
        kv_type: KvType::F16,
    };
    let engine = Engine::start(device, Arc::new(fake::FakeVocabulary), options);
    (engine.expect("a thread"), n_steps)
}

async fn last(mut events: Events) -> Event {
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    last.expect("an event")
}

#[tokio::test]
async fn a_request_ends_with_its_counts() {
    let (engine, _) = engine(None, 8);
    let request = Request {
        n_predict: Some(5),
        ..Request::new(vec![10; 40])
    };
    let Event::Done { usage, .. } = last(engine.submit(request).expect("a place")).await else {
        panic!("the request fails");
    };
    assert_eq!(usage.prompt_tokens, 40);
    assert!((1..=5).contains(&usage.eval_tokens));
    assert!(usage.prompt_duration.as_nanos() > 0);
    engine.close();
}

#[tokio::test]
async fn prompts_that_cannot_run_are_refused_at_once() {
    let (engine, _) = engine(None, 8);
    let refused = |tokens| engine.submit(Request::new(tokens)).expect_err("refused");
    assert_eq!(refused(vec![]), Error::EmptyPrompt);
    let n_ctx = 512;
    assert_eq!(
        refused(vec![9; 512]),
        Error::PromptTooLong {
            n_tokens: 512,
            n_ctx
        }
    );
    let vocab_size = fake::VOCAB_SIZE;
    assert_eq!(
        refused(vec![96]),
        Error::UnknownToken {
            token: 96,
            vocab_size
        }
    );
}

#[tokio::test]
async fn more_requests_than_may_wait_are_refused_and_cancelled_ones_make_room() {
    let (engine, _) = engine(None, 1);
    // Nobody reads, so nobody ends: two run, one waits.
    let endless = || Request {
        params: SamplingParams {
            presence_penalty: -100.0,
            temperature: 0.0,
            repeat_last_n: 1,
            ..Default::default()
        },
        max_repeats: None,
        ..Request::new(vec![20])
    };
    let mut open: Vec<Events> = (0..3)
        .map(|_| engine.submit(endless()).expect("a place"))
        .collect();
    assert_eq!(engine.submit(endless()).expect_err("full"), Error::Busy);
    open.clear();
    while engine
        .shared
        .n_open
        .load(std::sync::atomic::Ordering::Relaxed)
        > 0
    {
        tokio::task::yield_now().await;
    }
    assert!(engine.submit(endless()).is_ok());
}

#[tokio::test]
async fn a_lost_device_fails_all_requests_and_the_engine() {
    fails_when_lost(false).await;
}

#[tokio::test]
async fn a_device_that_is_lost_a_step_ahead_does_too() {
    fails_when_lost(true).await;
}

async fn fails_when_lost(samples: bool) {
    let (engine, _) = engine_on(Some(fake::Fault::Lost(3)), 8, samples);
    let request = || Request {
        n_predict: Some(400),
        params: SamplingParams {
            // A negative one lifts what was seen: the host chooses.
            presence_penalty: if samples { 0.0 } else { -100.0 },
            temperature: 0.0,
            repeat_last_n: 1,
            ..Default::default()
        },
        max_repeats: None,
        ..Request::new(vec![20])
    };
    let first = engine.submit(request());
    let second = engine.submit(request());
    for events in [first, second] {
        let error = match events {
            Ok(events) => last(events).await,
            Err(error) => Event::Failed(error),
        };
        let Event::Failed(Error::Backend(BackendError::Lost { .. })) = error else {
            panic!("{error:?}");
        };
    }
    engine.close();
    assert!(!engine.is_alive());
    assert!(matches!(engine.submit(request()), Err(Error::Backend(_))));
}

#[tokio::test]
async fn a_panic_becomes_an_error() {
    let (engine, _) = engine(Some(fake::Fault::Panic(1)), 8);
    let request = Request {
        n_predict: Some(50),
        ..Request::new(vec![20, 21])
    };
    let end = last(engine.submit(request).expect("a place")).await;
    let Event::Failed(Error::Stopped(detail)) = end else {
        panic!("{end:?}");
    };
    assert!(detail.contains("injected"), "{detail}");
}

#[tokio::test]
async fn closing_fails_what_runs() {
    let (engine, _) = engine(None, 8);
    let events = engine.submit(Request {
        params: SamplingParams {
            presence_penalty: -100.0,
            temperature: 0.0,
            repeat_last_n: 1,
            ..Default::default()
        },
        max_repeats: None,
        ..Request::new(vec![20])
    });
    engine.close();
    assert_eq!(
        last(events.expect("a place")).await,
        Event::Failed(Error::Unloaded)
    );
}

/// A client about as fast as the device, whose queue is full again and again: each time that it makes room counts.
#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_of_its_answer() {
    let (engine, _) = engine(None, 8);
    for seed in 0..300 {
        let mut request = Request::new(vec![10; 40]);
        request.n_predict = Some(400);
        request.max_repeats = None;
        request.params.seed = Some(seed);
        let mut events = engine.submit(request).expect("a place");
        let read = async {
            while events.recv().await.is_some() {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_micros(30) {
                    std::hint::spin_loop();
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), read).await;
        ended.unwrap_or_else(|_| panic!("request {seed} waits for its reader, and that for it"));
    }
    engine.close();
}
