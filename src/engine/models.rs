//! Which models are loaded: load, keep alive, evict, reload.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Engine, Error};
use crate::backend::{Backend, BackendError, KvType};
use crate::gguf::Gguf;

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
    settings: Arc<ModelsSettings>,
}

impl Models {
    /// No model loaded. Must be called inside a tokio runtime, which runs the timers.
    pub fn new(open_backend: OpenBackend, settings: ModelsSettings) -> Models {
        let _ = open_backend;
        Models {
            settings: Arc::new(settings),
        }
    }

    /// The loaded model, after loading it if need be. The model stays loaded while the lease
    /// lives. A caller that goes away while waiting leaves the queue or aborts the load.
    ///
    /// # Errors
    /// [`Error::Busy`] where the queue is full, or why the load failed.
    pub async fn acquire(&self, request: &LoadRequest) -> Result<Lease, Error> {
        let _ = (request, &self.settings);
        todo!()
    }

    /// Unloads a model as soon as it is idle. Nothing happens if it is not loaded.
    pub fn unload(&self, path: &Path) {
        let _ = path;
        todo!()
    }

    /// The loaded models, the one that stays longest first.
    pub fn running(&self) -> Vec<RunningModel> {
        todo!()
    }

    /// Fails all requests, unloads all models, and waits until their threads have ended.
    pub async fn shutdown(&self) {
        todo!()
    }
}

/// Use of a loaded model; the keep-alive time begins when the last one is dropped.
pub struct Lease {
    engine: Engine,
    gguf: Arc<Gguf>,
}

impl Lease {
    /// The model's handle.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The file.
    pub fn gguf(&self) -> &Arc<Gguf> {
        &self.gguf
    }
}
