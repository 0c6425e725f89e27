//! What a model asks of a device: load weights, keep a cache, run plans.
//!
//! The model records a [`Plan`]; a [`Backend`] runs it. `cpu` and `gpu` are two readers of one
//! list of operations.

mod batch;
mod builder;
mod experts;
mod low_rank;
mod op;
mod plan;
mod recurrent;
mod rope;
mod sampling;
mod split;
mod storage;
mod streams;
mod weight;

use std::ops::Range;

use thiserror::Error;

pub use batch::{Batch, NO_SLOT, PAGE_TOKENS, Phase, Run, TableRow};
pub use builder::PlanBuilder;
pub use experts::{ExpertProducts, Gating, MAX_EXPERTS, Routing};
pub use low_rank::{LowRank, RowBlock};
pub use op::{Activation, Attention, EmbedRow, Heads, Op, RopeOrder, alibi_slope};
pub use plan::{BatchShape, BufferId, BufferInfo, MAX_RUN, Plan, Rows, View};
pub use recurrent::{DeltaHeads, MAX_DELTA_HEAD, MAX_KERNEL};
pub use rope::{RopeScaling, RopeTable, Temperature};
pub use sampling::{Penalties, Sampled, Sampling};
pub use split::{Piece, Side, SplitBackend, cut, side};
pub use weight::{WeightId, WeightSpec};

/// How many candidates a backend returns for each wanted row, at most.
pub const MAX_CANDIDATES: usize = 128;

/// Why a device could not do what was asked.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum BackendError {
    /// No device answers to the name.
    #[error("device {wanted:?} not found; available: {available}")]
    NoDevice { wanted: String, available: String },
    /// The device lacks something that every plan needs.
    #[error("{device} cannot be used: {what}")]
    Unsuitable { device: String, what: String },
    /// Not enough memory for a weight, the cache or a plan's buffers.
    #[error("not enough memory on {device} for {what} ({bytes} bytes)")]
    OutOfMemory {
        device: String,
        what: String,
        bytes: u64,
    },
    /// The device is gone; the model must be loaded anew.
    #[error("{device} was lost: {what}")]
    Lost { device: String, what: String },
    /// A file lost bytes while weights were read from it: what was computed with them is void.
    #[error("{file} was cut while the model was in use; pull or create the model again")]
    FileCut { file: String },
    /// A variable of the environment says something that is not accepted.
    #[error("{0}")]
    Setting(String),
    /// The plan or batch is not one this backend was prepared for. A bug of ours.
    #[error("invalid plan: {0}")]
    Invalid(String),
}

/// How keys and values are stored: as floats, or in blocks of [`KV_BLOCK`] numbers of a token, each
/// with codes and a half float as in the weights' type of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    F32,
    #[default]
    F16,
    Q8_0,
    Q4_0,
}

/// Numbers in a block of a quantised cache.
pub const KV_BLOCK: usize = 32;

impl KvType {
    /// All types, the most exact first.
    pub const ALL: [KvType; 4] = [KvType::F32, KvType::F16, KvType::Q8_0, KvType::Q4_0];

    /// Such as `q8_0`.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Q8_0 => "q8_0",
            KvType::Q4_0 => "q4_0",
        }
    }

    /// The type of this name, in lower case.
    pub fn from_name(name: &str) -> Option<KvType> {
        KvType::ALL
            .into_iter()
            .find(|kv_type| kv_type.name() == name)
    }

    /// Whether numbers are stored in blocks; heads must then be whole blocks.
    pub fn is_quantised(self) -> bool {
        matches!(self, KvType::Q8_0 | KvType::Q4_0)
    }

    /// Bytes of `n` stored numbers, whole blocks where there are any.
    pub fn bytes(self, n: usize) -> usize {
        match self {
            KvType::F32 => 4 * n,
            KvType::F16 => 2 * n,
            KvType::Q8_0 => n / KV_BLOCK * (2 + KV_BLOCK),
            KvType::Q4_0 => n / KV_BLOCK * (2 + KV_BLOCK / 2),
        }
    }
}

/// What a device keeps of sequences between steps: the paged cache of all layers, and recurrent
/// states. A cache slot is one token's place; slot `page * PAGE_TOKENS + i` is token `i` of a page.
/// A state slot is the place of one sequence's states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheSpec {
    pub kv_type: KvType,
    /// Pages in the pool, the same for all layers.
    pub n_pages: usize,
    /// By layer; zeros for layers without attention.
    pub layers: Vec<KvDims>,
    /// Sequences that may take part in a step, each with its pages and a state slot.
    pub n_sequences: usize,
    /// Recurrent states, by the number that operations give.
    pub states: Vec<StateSpec>,
}

/// Numbers that a layer caches of one token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvDims {
    pub keys: usize,
    pub values: usize,
}

/// A recurrent state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSpec {
    /// The layer that it belongs to.
    pub layer: usize,
    /// Floats for each sequence.
    pub size: usize,
}

impl CacheSpec {
    /// Slots in the pool.
    pub fn n_slots(&self) -> usize {
        self.n_pages * PAGE_TOKENS
    }

    /// Bytes of keys, values and states together.
    pub fn bytes(&self) -> u64 {
        (0..self.layers.len()).map(|i| self.layer_bytes(i)).sum()
    }

    /// Leaves the layers out that `keeps` refuses; layers and states keep their numbers.
    pub fn keep_layers(&mut self, keeps: impl Fn(usize) -> bool) {
        for (layer, dims) in self.layers.iter_mut().enumerate() {
            if !keeps(layer) {
                *dims = KvDims::default();
            }
        }
        for state in &mut self.states {
            if !keeps(state.layer) {
                state.size = 0;
            }
        }
    }

