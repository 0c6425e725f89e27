//! A model on its device: weights, cache, and one plan for each phase.

use super::draft::MAX_DRAFT;
use super::placement::{self, Place, Placed};
use super::{EngineOptions, Error};
use crate::backend::{
    Backend, BackendError, Batch, BatchShape, BufferId, CacheSpec, Candidates, DeviceInfo,
    KV_BLOCK, MAX_CANDIDATES, PAGE_TOKENS, Phase, Plan, PreparedId, Sampled, Sampling,
};
use crate::model::{Embedder, Model};

/// What is known of a loaded model outside of its thread.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    pub device: DeviceInfo,
    pub vocab_size: usize,
    pub n_ctx_train: usize,
    /// Bytes of weights, cache and buffers.
    pub memory_bytes: u64,
    /// Those of them on a GPU.
    pub gpu_bytes: u64,
}

/// Fewest tokens in a step of a model that embeds: many short texts.
const EMBEDDING_TOKENS: usize = 512;

/// Most texts in one step.
const EMBEDDING_TEXTS: usize = 128;

/// A loaded model, by what it does.
pub enum Loaded {
    /// It writes texts.
    Generator(Device),
    /// It embeds texts.
    Embedder(Embedder, ModelInfo),
}

/// Loads a model. Returns the options as they were fitted to it: no longer context than it was
/// trained for, no larger batch than the context or than a GPU takes at a time.
///
/// # Errors
/// As [`super::Engine::load`]; [`Error::Canceled`] if `cancelled` says so between two weights.
pub fn load(
    model: &Model,
    place: &mut Place<'_>,
    options: EngineOptions,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Loaded, EngineOptions), Error> {
    let n_ctx_train = model.config().n_ctx_train;
    if options.n_ctx > n_ctx_train {
        let n_ctx = options.n_ctx;
        tracing::warn!(n_ctx, n_ctx_train, "num_ctx is above the trained context");
    }
    let mut options = options.fit(n_ctx_train);
    let mut most = None;
    loop {
        let placed = place(model, &options, most)?;
        options.n_ctx = placed.n_ctx;
        options = options.fit(n_ctx_train);
        let fitted = match placed.backend.device().is_gpu && model.pooling().is_none() {
            true => placement::for_gpu(model, &options),
            false => options,
        };
        let n_gpu_layers = placed
            .n_gpu_layers
            .unwrap_or(model.config().layers.len() + 1);
        let may_shrink = placed.may_shrink && n_gpu_layers > 0;
        let smaller_ctx = placed.smaller_ctx;
        match load_placed(model, placed, fitted, cancelled) {
            Err(error)
                if error.is_memory()
                    && let Some(n_ctx) = smaller_ctx =>
            {
                tracing::warn!("{error}; a context of {n_ctx} tokens is tried");
                options.n_ctx = n_ctx;
            }
            Err(error) if may_shrink && error.is_memory() => {
                tracing::warn!("{error}; fewer layers are tried on the GPU");
                most = Some(n_gpu_layers * 3 / 4);
            }
            loaded => return loaded.map(|loaded| (loaded, fitted)),
        }
    }
}

/// Loads the weights and prepares the model where it was placed.
fn load_placed(
    model: &Model,
    placed: Placed,
    options: EngineOptions,
    cancelled: &dyn Fn() -> bool,
) -> Result<Loaded, Error> {
    let Placed {
        mut backend,
        n_gpu_layers,
        ..
    } = placed;
    for weight in model.weights() {
        if cancelled() {
            return Err(Error::Canceled);
        }
        backend.load(weight).map_err(|e| weight_error(e, model))?;
    }
    let prepared = match model.pooling() {
        None => Device::prepare(model, backend, n_gpu_layers, options).map(Loaded::Generator),
        Some(_) => embedder(model, backend, options),
    };
    prepared.map_err(|e| context_error(e, options, model))
}

