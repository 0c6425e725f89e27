//! Which models are loaded: load, keep alive, evict, reload.
//!
//! One load runs at a time, in order of arrival; requests for a model that is loaded as they
//! want it pass by. A model's identity is its weights file; with other adapters it is loaded anew.

mod loaded;
mod loading;
mod options;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Error;
use super::memory;
use loaded::{Loaded, Parts};

pub use loaded::Lease;
pub use options::{
    DeviceRequest, KeepAlive, LoadRequest, ModelsSettings, OpenBackend, RunningModel,
};

/// All loaded models; cheap to clone.
#[derive(Clone)]
pub struct Models {
    inner: Arc<Inner>,
}

struct Inner {
    open_backend: OpenBackend,
    settings: ModelsSettings,
    state: Mutex<State>,
    /// A model is gone.
    gone: Notify,
    /// Whose turn it is to load.
    turn: Arc<Semaphore>,
    runtime: Handle,
}

#[derive(Default)]
struct State {
    loaded: Vec<Loaded>,
    n_waiting: usize,
    next_id: u64,
    /// Counts failed loads; a caller remembers what it was when it came.
    n_failures: u64,
    /// How the last load of a file failed, and the number of that failure.
    failures: HashMap<PathBuf, (u64, LoadRequest, Error)>,
    is_shut_down: bool,
}

impl Models {
    /// No model loaded. Must be called inside a tokio runtime, which runs the timers.
    pub fn new(open_backend: OpenBackend, settings: ModelsSettings) -> Models {
        Models {
            inner: Arc::new(Inner {
                open_backend,
                settings,
                state: Mutex::default(),
                gone: Notify::new(),
                turn: Arc::new(Semaphore::new(1)),
                runtime: Handle::current(),
            }),
        }
    }

    /// The loaded model, after loading it if need be. The model stays loaded while the lease
    /// lives. A caller that goes away while waiting leaves the queue or aborts the load.
    ///
    /// # Errors
    /// [`Error::Busy`] where the queue is full, or why the load failed.
    pub async fn acquire(&self, request: &LoadRequest) -> Result<Lease, Error> {
        if let Some(lease) = self.inner.lease(request)? {
            return Ok(lease);
        }
        let n_failures = self.inner.lock().n_failures;
        let turn = self.inner.wait_for_turn().await?;
        if let Some(lease) = self.inner.lease(request)? {
            return Ok(lease);
        }
        if let Some(error) = self.inner.lock().failure_since(n_failures, request) {
            return Err(error);
        }
        self.load(request, turn).await
    }

    async fn load(
        &self,
        request: &LoadRequest,
        turn: OwnedSemaphorePermit,
    ) -> Result<Lease, Error> {
        let inner = &self.inner;
        inner.make_room(request).await;
        let (mut result, mut turn) = inner.load_parts(request, turn).await?;
        let is_memory = result.as_ref().is_err_and(Error::is_memory);
        if is_memory && !inner.lock().loaded.is_empty() {
            inner
                .unload_while(|state| state.loaded.first().map(|l| l.id))
                .await;
            (result, turn) = inner.load_parts(request, turn).await?;
        }
        let lease = match result {
            Ok(parts) => inner.insert(request, parts),
            Err(error) => Err(inner.lock().record_failure(request, error)),
        };
        drop(turn);
        lease
    }

    /// Unloads a model as soon as it is idle. Nothing happens if it is not loaded.
    pub fn unload(&self, path: &Path) {
        let mut state = self.inner.lock();
        let state = &mut *state;
        for loaded in state.loaded.iter_mut().filter(|l| l.request.path == path) {
            loaded.keep_alive = KeepAlive::For(Duration::ZERO);
            if loaded.n_users == 0 {
                self.inner.close(loaded);
            }
        }
    }

    /// The loaded models, the one that stays longest first.
    pub fn running(&self) -> Vec<RunningModel> {
        let state = self.inner.lock();
        let shown = state.loaded.iter().filter(|l| !l.is_closing);
        let mut running: Vec<RunningModel> = shown.map(Loaded::describe).collect();
        running.sort_by_key(|model| std::cmp::Reverse(model.expires_at));
        running
    }

    /// Fails all requests, unloads all models, and waits until their threads have ended.
    pub async fn shutdown(&self) {
        self.inner.lock().is_shut_down = true;
        self.inner.turn.close();
        loop {
            let gone = self.inner.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            {
                let mut state = self.inner.lock();
                state.loaded.iter_mut().for_each(|l| self.inner.close(l));
                if state.loaded.is_empty() {
                    return;
                }
            }
            gone.await;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease of a model that is loaded as the request wants it.
    fn lease(self: &Arc<Self>, request: &LoadRequest) -> Result<Option<Lease>, Error> {
        let mut state = self.lock();
        if state.is_shut_down {
            return Err(Error::ShuttingDown);
        }
        let fits = |l: &&mut Loaded| !l.is_expiring && l.serves(request, &self.settings);
        let Some(loaded) = state.loaded.iter_mut().find(fits) else {
            return Ok(None);
        };
        if let Some(keep_alive) = request.keep_alive {
            loaded.keep_alive = keep_alive;
        }
        loaded.n_users += 1;
        if let Some(timer) = loaded.timer.take() {
            timer.abort();
        }
        Ok(Some(Lease {
            id: loaded.id,
            parts: Arc::clone(&loaded.parts),
            inner: Arc::clone(self),
        }))
    }

    /// Waits in the queue, if there is room in it.
    async fn wait_for_turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(turn) = Arc::clone(&self.turn).try_acquire_owned() {
            return Ok(turn);
        }
        let _place = Place::take(self)?;
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        turn.map_err(|_| Error::ShuttingDown)
    }

    /// Unloads the same file with other options, and others while there are too many.
    async fn make_room(self: &Arc<Self>, request: &LoadRequest) {
        let most = self.settings.max_loaded.max(1);
        self.unload_while(|state| {
            let same = state.loaded.iter().find(|l| l.request.path == request.path);
            let victim = || {
                (state.loaded.len() >= most)
                    .then(|| state.victim())
                    .flatten()
            };
            same.map(|l| l.id).or_else(victim)
        })
        .await;
    }

    /// Unloads what `next` names until it names nothing, waiting for users to leave.
    async fn unload_while(self: &Arc<Self>, next: impl Fn(&State) -> Option<u64>) {
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            {
                let mut state = self.lock();
                let Some(id) = next(&state) else { return };
                let loaded = state.loaded.iter_mut().find(|l| l.id == id);
                let loaded = loaded.expect("named from the list");
                loaded.is_expiring = true;
                if loaded.n_users == 0 {
                    self.close(loaded);
                }
            }
            gone.await;
        }
    }

