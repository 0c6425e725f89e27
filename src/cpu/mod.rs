//! The CPU backend: the plan on SIMD, with weights read in place from the mapped file.
//!
//! All arithmetic is fixed per element, whatever the batch, the threads and the instruction set:
//! see `matmul.rs` and `attention.rs`.

mod attention;
mod buffer;
mod cache;
mod experts;
mod format;
mod low_rank;
mod matmul;
mod memory;
mod operation;
mod plan;
mod pool;
mod products;
mod recurrent;
mod route;
mod rowwise;
mod simd;
mod step;
mod streams;
#[cfg(test)]
mod tests;
mod top_k;
mod weight;

use std::ops::Range;
use std::sync::Arc;

use crate::backend::{
    Backend, BackendError, Batch, BufferId, CacheSpec, Candidates, DeviceInfo, KvDims, MAX_RUN,
    Plan, PreparedId, StateSpec, WeightId, WeightSpec,
};
use buffer::Buffer;
use cache::LayerCache;
use low_rank::Update;
pub use memory::available_bytes;
use plan::Prepared;
use pool::{Pool, PoolError};
pub use simd::InstructionSet;

/// A model on the processor. It holds the cache and the activations; weights stay in the file.
pub struct CpuBackend {
    isa: InstructionSet,
    pool: Pool,
    weights: Vec<WeightSpec>,
    /// The first weight of each file.
    firsts: Vec<usize>,
    /// Numbers of the weights that norms and biases use, decoded when a plan first does.
    vectors: Vec<Option<Vec<f32>>>,
    /// The second matrices of low-rank updates, laid out when a plan first uses them.
    updates: Vec<Option<Update>>,
    layers: Vec<LayerCache>,
    n_slots: usize,
    /// Recurrent states by number, `[slots, size]`.
    states: Vec<Buffer>,
    state_specs: Vec<StateSpec>,
    n_sequences: usize,
    plans: Vec<Prepared>,
    /// Storages of the buffers that nobody reads after a step, for all plans.
    scratch: Vec<Buffer>,
    /// Inputs of products that follow each other, where they are rounded or not whole spans.
    changed: [Buffer; MAX_RUN],
}

impl CpuBackend {
    /// A backend with `n_threads`, or as many as the process may use.
    pub fn new(n_threads: Option<usize>) -> CpuBackend {
        CpuBackend::with_isa(InstructionSet::best(), n_threads)
    }

    /// As [`CpuBackend::new`], with an instruction set other than the fastest.
    pub fn with_isa(isa: InstructionSet, n_threads: Option<usize>) -> CpuBackend {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        CpuBackend {
            isa,
            pool: Pool::new(n_threads.unwrap_or_else(available)),
            weights: Vec::new(),
            firsts: Vec::new(),
            vectors: Vec::new(),
            updates: Vec::new(),
            layers: Vec::new(),
            n_slots: 0,
            states: Vec::new(),
            state_specs: Vec::new(),
            n_sequences: 0,
            plans: Vec::new(),
            scratch: Vec::new(),
            changed: Default::default(),
        }
    }

    fn name(&self) -> String {
        format!("CPU ({})", self.isa.name())
    }

    fn out_of_memory(&self, what: &str, bytes: u64) -> BackendError {
        BackendError::OutOfMemory {
            device: self.name(),
            what: what.into(),
            bytes,
        }
    }

    fn pool_error(&self, what: &str, error: PoolError) -> BackendError {
        match error {
            PoolError::OutOfMemory(bytes) => self.out_of_memory(what, bytes),
            PoolError::Panicked(_) => BackendError::Lost {
                device: self.name(),
                what: format!("{what}: {error}"),
            },
        }
    }
}

impl Backend for CpuBackend {
    fn device(&self) -> DeviceInfo {
        DeviceInfo {
            name: self.name(),
            api: "CPU".into(),
            is_gpu: false,
            memory_bytes: None,
        }
    }

    fn load(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError> {
        let is_of = |&first: &usize| Arc::ptr_eq(self.weights[first].file(), weight.file());
        if !self.firsts.iter().any(is_of) {
            self.firsts.push(self.weights.len());
        }
        self.weights.push(weight.clone());
        self.vectors.push(None);
        self.updates.push(None);
        Ok(WeightId(self.weights.len() - 1))
    }

    fn alloc_cache(&mut self, cache: &CacheSpec) -> Result<(), BackendError> {
        let bytes = cache.bytes();
        let error = self.out_of_memory("the key-value cache", bytes);
        if memory::available_bytes().is_some_and(|available| bytes > available) {
            return Err(error);
        }
        let layer = |&dims: &KvDims| LayerCache::new(cache.kv_type, cache.n_pages, dims);
        let layers: Result<_, _> = cache.layers.iter().map(layer).collect();
        self.layers = layers.map_err(|buffer::OutOfMemory| error.clone())?;
        let state = |spec: &StateSpec| {
            let mut state = Buffer::default();
            state
                .grow_floats(spec.size * cache.n_sequences)
                .map(|()| state)
        };
        let states: Result<_, _> = cache.states.iter().map(state).collect();
        self.states = states.map_err(|buffer::OutOfMemory| error)?;
        self.state_specs = cache.states.clone();
        self.n_sequences = cache.n_sequences;
        self.n_slots = cache.n_slots();
        Ok(())
    }

    fn prepare(&mut self, plan: Plan) -> Result<PreparedId, BackendError> {
        self.check_plan(&plan)?;
        self.decode_vectors(&plan);
        self.lay_out_updates(&plan)?;
        self.plans.push(Prepared::new(plan));
        Ok(PreparedId(self.plans.len() - 1))
    }

    fn run(&mut self, plan: PreparedId, batch: &Batch) -> Result<Vec<Candidates>, BackendError> {
        let candidates = self.run_plan(plan, batch)?;
        let mut firsts = self.firsts.iter();
        firsts.try_for_each(|&first| self.weights[first].check_file())?;
        Ok(candidates)
    }

    fn write(
        &mut self,
        plan: PreparedId,
        buffer: BufferId,
        values: &[f32],
    ) -> Result<(), BackendError> {
        let prepared = self.plans.get_mut(plan.0);
        let written = prepared.map_or(Ok(false), |plan| plan.write(buffer, values));
        let bytes = 4 * values.len() as u64;
        match written.map_err(|buffer::OutOfMemory| self.out_of_memory("activations", bytes))? {
            true => Ok(()),
            false => Err(BackendError::Invalid(format!(
                "buffer {} takes no {} numbers",
                buffer.0,
                values.len()
            ))),
        }
    }

    fn read(
        &mut self,
        plan: PreparedId,
        buffer: BufferId,
        rows: Range<usize>,
    ) -> Result<Vec<f32>, BackendError> {
        let prepared = self.plans.get(plan.0);
        let floats = prepared.and_then(|plan| plan.read(buffer, rows.clone()));
        let invalid = || format!("rows {rows:?} of buffer {} cannot be read", buffer.0);
        Ok(floats
            .ok_or_else(|| BackendError::Invalid(invalid()))?
            .to_vec())
    }

    fn decode_equals_prefill(&self) -> bool {
        true
    }
}
