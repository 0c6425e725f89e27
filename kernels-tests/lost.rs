//! A GPU that goes away: what ran on it fails with an error that says so, and another opening of it
//! works.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ollama_wgpu::backend::{BackendError, KvType};
use ollama_wgpu::engine::{Engine, Error, Event, Events, Request};
use ollama_wgpu::gpu::{self, DeviceChoice, GpuBackend};

use crate::engine::load_on;

fn opened() -> GpuBackend {
    let adapter = gpu::adapters().into_iter().next().expect("a GPU adapter");
    let choice = DeviceChoice::Named(adapter.index.to_string());
    GpuBackend::open_with(&choice, gpu::Options::default()).expect("it opens")
}

fn engine(device: &GpuBackend) -> Engine {
    let backend = device.sibling().expect("it opens");
    load_on(
        Box::new(backend),
        "tiny/tiny-llama.gguf",
        2,
        24,
        KvType::F16,
    )
}

fn endless() -> Request {
    Request {
        n_predict: Some(5000),
        max_repeats: None,
        ..Request::new(vec![20, 21, 22])
    }
}

fn next(events: &mut Events) -> Event {
    pollster::block_on(events.recv()).expect("an event")
}

/// Why a request ended.
fn failure(events: &mut Events) -> Error {
    loop {
        match next(events) {
            Event::Failed(error) => return error,
            Event::Done { .. } => panic!("it ended by itself"),
            Event::Piece { .. } => {}
        }
    }
}

/// Fails where the work does not end.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        // The receiver waits, or has failed the test.
        let _ = sender.send(());
    });
    match receiver.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it waits for ever"),
        _ => worker.join().expect("no panic"),
    }
}

#[test]
fn a_lost_gpu_fails_what_runs_and_is_opened_anew() {
    in_time(|| {
        let first = opened();
        let running = engine(&first);
        let mut all = [running.submit(endless()), running.submit(endless())]
            .map(|events| events.expect("a place"));
        for events in &mut all {
            assert!(matches!(next(events), Event::Piece { .. }));
        }
        first.lose();
        for events in &mut all {
            let error = failure(events);
            let lost = matches!(error, Error::Backend(BackendError::Lost { .. }));
            assert!(lost, "{error:?}");
        }
        assert!(!running.is_alive());
        assert!(matches!(running.submit(endless()), Err(Error::Backend(_))));
        drop(running);
        drop(first);

        let again = engine(&opened());
        let mut events = again.submit(endless()).expect("a place");
        assert!(matches!(next(&mut events), Event::Piece { .. }));
    });
}

/// What a model asks for while it loads.
#[test]
fn nothing_can_be_made_on_a_lost_gpu() {
    in_time(|| {
        let device = opened();
        device.lose();
        let error = device.sibling().err().expect("it is lost");
        assert!(matches!(error, BackendError::Lost { .. }), "{error:?}");
    });
}
