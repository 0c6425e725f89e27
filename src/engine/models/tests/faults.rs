//! Loads that stand still, slow ones that do not, and a panic on the way.

use super::*;
use crate::gguf::Gguf;
use crate::model::Model;

const PATIENCE: Duration = Duration::from_millis(200);

fn patient(load_timeout: Option<Duration>) -> ModelsSettings {
    ModelsSettings {
        load_timeout,
        ..ModelsSettings::default()
    }
}

#[tokio::test]
async fn a_load_that_stands_still_is_given_up() {
    let (models, n_opened, gate) = gated(patient(Some(PATIENCE)));
    let begun = Instant::now();
    let first = ask(&models, "tiny-llama");
    until(|| n_opened.load(Ordering::SeqCst) == 1).await;
    let same = ask(&models, "tiny-llama");
    until(|| models.inner.lock().n_waiting == 1).await;
    for waiting in [first, same] {
        let error = waiting.await.expect("no panic").err();
        assert_eq!(error, Some(Error::Stalled { patience: PATIENCE }));
    }
    assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < 50 * PATIENCE);
    assert_eq!(n_opened.load(Ordering::SeqCst), 1, "who waits is told, too");
    // The thread is still at it; what it makes is dropped once it comes back.
    gate.send(true).expect("an open gate");
    gate.send(true).expect("an open gate");
    let lease = models.acquire(&request("tiny-llama-f16")).await;
    assert!(lease.is_ok());
    assert_eq!(models.running().len(), 1);
}

#[tokio::test]
async fn others_load_while_one_stands_still() {
    let (models, n_opened, gate) = gated(patient(Some(PATIENCE)));
    let first = ask(&models, "tiny-llama");
    until(|| n_opened.load(Ordering::SeqCst) == 1).await;
    let error = first.await.expect("no panic").err();
    assert_eq!(error, Some(Error::Stalled { patience: PATIENCE }));
    assert_eq!(models.inner.turn.available_permits(), 1);
    drop(gate);
    until(|| Arc::strong_count(&models.inner) == 1).await;
    assert_eq!(models.inner.turn.available_permits(), 1);
}

#[tokio::test]
async fn a_slow_load_goes_on() {
    let options = FakeOptions {
        load_time: PATIENCE / 2,
        ..FakeOptions::default()
    };
    let (models, _) = models(options, patient(Some(PATIENCE)));
    let begun = Instant::now();
    let lease = models.acquire(&request("tiny-llama")).await;
    assert!(lease.is_ok());
    assert!(begun.elapsed() > 2 * PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn without_a_limit_a_load_is_waited_for() {
    let (models, n_opened, gate) = gated(patient(None));
    let first = ask(&models, "tiny-llama");
    until(|| n_opened.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(2 * PATIENCE).await;
    assert!(!first.is_finished());
    gate.send(true).expect("an open gate");
    assert!(first.await.expect("no panic").is_ok());
}

#[test]
fn every_piece_of_a_file_counts() {
    let gguf = Gguf::open(&tiny("tiny-llama.gguf")).expect("a model");
    let n_steps = AtomicUsize::new(0);
    let progress = || {
        n_steps.fetch_add(1, Ordering::Relaxed);
    };
    let ((), model) = Model::load_beside(&Arc::new(gguf), &[], &progress, || ()).expect("a model");
    let n_weights = model.weights().len();
    assert!(
        n_steps.load(Ordering::Relaxed) >= n_weights,
        "{n_steps:?} of {n_weights}"
    );
}

#[tokio::test]
async fn a_panic_that_holds_the_list_stops_nobody() {
    let (models, _) = simple();
    let inner = Arc::clone(&models.inner);
    let panicked = std::thread::spawn(move || {
        let _state = inner.lock();
        panic!("while the list is locked");
    });
    assert!(panicked.join().is_err());
    assert!(models.inner.state.is_poisoned());
    let lease = models.acquire(&request("tiny-llama")).await.expect("loads");
    assert_eq!(models.running().len(), 1);
    drop(lease);
    models.shutdown().await;
}
