//! One model in memory, and the use of it.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use tokio::task::JoinHandle;

use super::Inner;
use super::options::{KeepAlive, LoadRequest, ModelsSettings, RunningModel};
use crate::engine::grammar::Grammars;
use crate::engine::{Constraint, Engine, EngineOptions, Error, Grammar, Reasoning, automatic_ctx};
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;

/// A model in memory.
pub struct Loaded {
    pub id: u64,
    pub request: LoadRequest,
    pub parts: Arc<Parts>,
    pub n_users: usize,
    pub keep_alive: KeepAlive,
    /// When it became idle.
    pub idle_since: (Instant, SystemTime),
    /// Takes no more users, and is unloaded when the last one leaves.
    pub is_expiring: bool,
    pub is_closing: bool,
    pub timer: Option<JoinHandle<()>>,
}

/// What a load makes.
pub struct Parts {
    pub engine: Engine,
    pub tokenizer: Arc<Tokenizer>,
    pub gguf: Arc<Gguf>,
    /// The compiler of grammars; made when the first one is asked for.
    pub grammars: OnceLock<Result<Grammars, Error>>,
}

impl Loaded {
    /// Whether it can serve a request as it is.
    pub fn serves(&self, request: &LoadRequest, settings: &ModelsSettings) -> bool {
        let engine = &self.parts.engine;
        let n_ctx_train = engine.n_ctx_train();
        let options = |request, n_ctx| {
            let options = settings.options(request, n_ctx_train);
            EngineOptions { n_ctx, ..options }.fit(n_ctx_train)
        };
        let n_ctx = settings.n_ctx(request).unwrap_or_else(|| {
            match settings.n_ctx(&self.request) {
                // Memory may have left room for less than it would now.
                None => engine.n_ctx(),
                Some(_) => automatic_ctx(engine.device().memory_bytes, settings.gpu_overhead),
            }
        });
        // What a device made of the options is no reason to load the model again.
        let is_same = options(request, n_ctx) == options(&self.request, engine.n_ctx());
        let (new, old) = (&request.device, &self.request.device);
        self.request.path == request.path
            && self.request.adapters == request.adapters
            && engine.is_alive()
            && is_same
            && (new.num_gpu < 0 || new.num_gpu == old.num_gpu)
            && new.main_gpu == old.main_gpu
            && new.num_thread == old.num_thread
    }

    /// As `/api/ps` lists it.
    pub fn describe(&self) -> RunningModel {
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
            vram_bytes: engine.gpu_bytes(),
            context_length: engine.n_ctx(),
            expires_at: since + self.keep_alive.duration(),
        }
    }
}

/// Use of a loaded model; the keep-alive time begins when the last one is dropped.
pub struct Lease {
    pub(super) id: u64,
    pub(super) parts: Arc<Parts>,
    pub(super) inner: Arc<Inner>,
}

impl Lease {
    /// A second lease of the same model, without waiting: not behind a reload either, which waits for this one.
    pub fn share(&self) -> Lease {
        self.inner.retain(self.id);
        Lease {
            id: self.id,
            parts: Arc::clone(&self.parts),
            inner: Arc::clone(&self.inner),
        }
    }

    /// The model's handle.
    pub fn engine(&self) -> &Engine {
        &self.parts.engine
    }

    /// The file's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.parts.tokenizer
    }

    /// Compiles what an answer must look like. Blocks, for two seconds at most, and a moment more
    /// the first time.
    ///
    /// # Errors
    /// [`Error::Grammar`] names what cannot be compiled.
    pub fn grammar(
        &self,
        constraint: &Constraint,
        reasoning: Option<&Reasoning>,
    ) -> Result<Grammar, Error> {
        let Parts {
            engine, tokenizer, ..
        } = &*self.parts;
        let grammars = self.parts.grammars.get_or_init(|| {
            let vocabulary = Arc::clone(tokenizer);
            let control = move |text: &str| {
                let id = vocabulary.token_id(text);
                id.filter(|&id| vocabulary.is_control(id))
            };
            Grammars::new(&**tokenizer, engine.vocab_size(), control)
        });
        let grammars = grammars.as_ref().map_err(Error::clone)?;
        grammars.compile(constraint, reasoning)
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
