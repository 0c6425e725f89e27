//! Which models are loaded: load, keep alive, evict, reload.
//!
//! One load runs at a time, in order of arrival; requests for a model that is loaded as they
//! want it pass by. A model's identity is its weights file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::{Engine, EngineOptions, Error};
use crate::backend::{Backend, BackendError, KvType};
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;

/// Context of requests that name none, where the settings name none either.
const DEFAULT_CTX: usize = 4096;

/// Prompt tokens in one step, where the request names no number.
const DEFAULT_BATCH: usize = 512;

/// Most prompt tokens in one step: more make no step faster, and buffers grow with them.
const MAX_BATCH: usize = 2048;

/// Requests that may wait at a loaded model, at least: Ollama refuses none there.
const MIN_WAITING: usize = 512;

/// `/api/ps` shows this for a model that stays for ever.
const FOREVER: Duration = Duration::from_nanos(i64::MAX as u64);

/// Opens a device for a model.
pub type OpenBackend =
    Arc<dyn Fn(&DeviceRequest) -> Result<Box<dyn Backend>, BackendError> + Send + Sync>;

/// Which device a model is to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRequest {
    /// Layers on the GPU: 0 is the CPU, negative leaves it open.
    pub num_gpu: i64,
    /// Index of the GPU; none leaves it open.
    pub main_gpu: Option<i64>,
    /// Threads of the CPU backend; 0 leaves it open.
    pub num_thread: usize,
}

/// How long an unused model stays loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeepAlive {
    For(Duration),
    Forever,
}

impl KeepAlive {
    fn duration(self) -> Duration {
        match self {
            KeepAlive::For(duration) => duration.min(FOREVER),
            KeepAlive::Forever => FOREVER,
        }
    }
}

/// What the user's settings say about loading.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelsSettings {
    /// Requests that may wait for a load (`OLLAMA_MAX_QUEUE`).
    pub max_queue: usize,
    /// Models loaded at once (`OLLAMA_MAX_LOADED_MODELS`).
    pub max_loaded: usize,
    /// Sequences that run at once, for each model (`OLLAMA_NUM_PARALLEL`).
    pub n_parallel: usize,
    /// For requests that name none (`OLLAMA_KEEP_ALIVE`).
    pub keep_alive: KeepAlive,
    /// Context of requests that name none (`OLLAMA_CONTEXT_LENGTH`).
    pub n_ctx: Option<usize>,
    /// `OLLAMA_KV_CACHE_TYPE`.
    pub kv_type: KvType,
}

impl Default for ModelsSettings {
    fn default() -> ModelsSettings {
        ModelsSettings {
            max_queue: 512,
            max_loaded: 3,
            n_parallel: 1,
            keep_alive: KeepAlive::For(Duration::from_secs(300)),
            n_ctx: None,
            kv_type: KvType::F16,
        }
    }
}

/// The model a request needs, and how it is to be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadRequest {
    /// The weights file: a loaded model's identity.
    pub path: PathBuf,
    /// Under which name it is listed.
    pub name: String,
    /// The manifest's digest.
    pub digest: String,
    pub num_ctx: Option<usize>,
    pub num_batch: Option<usize>,
    pub device: DeviceRequest,
    /// Changes the model's time for good; none leaves it.
    pub keep_alive: Option<KeepAlive>,
}

/// A loaded model as `/api/ps` lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningModel {
    pub name: String,
    pub digest: String,
    pub path: PathBuf,
    /// Bytes of weights, cache and buffers.
    pub size_bytes: u64,
    /// Those of them on a GPU.
    pub vram_bytes: u64,
    pub context_length: usize,
    /// When it is unloaded if nobody uses it.
    pub expires_at: SystemTime,
}

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

/// A model in memory.
struct Loaded {
    id: u64,
    request: LoadRequest,
    parts: Arc<Parts>,
    n_users: usize,
    keep_alive: KeepAlive,
    /// When it became idle.
    idle_since: (Instant, SystemTime),
    /// Takes no more users, and is unloaded when the last one leaves.
    is_expiring: bool,
    is_closing: bool,
    timer: Option<JoinHandle<()>>,
}

