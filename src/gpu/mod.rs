//! The GPU backend: plans as compute passes on Vulkan, Metal and DX12, through wgpu.
//!
//! `prepare` makes buffers, pipelines and bind groups; a step writes the batch, encodes one compute
//! pass, submits it once and reads tokens or candidates back.

mod arithmetic;
mod batch;
mod buffer;
mod cache;
mod device;
mod disk_cache;
mod dispatch;
mod joined;
mod launch;
mod limits;
mod memory;
mod pipelines;
mod prepared;
mod profile;
mod results;
mod shader;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

pub use arithmetic::Arithmetic;
pub use device::{AdapterKind, AdapterSummary, DeviceChoice, Options, adapters};
pub use limits::{AdapterLimits, limits};
pub use profile::{LaunchProfile, MemoryUse, Traffic};

use crate::backend::{
    Backend, BackendError, Batch, BufferId, CacheSpec, Candidates, DeviceInfo, Plan, PreparedId,
    Sampled, Sampling, WeightId, WeightSpec,
};
use buffer::WeightShape;
use cache::Cache;
use device::Device;
use pipelines::Pipelines;
use prepared::Prepared;

/// One model on one GPU.
pub struct GpuBackend {
    device: Arc<Device>,
    weights: Vec<WeightShape>,
    weight_buffers: Vec<Vec<wgpu::Buffer>>,
    cache: Option<Cache>,
    /// Bound where an operand is absent.
    nothing: wgpu::Buffer,
    pipelines: Arc<Mutex<Pipelines>>,
    plans: Vec<Prepared>,
    /// The plan that ran last: only its buffers can be read.
    last_run: Option<PreparedId>,
    /// The plans of the steps under way.
    started: VecDeque<PreparedId>,
}

impl GpuBackend {
    /// Opens the chosen device for one model; what is compiled for it is kept on disk where the
    /// driver hands it out.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] where there is none, [`BackendError::Unsuitable`] where it
    /// lacks what every kernel needs, as [`Arithmetic::from_env`].
    pub fn open(choice: &DeviceChoice) -> Result<GpuBackend, BackendError> {
        let options = Options {
            disk_cache: true,
            arithmetic: Arithmetic::from_env()?,
            ..Options::default()
        };
        Self::open_with(choice, options)
    }

    /// As [`Self::open`], with features turned off or checks turned on.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(choice: &DeviceChoice, options: Options) -> Result<GpuBackend, BackendError> {
        let device = Arc::new(Device::open(choice, options)?);
        Self::on(device, Arc::default())
    }

    /// A backend for another model on the same device, with the pipelines compiled so far. They
    /// share a failure too: where the device is lost, all of them must be dropped.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    pub fn sibling(&self) -> Result<GpuBackend, BackendError> {
        Self::on(Arc::clone(&self.device), Arc::clone(&self.pipelines))
    }

    fn on(
        device: Arc<Device>,
        pipelines: Arc<Mutex<Pipelines>>,
    ) -> Result<GpuBackend, BackendError> {
        Ok(GpuBackend {
            nothing: device.storage("an absent operand", 16)?,
            device,
            weights: Vec::new(),
            weight_buffers: Vec::new(),
            cache: None,
            pipelines,
            plans: Vec::new(),
            last_run: None,
            started: VecDeque::new(),
        })
    }

    /// Ends the device under all models on it, as a driver that fails does: for tests.
    pub fn lose(&self) {
        self.device.lose();
    }

    /// The launches of the last step of a plan; none where it was not prepared.
    pub fn profile(&self, plan: PreparedId) -> Vec<LaunchProfile> {
        self.plans.get(plan.0).map_or(Vec::new(), Prepared::profile)
    }

    /// What crossed between host and device so far, for all models on the device.
    pub fn traffic(&self) -> Traffic {
        self.device.traffic.totals()
    }

    /// Kernels that are compiled on the device, for all models on it.
    pub fn n_pipelines(&self) -> usize {
        let pipelines = self.pipelines.lock();
        pipelines.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Bytes of this model's buffers.
    pub fn memory(&self) -> MemoryUse {
        let sum = |buffers: &mut dyn Iterator<Item = &wgpu::Buffer>| {
            buffers.map(wgpu::Buffer::size).sum()
        };
        MemoryUse {
            weights: sum(&mut self.weight_buffers.iter().flatten()),
            cache: self.cache.as_ref().map_or(0, Cache::bytes),
            plans: self.plans.iter().map(Prepared::bytes).sum(),
            reserved: self.device.reserved_bytes(),
        }
    }
}

