//! One load: on a thread that may block, watched by the task that waits for it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::loaded::Parts;
use super::{Inner, LoadRequest};
use crate::engine::placement::Placement;
use crate::engine::{Engine, EngineOptions, Error, open};
use crate::gguf::{self, Gguf, Lora};
use crate::model::{self, Model};

/// How often a load is looked at, in parts of the time for which it may stand still.
const LOOKS: u32 = 16;

/// The turn to load, which the thread has and a task that gives it up can take away.
struct Turn(Mutex<Option<OwnedSemaphorePermit>>);

impl Turn {
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Inner {
    /// Reads the file and loads it on a thread that may block. The turn comes back, or is given up when the thread has
    /// ended, if the caller goes away.
    ///
    /// # Errors
    /// [`Error::Stalled`] as soon as the load stands still for too long; the turn is another's then, since the thread
    /// may never end. [`Error::Stopped`] if it panicked.
    pub(super) async fn load_parts(
        self: &Arc<Self>,
        request: &LoadRequest,
        turn: OwnedSemaphorePermit,
    ) -> Result<(Result<Parts, Error>, OwnedSemaphorePermit), Error> {
        let steps = Arc::new(AtomicUsize::new(0));
        let watched = Arc::downgrade(&steps);
        let turn = Arc::new(Turn(Mutex::new(Some(turn))));
        let task = self.runtime.spawn_blocking({
            let (inner, request, turn) = (Arc::clone(self), request.clone(), Arc::clone(&turn));
            move || {
                let _turn = turn;
                load_parts(&inner, &request, &watched)
            }
        });
        let patience = self.settings.load_timeout;
        tokio::select! {
            done = task => {
                let parts = done.map_err(|e| Error::Stopped(e.to_string()))?;
                Ok((parts, turn.take().expect("nobody else took it")))
            }
            error = stalled(&steps, patience) => {
                let error = self.lock().record_failure(request, error);
                drop(turn.take());
                Err(error)
            }
        }
    }
}

/// Resolves when no step was counted for this long; never without a limit.
async fn stalled(steps: &AtomicUsize, patience: Option<Duration>) -> Error {
    let Some(patience) = patience else {
        return std::future::pending().await;
    };
    let mut last = (steps.load(Ordering::Relaxed), Instant::now());
    loop {
        tokio::time::sleep(patience / LOOKS).await;
        let n = steps.load(Ordering::Relaxed);
        if n != last.0 {
            last = (n, Instant::now());
        } else if last.1.elapsed() >= patience {
            return Error::Stalled { patience };
        }
    }
}

/// Opens file, vocabulary and device, and loads; counts its steps, and gives up when who counts them is gone.
fn load_parts(
    inner: &Inner,
    request: &LoadRequest,
    steps: &Weak<AtomicUsize>,
) -> Result<Parts, Error> {
    let goes_on = || match steps.upgrade() {
        Some(steps) => {
            steps.fetch_add(1, Ordering::Relaxed);
            true
        }
        None => false,
    };
    let problem = |e: gguf::Error| Error::File(format!("the model's file: {}", e.problem()));
    let gguf = Gguf::open(&request.path).map_err(problem)?;
    let gguf = Arc::new(gguf.with_current_names());
    let adapters = request.adapters.iter().map(|path| adapter(path));
    let adapters = adapters.collect::<Result<Vec<Lora>, Error>>()?;
    let (tokenizer, model) = open(&gguf, &adapters, &|| {
        goes_on();
    })?;
    let tokenizer = Arc::new(tokenizer);
    if !goes_on() {
        return Err(Error::Canceled);
    }
    let placement = Placement {
        open: &inner.open_backend,
        request: request.device,
        overhead_bytes: inner.settings.gpu_overhead,
        may_split: inner.lock().loaded.is_empty(),
        automatic_ctx: inner.settings.n_ctx(request).is_none(),
    };
    let mut place =
        |model: &Model, options: &EngineOptions, most| placement.place(model, options, most);
    let vocabulary = Arc::clone(&tokenizer);
    let engine = Engine::load_unless(
        &model,
        vocabulary,
        &mut place,
        inner.settings.options(request, model.config().n_ctx_train),
        &|| !goes_on(),
    )?;
    Ok(Parts {
        engine,
        tokenizer,
        gguf,
        grammars: OnceLock::new(),
    })
}

fn adapter(path: &Path) -> Result<Lora, Error> {
    let gguf = Gguf::open(path).map_err(|e| Error::File(format!("adapter: {}", e.problem())))?;
    let adapter = Lora::new(Arc::new(gguf)).map_err(model::Error::Adapter)?;
    Ok(adapter)
}