/// What a load makes.
struct Parts {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    gguf: Arc<Gguf>,
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
        let is_memory = matches!(
            result,
            Err(Error::ContextMemory { .. } | Error::Backend(BackendError::OutOfMemory { .. }))
        );
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

    /// Reads the file and loads it on a thread that may block. The turn comes back, or is given
    /// up when the thread has ended, if the caller goes away.
    async fn load_parts(
        self: &Arc<Self>,
        request: &LoadRequest,
        turn: OwnedSemaphorePermit,
    ) -> Result<(Result<Parts, Error>, OwnedSemaphorePermit), Error> {
        let caller = Arc::new(());
        let weak = Arc::downgrade(&caller);
        let (inner, request) = (Arc::clone(self), request.clone());
        let task = self
            .runtime
            .spawn_blocking(move || (load_parts(&inner, &request, &weak), turn));
        let done = task.await.map_err(|e| Error::Stopped(e.to_string()));
        drop(caller);
        done
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

/// Opens file, tokenizer and device, and loads; gives up when the caller is gone.
fn load_parts(inner: &Inner, request: &LoadRequest, caller: &Weak<()>) -> Result<Parts, Error> {
    let file = |e: &dyn std::fmt::Display| Error::File(e.to_string());
    let gguf = Arc::new(Gguf::open(&request.path).map_err(|e| file(&e))?);
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf).map_err(|e| file(&e))?);
    let cancelled = || caller.strong_count() == 0;
    if cancelled() {
        return Err(Error::Canceled);
    }
    let backend = (inner.open_backend)(&request.device)?;
    let vocabulary = Arc::clone(&tokenizer);
    let engine = Engine::load_unless(
        &gguf,
        vocabulary,
        backend,
        inner.settings.options(request),
        &cancelled,
    )?;
    Ok(Parts {
        engine,
        tokenizer,
        gguf,
    })
}

impl ModelsSettings {
    fn options(&self, request: &LoadRequest) -> EngineOptions {
        let n_ctx = request.num_ctx.or(self.n_ctx).unwrap_or(DEFAULT_CTX);
        EngineOptions {
            n_ctx,
            n_parallel: self.n_parallel.max(1),
            n_batch: request
                .num_batch
                .unwrap_or(DEFAULT_BATCH)
                .clamp(1, MAX_BATCH),
            n_waiting: self.max_queue.max(MIN_WAITING),
            kv_type: self.kv_type,
        }
    }
}

impl Loaded {
    /// Whether it can serve a request as it is.
    fn serves(&self, request: &LoadRequest, settings: &ModelsSettings) -> bool {
        let engine = &self.parts.engine;
        let wanted = settings.options(request).fit(engine.n_ctx_train());
        let (new, old) = (&request.device, &self.request.device);
        self.request.path == request.path
            && engine.is_alive()
            && wanted == *engine.options()
            && (new.num_gpu < 0 || new.num_gpu == old.num_gpu)
            && new.main_gpu == old.main_gpu
            && new.num_thread == old.num_thread
    }

    fn describe(&self) -> RunningModel {
        let engine = &self.parts.engine;
        let size_bytes = engine.memory_bytes();
        let since = match self.n_users {
            0 => self.idle_since.1,
            _ => SystemTime::now(),
        };
        RunningModel {
            name: self.request.name.clone(),
            digest: self.request.digest.clone(),
            path: self.request.path.clone(),
            size_bytes,
            vram_bytes: if engine.device().is_gpu {
                size_bytes
            } else {
                0
            },
            context_length: engine.n_ctx(),
            expires_at: since + self.keep_alive.duration(),
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
        let same = |r: &LoadRequest| (r.num_ctx, r.num_batch, r.device);
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

/// Use of a loaded model; the keep-alive time begins when the last one is dropped.
pub struct Lease {
    id: u64,
    parts: Arc<Parts>,
    inner: Arc<Inner>,
}

impl Lease {
    /// The model's handle.
    pub fn engine(&self) -> &Engine {
        &self.parts.engine
    }

    /// The file's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.parts.tokenizer
    }

    /// The file.
    pub fn gguf(&self) -> &Arc<Gguf> {
        &self.parts.gguf
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inner.release(self.id);
    }
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