impl Backend for GpuBackend {
    fn device(&self) -> DeviceInfo {
        self.device.info()
    }

    fn load(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError> {
        let shape = WeightShape::new(weight, &self.device);
        self.weight_buffers
            .push(self.device.upload(weight, &shape)?);
        weight.check_file()?;
        self.weights.push(shape);
        Ok(WeightId(self.weights.len() - 1))
    }

    fn skip(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError> {
        let mut shape = WeightShape::new(weight, &self.device);
        shape.shards.clear();
        self.weight_buffers.push(Vec::new());
        self.weights.push(shape);
        Ok(WeightId(self.weights.len() - 1))
    }

    fn free_bytes(&mut self, wanted: u64) -> u64 {
        self.device.free_bytes(wanted)
    }

    fn memory_bytes(&self) -> Option<u64> {
        let memory = self.memory();
        Some(memory.weights + memory.cache + memory.plans)
    }

    fn alloc_cache(&mut self, cache: &CacheSpec) -> Result<(), BackendError> {
        self.cache = Some(Cache::new(&self.device, cache)?);
        Ok(())
    }

    fn prepare(&mut self, plan: Plan) -> Result<PreparedId, BackendError> {
        let prepared = Prepared::new(self, plan)?;
        self.plans.push(prepared);
        Ok(PreparedId(self.plans.len() - 1))
    }

    fn run(&mut self, plan: PreparedId, batch: &Batch) -> Result<Vec<Candidates>, BackendError> {
        if !self.started.is_empty() {
            return Err(BackendError::Invalid("another step is under way".into()));
        }
        self.start(plan, batch, &[], false)?;
        let rows = self.finish()?.into_iter().map(|row| match row {
            Sampled::Candidates(best) => best,
            _ => unreachable!("no row says how its token is chosen"),
        });
        Ok(rows.collect())
    }

    fn samples(&self) -> bool {
        true
    }

    fn start(
        &mut self,
        plan: PreparedId,
        batch: &Batch,
        sampling: &[Option<Sampling>],
        follows: bool,
    ) -> Result<(), BackendError> {
        self.device.check()?;
        let cache = self.cache.as_ref().map(|cache| &cache.spec);
        if let Some(cache) = cache.filter(|cache| !cache.states.is_empty()) {
            let checked = batch.check_states(cache.n_sequences);
            checked.map_err(BackendError::Invalid)?;
        }
        let prepared = self.plans.get_mut(plan.0).ok_or_else(unknown_plan)?;
        self.last_run = Some(plan);
        prepared.start(&self.device, batch, sampling, follows, cache)?;
        self.started.push_back(plan);
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Sampled>, BackendError> {
        let nothing = || BackendError::Invalid("no step is under way".into());
        let plan = self.started.pop_front().ok_or_else(nothing)?;
        let prepared = self.plans.get_mut(plan.0).ok_or_else(unknown_plan)?;
        prepared.finish(&self.device)
    }

    fn write(
        &mut self,
        plan: PreparedId,
        buffer: BufferId,
        values: &[f32],
    ) -> Result<(), BackendError> {
        let prepared = self.plans.get(plan.0).ok_or_else(unknown_plan)?;
        prepared.write(&self.device, buffer, values)
    }

    fn read(
        &mut self,
        plan: PreparedId,
        buffer: BufferId,
        rows: Range<usize>,
    ) -> Result<Vec<f32>, BackendError> {
        if self.last_run != Some(plan) {
            return Err(BackendError::Invalid("the plan did not run last".into()));
        }
        let prepared = self.plans.get(plan.0).ok_or_else(unknown_plan)?;
        prepared.read(&self.device, buffer, rows)
    }

    /// Prompts and single tokens go through kernels that add in different orders.
    fn decode_equals_prefill(&self) -> bool {
        false
    }
}

fn unknown_plan() -> BackendError {
    BackendError::Invalid("the plan was not prepared".into())
}