    /// Bytes of one layer's part.
    pub fn layer_bytes(&self, layer: usize) -> u64 {
        let states = self.states.iter().filter(|state| state.layer == layer);
        let floats = states.map(|state| state.size).sum::<usize>() * self.n_sequences;
        let KvDims { keys, values } = self.layers[layer];
        let token = self.kv_type.bytes(keys) + self.kv_type.bytes(values);
        (token * self.n_slots() + 4 * floats) as u64
    }
}

/// What a user sees of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Such as `NVIDIA GeForce RTX 3090` or `CPU (avx512)`.
    pub name: String,
    /// Such as `Vulkan`, `Metal`, `Dx12` or `CPU`.
    pub api: String,
    pub is_gpu: bool,
    /// Memory of a GPU's own, where its driver tells.
    pub memory_bytes: Option<u64>,
}

/// A plan that a backend has made ready to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PreparedId(pub usize);

/// The best next tokens of one wanted row, and what is needed to know their probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// Token ids by falling logit, equal logits by rising id. At most [`MAX_CANDIDATES`].
    pub ids: Vec<u32>,
    /// Their logits.
    pub logits: Vec<f32>,
    /// ln(sum(exp(logit))) over the whole vocabulary.
    pub log_sum_exp: f32,
}

/// One device holding one model. It lives on the model's thread; dropping it frees all memory.
pub trait Backend: Send {
    /// The device behind it.
    fn device(&self) -> DeviceInfo;

    /// Takes the next weight; ids count up from 0 in the order of the calls. The bytes are those
    /// of the mapped file: a backend that shares the host's memory reads them in place.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] where the device cannot hold it.
    fn load(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError>;

    /// Counts a weight that another device has, so that the next one's id is higher by one. Plans
    /// that use it may be refused. A backend that keeps no copies may load it all the same.
    ///
    /// # Errors
    /// As [`Backend::load`].
    fn skip(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError> {
        self.load(weight)
    }

    /// How many of `wanted` bytes can be allocated now, as far as the device tells.
    fn free_bytes(&mut self, wanted: u64) -> u64 {
        wanted
    }

    /// Bytes that weights, cache and plans take, where the device has counted its buffers.
    fn memory_bytes(&self) -> Option<u64> {
        None
    }

    /// Makes the cache, all zero. Called once, before the first `prepare`.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] where the device cannot hold it.
    fn alloc_cache(&mut self, cache: &CacheSpec) -> Result<(), BackendError>;

    /// Makes a plan ready: buffers, pipelines, bind groups.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] for its buffers, [`BackendError::Invalid`] for a plan that
    /// refers to weights or layers that were not loaded.
    fn prepare(&mut self, plan: Plan) -> Result<PreparedId, BackendError>;

    /// Runs one step and waits for it. Returns one entry per wanted row of the batch, in its
    /// order; none where the plan has no `top_k`.
    ///
    /// # Errors
    /// [`BackendError::Lost`] where the device is gone; the backend must then be dropped.
    fn run(&mut self, plan: PreparedId, batch: &Batch) -> Result<Vec<Candidates>, BackendError>;

    /// Whether it chooses tokens itself: whether it has [`Backend::start`] and [`Backend::finish`].
    fn samples(&self) -> bool {
        false
    }

    /// Begins a step without waiting for it. Where `sampling` says how, the device chooses the token
    /// after that wanted row; there is an entry for each. With `follows`, the token of row `i` is
    /// the one that the step before, of the same plan, chose for its wanted row `i`, whatever the
    /// batch says. Two steps may be under way.
    ///
    /// # Errors
    /// As [`Backend::run`]; [`BackendError::Invalid`] for a third step, or where nothing was chosen.
    fn start(
        &mut self,
        plan: PreparedId,
        batch: &Batch,
        sampling: &[Option<Sampling>],
        follows: bool,
    ) -> Result<(), BackendError> {
        let _ = (plan, batch, sampling, follows);
        Err(BackendError::Invalid("the device does not sample".into()))
    }

    /// Waits for the older of the steps under way: one entry per wanted row.
    ///
    /// # Errors
    /// As [`Backend::run`]; [`BackendError::Invalid`] where no step is under way.
    fn finish(&mut self) -> Result<Vec<Sampled>, BackendError> {
        Err(BackendError::Invalid("no step is under way".into()))
    }

    /// Fills an input of a plan, row-major `[n_rows, cols]`, for the next step that runs it.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] for a buffer that is not an input, or with too many numbers.
    fn write(
        &mut self,
        plan: PreparedId,
        buffer: BufferId,
        values: &[f32],
    ) -> Result<(), BackendError>;

    /// Reads rows of a buffer of the last step that ran `plan`, row-major `[rows.len(), cols]`.
    /// For whole logits, embeddings and comparisons of devices. A buffer that is not an output
    /// of the plan holds its values only in plans made with `keep_all`.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] for a buffer or rows that the plan does not have.
    fn read(
        &mut self,
        plan: PreparedId,
        buffer: BufferId,
        rows: Range<usize>,
    ) -> Result<Vec<f32>, BackendError>;

    /// Whether a token's keys, values and logits are bit for bit the same from a decode step and
    /// from prefill. Only then may pages that decode wrote be shared with later prompts.
    fn decode_equals_prefill(&self) -> bool;
}