fn embedder(
    model: &Model,
    backend: Box<dyn Backend>,
    options: EngineOptions,
) -> Result<Loaded, BackendError> {
    let device = backend.device();
    let n_tokens = options.n_ctx.max(EMBEDDING_TOKENS);
    let embedder = Embedder::prepare(model, backend, options.n_ctx, n_tokens, EMBEDDING_TEXTS)?;
    let memory_bytes = model.weight_bytes() + embedder.memory_bytes();
    let info = ModelInfo {
        gpu_bytes: if device.is_gpu { memory_bytes } else { 0 },
        device,
        vocab_size: model.config().vocab_size,
        n_ctx_train: model.config().n_ctx_train,
        memory_bytes,
    };
    Ok(Loaded::Embedder(embedder, info))
}

/// A loaded model that writes, ready to run steps.
pub struct Device {
    pub info: ModelInfo,
    pub n_pages: usize,
    /// Whether the model has recurrent states besides the cache.
    pub is_recurrent: bool,
    /// Rows of a decode step beside one for each sequence: guessed tokens.
    pub n_draft: usize,
    /// Whether it works beside the host and chooses tokens where it can.
    pub samples: bool,
    backend: Box<dyn Backend>,
    prefill: Prepared,
    decode: Prepared,
    /// Candidates of a step that was done as it began.
    done: Option<Vec<Candidates>>,
}

#[derive(Clone, Copy)]
struct Prepared {
    id: PreparedId,
    logits: BufferId,
}

impl Device {
    fn prepare(
        model: &Model,
        mut backend: Box<dyn Backend>,
        n_gpu_layers: Option<usize>,
        options: EngineOptions,
    ) -> Result<Device, BackendError> {
        let cache = alloc_cache(model, &mut *backend, options)?;
        let n_draft = n_draft(&*backend, model.is_recurrent());
        let n_decode = options.n_parallel + n_draft;
        let shape = |phase, n_tokens, n_outputs| BatchShape {
            phase,
            n_tokens,
            n_outputs,
        };
        let top_k = Some(MAX_CANDIDATES.min(model.config().vocab_size));
        let prefill = shape(Phase::Prefill, options.n_batch, options.n_parallel);
        let prefill = model.plan(options.n_ctx, prefill, top_k);
        let decode = shape(Phase::Decode, n_decode, n_decode);
        let decode = model.plan(options.n_ctx, decode, top_k);
        let plans = [&prefill, &decode];
        let buffer_bytes: u64 = plans.iter().map(|plan| plan.bytes()).sum();
        let split_bytes = n_gpu_layers.map(|n| placement::gpu_bytes(model, &cache, &plans, n));
        let vocab_size = model.config().vocab_size;
        let mut device = Device::new(backend, cache.n_pages, vocab_size, prefill, decode)?;
        let counted = device.backend.memory_bytes();
        let memory_bytes = counted.unwrap_or(model.weight_bytes() + cache.bytes() + buffer_bytes);
        let gpu_bytes = match split_bytes {
            None if device.info.device.is_gpu => memory_bytes,
            None => 0,
            Some(bytes) => bytes,
        };
        device.is_recurrent = model.is_recurrent();
        device.n_draft = n_draft;
        device.info.n_ctx_train = model.config().n_ctx_train;
        device.info.memory_bytes = memory_bytes;
        device.info.gpu_bytes = gpu_bytes;
        Ok(device)
    }

    /// A device whose backend has weights and cache.
    ///
    /// # Errors
    /// The backend's, for a plan that it cannot prepare.
    pub fn new(
        mut backend: Box<dyn Backend>,
        n_pages: usize,
        vocab_size: usize,
        prefill: Plan,
        decode: Plan,
    ) -> Result<Device, BackendError> {
        let mut prepare = |plan: Plan| -> Result<Prepared, BackendError> {
            let logits = *plan.outputs.first().expect("a plan has logits");
            let id = backend.prepare(plan)?;
            Ok(Prepared { id, logits })
        };
        let (prefill, decode) = (prepare(prefill)?, prepare(decode)?);
        Ok(Device {
            info: ModelInfo {
                device: backend.device(),
                vocab_size,
                n_ctx_train: 0,
                memory_bytes: 0,
                gpu_bytes: 0,
            },
            n_pages,
            is_recurrent: false,
            n_draft: 0,
            samples: backend.samples(),
            backend,
            prefill,
            decode,
            done: None,
        })
    }

