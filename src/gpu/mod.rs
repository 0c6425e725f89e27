//! The GPU backend: plans as compute passes on Vulkan, Metal and DX12, through wgpu.
//!
//! `prepare` makes buffers, pipelines and bind groups; a step writes the batch, encodes one compute
//! pass, submits it once and reads the candidates back.

mod batch;
mod buffer;
mod device;
mod dispatch;
mod launch;
mod prepared;
mod shader;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use device::{AdapterKind, AdapterSummary, DeviceChoice, Options, adapters};

use crate::backend::{
    Backend, BackendError, Batch, BufferId, CacheSpec, Candidates, DeviceInfo, KvDims, Plan,
    PreparedId, WeightId, WeightSpec,
};
use buffer::WeightShape;
use device::Device;
use launch::Binding;
use prepared::Prepared;

/// One model on one GPU.
pub struct GpuBackend {
    device: Device,
    weights: Vec<WeightShape>,
    weight_buffers: Vec<Vec<wgpu::Buffer>>,
    cache: Option<Cache>,
    /// Bound where an operand is absent.
    nothing: wgpu::Buffer,
    pipelines: Pipelines,
    plans: Vec<Prepared>,
    /// The plan that ran last: only its buffers can be read.
    last_run: Option<PreparedId>,
}

/// Keys and values by layer.
struct Cache {
    spec: CacheSpec,
    keys: Vec<wgpu::Buffer>,
    values: Vec<wgpu::Buffer>,
    /// Recurrent states by number.
    states: Vec<wgpu::Buffer>,
}

/// Pipelines by their text, and layouts by which bindings are written.
#[derive(Default)]
struct Pipelines {
    pipelines: HashMap<String, wgpu::ComputePipeline>,
    layouts: HashMap<Vec<bool>, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>,
}

impl Pipelines {
    fn layout(
        &mut self,
        device: &wgpu::Device,
        bindings: &[Binding],
    ) -> &(wgpu::BindGroupLayout, wgpu::PipelineLayout) {
        let key = bindings.iter().map(|b| b.writes).collect();
        self.layouts
            .entry(key)
            .or_insert_with(|| layout(device, bindings))
    }
}

fn layout(
    device: &wgpu::Device,
    bindings: &[Binding],
) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
    let entries: Vec<_> = bindings
        .iter()
        .enumerate()
        .map(|(i, binding)| wgpu::BindGroupLayoutEntry {
            binding: i as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage {
                    read_only: !binding.writes,
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &entries,
    });
    let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    (group, pipeline)
}

impl GpuBackend {
    /// Opens the chosen device for one model.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] where there is none, [`BackendError::Unsuitable`] where it
    /// lacks what every kernel needs.
    pub fn open(choice: &DeviceChoice) -> Result<GpuBackend, BackendError> {
        Self::open_with(choice, Options::default())
    }

    /// As [`Self::open`], with features turned off or checks turned on.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(choice: &DeviceChoice, options: Options) -> Result<GpuBackend, BackendError> {
        let device = Device::open(choice, options)?;
        Ok(GpuBackend {
            nothing: device.storage("an absent operand", 16)?,
            device,
            weights: Vec::new(),
            weight_buffers: Vec::new(),
            cache: None,
            pipelines: Pipelines::default(),
            plans: Vec::new(),
            last_run: None,
        })
    }

    /// Kernel launches of a prepared plan, at most: what a step costs besides its arithmetic.
    pub fn n_launches(&self, plan: PreparedId) -> Option<usize> {
        Some(self.plans.get(plan.0)?.n_launches())
    }
}

impl Backend for GpuBackend {
    fn device(&self) -> DeviceInfo {
        self.device.info()
    }

    fn load(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError> {
        let binding_bytes = self.device.limits.max_storage_buffer_binding_size;
        let shape = WeightShape::new(weight, binding_bytes);
        self.weight_buffers
            .push(self.device.upload(weight, &shape)?);
        self.weights.push(shape);
        Ok(WeightId(self.weights.len() - 1))
    }

    fn skip(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError> {
        let binding_bytes = self.device.limits.max_storage_buffer_binding_size;
        let mut shape = WeightShape::new(weight, binding_bytes);
        shape.shards.clear();
        self.weight_buffers.push(Vec::new());
        self.weights.push(shape);
        Ok(WeightId(self.weights.len() - 1))
    }

    fn free_bytes(&mut self, wanted: u64) -> u64 {
        self.device.free_bytes(wanted)
    }

    fn alloc_cache(&mut self, cache: &CacheSpec) -> Result<(), BackendError> {
        let layers = |what: &str, dim: fn(&KvDims) -> usize| -> Result<Vec<_>, BackendError> {
            let bytes = |dims| {
                let token = dispatch::cached_bytes(cache.kv_type, dim(dims));
                (token * cache.n_slots()) as u64
            };
            let layers = cache.layers.iter();
            layers
                .map(|dims| self.device.storage(what, bytes(dims)))
                .collect()
        };
        let states = cache.states.iter().map(|state| {
            let bytes = (4 * state.size * cache.n_state_slots) as u64;
            self.device.storage("the recurrent states", bytes)
        });
        self.cache = Some(Cache {
            states: states.collect::<Result<_, _>>()?,
            keys: layers("the cache's keys", |dims| dims.keys)?,
            values: layers("the cache's values", |dims| dims.values)?,
            spec: cache.clone(),
        });
        Ok(())
    }

    fn prepare(&mut self, plan: Plan) -> Result<PreparedId, BackendError> {
        let prepared = Prepared::new(self, plan)?;
        self.plans.push(prepared);
        Ok(PreparedId(self.plans.len() - 1))
    }

    fn run(&mut self, plan: PreparedId, batch: &Batch) -> Result<Vec<Candidates>, BackendError> {
        self.device.check()?;
        if let Some(cache) = self.cache.as_ref().filter(|c| !c.states.is_empty()) {
            let checked = batch.check_states(cache.spec.n_state_slots);
            checked.map_err(BackendError::Invalid)?;
        }
        let n_slots = self.cache.as_ref().map_or(0, |c| c.spec.n_slots());
        let prepared = self.plans.get_mut(plan.0).ok_or_else(unknown_plan)?;
        self.last_run = Some(plan);
        prepared.run(&self.device, batch, n_slots)
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
        n_rows: usize,
    ) -> Result<Vec<f32>, BackendError> {
        if self.last_run != Some(plan) {
            return Err(BackendError::Invalid("the plan did not run last".into()));
        }
        let prepared = self.plans.get(plan.0).ok_or_else(unknown_plan)?;
        prepared.read(&self.device, buffer, n_rows)
    }

    /// Prompts and single tokens go through kernels that add in different orders.
    fn decode_equals_prefill(&self) -> bool {
        false
    }
}

fn unknown_plan() -> BackendError {
    BackendError::Invalid("the plan was not prepared".into())
}