    /// Takes a loaded model into the list.
    fn insert(self: &Arc<Self>, request: &LoadRequest, parts: Parts) -> Result<Lease, Error> {
        let mut state = self.lock();
        if state.is_shut_down {
            return Err(Error::ShuttingDown);
        }
        let id = state.next_id;
        state.next_id += 1;
        let parts = Arc::new(parts);
        state.loaded.push(Loaded {
            id,
            request: request.clone(),
            parts: Arc::clone(&parts),
            n_users: 1,
            keep_alive: request.keep_alive.unwrap_or(self.settings.keep_alive),
            idle_since: (Instant::now(), SystemTime::now()),
            is_expiring: false,
            is_closing: false,
            timer: None,
        });
        Ok(Lease {
            id,
            parts,
            inner: Arc::clone(self),
        })
    }

    /// A user of a model that has one came.
    fn retain(&self, id: u64) {
        let mut state = self.lock();
        let loaded = state.loaded.iter_mut().find(|l| l.id == id);
        loaded.expect("a model that is used stays loaded").n_users += 1;
    }

    /// A user left.
    fn release(self: &Arc<Self>, id: u64) {
        let mut state = self.lock();
        let Some(loaded) = state.loaded.iter_mut().find(|l| l.id == id) else {
            return;
        };
        loaded.n_users -= 1;
        if loaded.n_users > 0 {
            return;
        }
        memory::give_back_soon(&self.runtime);
        loaded.idle_since = (Instant::now(), SystemTime::now());
        let duration = loaded.keep_alive.duration();
        if loaded.is_expiring || duration.is_zero() || !loaded.parts.engine.is_alive() {
            self.close(loaded);
        } else if loaded.keep_alive != KeepAlive::Forever {
            let inner = Arc::downgrade(self);
            loaded.timer = Some(self.runtime.spawn(expire(inner, id, duration)));
        }
    }

    /// Ends the model's thread and then takes it off the list.
    fn close(self: &Arc<Self>, loaded: &mut Loaded) {
        if std::mem::replace(&mut loaded.is_closing, true) {
            return;
        }
        loaded.is_expiring = true;
        let (inner, parts, id) = (Arc::clone(self), Arc::clone(&loaded.parts), loaded.id);
        self.runtime.spawn_blocking(move || {
            parts.engine.close();
            drop(parts);
            inner.lock().loaded.retain(|l| l.id != id);
            memory::give_back();
            inner.gone.notify_waiters();
        });
    }
}

/// Unloads a model that has been idle for its time.
async fn expire(inner: Weak<Inner>, id: u64, duration: Duration) {
    tokio::time::sleep(duration).await;
    let Some(inner) = inner.upgrade() else { return };
    let mut state = inner.lock();
    let loaded = state.loaded.iter_mut().find(|l| l.id == id);
    if let Some(loaded) = loaded.filter(|l| l.n_users == 0) {
        // An earlier timer may be late: it must not count for a later idle time.
        if loaded.idle_since.0.elapsed() >= duration {
            inner.close(loaded);
        }
    }
}

impl State {
    /// Which model has to go: one that is going, else the idle one of the shortest time, else
    /// the busy one of the shortest time.
    fn victim(&self) -> Option<u64> {
        let order = |l: &&Loaded| {
            let going = !(l.is_closing || l.is_expiring);
            (going, l.n_users > 0, l.keep_alive, l.request.path.clone())
        };
        self.loaded.iter().min_by_key(order).map(|l| l.id)
    }

    /// How the same load failed while the caller waited for its turn.
    fn failure_since(&self, n_failures: u64, request: &LoadRequest) -> Option<Error> {
        let (n, failed, error) = self.failures.get(&request.path)?;
        let same = |r: &LoadRequest| (r.num_ctx, r.num_batch, r.device, r.adapters.clone());
        (*n > n_failures && same(failed) == same(request)).then(|| error.clone())
    }

    /// Keeps a failure for those who wait for the same load; nobody else needs it.
    fn record_failure(&mut self, request: &LoadRequest, error: Error) -> Error {
        self.n_failures += 1;
        if self.n_waiting == 0 {
            self.failures.clear();
        } else {
            let failure = (self.n_failures, request.clone(), error.clone());
            self.failures.insert(request.path.clone(), failure);
        }
        error
    }
}

/// A place in the queue, given back when dropped.
struct Place<'a> {
    inner: &'a Inner,
}

impl<'a> Place<'a> {
    fn take(inner: &'a Inner) -> Result<Place<'a>, Error> {
        let mut state = inner.lock();
        if state.n_waiting >= inner.settings.max_queue {
            return Err(Error::Busy);
        }
        state.n_waiting += 1;
        Ok(Place { inner })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.inner.lock().n_waiting -= 1;
    }
}

#[cfg(test)]
mod tests;