    fn plan(&self, phase: Phase) -> Prepared {
        match phase {
            Phase::Prefill => self.prefill,
            Phase::Decode => self.decode,
        }
    }

    /// Begins a step; see [`Backend::start`]. A device that does not sample does the step at once.
    ///
    /// # Errors
    /// The backend's.
    pub fn start(
        &mut self,
        batch: &Batch,
        sampling: &[Option<Sampling>],
        follows: bool,
    ) -> Result<(), BackendError> {
        let plan = self.plan(batch.phase).id;
        if self.samples {
            return self.backend.start(plan, batch, sampling, follows);
        }
        self.done = Some(self.backend.run(plan, batch)?);
        Ok(())
    }

    /// What the oldest step that was begun gave for its `n_rows` wanted rows.
    ///
    /// # Errors
    /// The backend's.
    pub fn finish(&mut self, n_rows: usize) -> Result<Vec<Sampled>, BackendError> {
        let rows: Vec<Sampled> = match self.done.take() {
            Some(done) => done.into_iter().map(Sampled::Candidates).collect(),
            None => self.backend.finish()?,
        };
        match rows.len() == n_rows {
            true => Ok(rows),
            false => Err(BackendError::Invalid(format!(
                "results of {} rows for {n_rows} wanted rows",
                rows.len()
            ))),
        }
    }

    /// All logits of a wanted row of the last step, `[vocab_size]`.
    ///
    /// # Errors
    /// The backend's.
    pub fn logits(&mut self, phase: Phase, row: usize) -> Result<Vec<f32>, BackendError> {
        let plan = self.plan(phase);
        let logits = self.backend.read(plan.id, plan.logits, row..row + 1)?;
        if logits.len() != self.info.vocab_size {
            return Err(BackendError::Invalid("logits of another length".into()));
        }
        Ok(logits)
    }

    /// As the backend says.
    pub fn decode_equals_prefill(&self) -> bool {
        self.backend.decode_equals_prefill()
    }
}

/// Guessed tokens that a decode step can check. Several rows of a sequence must give what single
/// steps give, and a recurrent state cannot go back to before a wrong guess.
pub fn n_draft(backend: &dyn Backend, is_recurrent: bool) -> usize {
    match backend.decode_equals_prefill() && !is_recurrent {
        true => MAX_DRAFT,
        false => 0,
    }
}

/// Makes a cache for all sequences at full length; where the device cannot hold that, for fewer,
/// down to one.
fn alloc_cache(
    model: &Model,
    backend: &mut dyn Backend,
    options: EngineOptions,
) -> Result<CacheSpec, BackendError> {
    let (wanted, kv_type) = (options.kv_type, model.kv_type(options.kv_type));
    if kv_type != wanted {
        tracing::warn!(
            "a {} cache needs heads of whole blocks of {KV_BLOCK} numbers, which the model does not \
             have: it is {} instead",
            wanted.name(),
            kv_type.name()
        );
    }
    let least = options.n_ctx.div_ceil(PAGE_TOKENS);
    let mut n_pages = least.saturating_mul(options.n_parallel);
    loop {
        let cache = model.cache_spec(options.kv_type, n_pages, options.n_parallel);
        match backend.alloc_cache(&cache) {
            Ok(()) => return Ok(cache),
            Err(BackendError::OutOfMemory { .. }) if n_pages > least => {
                n_pages = (n_pages / 2).max(least);
                tracing::warn!(
                    n_pages,
                    "not enough memory for all sequences at full length"
                );
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says that it is the weights that do not fit.
fn weight_error(error: BackendError, model: &Model) -> Error {
    match error {
        BackendError::OutOfMemory { device, .. } => Error::WeightMemory {
            device,
            bytes: model.weight_bytes(),
        },
        error => error.into(),
    }
}

/// Names the option that asked for too much.
fn context_error(error: BackendError, options: EngineOptions, model: &Model) -> Error {
    let BackendError::OutOfMemory { device, .. } = error else {
        return error.into();
    };
    let n_pages = options.n_ctx.div_ceil(PAGE_TOKENS);
    Error::ContextMemory {
        device,
        n_ctx: options.n_ctx,
        bytes: model
            .cache_spec(options.kv_type, n_pages, options.n_parallel)
            .bytes(),
    }
}
