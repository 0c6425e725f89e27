//! What decides how a model is loaded, and for how long.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::backend::{Backend, BackendError, KvType};
use crate::engine::EngineOptions;
use crate::engine::context::MOST_CTX;

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
    /// Layers on the GPU, one more than there are for all that is outside of them too: 0 is the CPU, negative leaves
    /// it open.
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
    /// Bounded, so that it can be added to the present time.
    pub(super) fn duration(self) -> Duration {
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
    /// Context of requests that name none (`OLLAMA_CONTEXT_LENGTH`); none is automatic.
    pub n_ctx: Option<usize>,
    /// How long a load may make no progress (`OLLAMA_LOAD_TIMEOUT`); none is for ever.
    pub load_timeout: Option<Duration>,
    /// `OLLAMA_KV_CACHE_TYPE`.
    pub kv_type: KvType,
    /// Bytes of a GPU to leave free (`OLLAMA_GPU_OVERHEAD`).
    pub gpu_overhead: u64,
}

impl Default for ModelsSettings {
    fn default() -> ModelsSettings {
        ModelsSettings {
            max_queue: 512,
            max_loaded: 3,
            n_parallel: 1,
            keep_alive: KeepAlive::For(Duration::from_secs(300)),
            n_ctx: None,
            load_timeout: Some(Duration::from_secs(300)),
            kv_type: KvType::F16,
            gpu_overhead: 0,
        }
    }
}

/// The model a request needs, and how it is to be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadRequest {
    /// The weights file: a loaded model's identity.
    pub path: PathBuf,
    /// LoRA adapters, in their order.
    pub adapters: Vec<PathBuf>,
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

impl ModelsSettings {
    /// The context that the request or the settings name; else it is automatic.
    pub(super) fn n_ctx(&self, request: &LoadRequest) -> Option<usize> {
        request.num_ctx.or(self.n_ctx)
    }

    /// How the engine is to load a model of this trained context. Of an automatic context it is the longest that may be
    /// tried.
    pub(super) fn options(&self, request: &LoadRequest, n_ctx_train: usize) -> EngineOptions {
        let longest = MOST_CTX.min(n_ctx_train);
        EngineOptions {
            n_ctx: self.n_ctx(request).unwrap_or(longest),
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
