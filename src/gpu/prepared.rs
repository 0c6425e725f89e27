//! A plan made ready: its buffers, its launches with pipelines and bind groups, and running them.

use std::ops::Range;
use std::sync::PoisonError;

use super::GpuBackend;
use super::batch::{self, Counts, HEADER_WORDS, MAX_ROPE_TABLES};
use super::cache::Cache;
use super::device::Device;
use super::dispatch::{self, Dispatch, Program};
use super::launch::{Extent, Launch, Slot};
use super::profile::LaunchProfile;
use super::results::Results;
use crate::backend::{
    BackendError, Batch, BufferId, CacheSpec, EmbedRow, PAGE_TOKENS, Phase, Plan, Sampled,
    Sampling, WeightId,
};

/// Rows along an axis of a grid, at most.
const MAX_ROWS: usize = 65535;

/// A plan with everything that a step needs.
pub(super) struct Prepared {
    plan: Plan,
    n_vocab: usize,
    /// Positions that the plan has learned rows for.
    n_positions: usize,
    tile_rows: usize,
    launches: Vec<Ready>,
    storages: Vec<wgpu::Buffer>,
    batch: wgpu::Buffer,
    words: Vec<u32>,
    results: Option<Results>,
    /// Bytes of all buffers.
    bytes: u64,
    /// The sizes of the last step.
    counts: Counts,
}

/// A dispatch that only has to be encoded.
struct Ready {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [Extent; 3],
    /// What stands side by side in it.
    members: Vec<Member>,
}

/// A launch, for the profile.
struct Member {
    kernel: &'static str,
    /// The op that it begins with.
    op: usize,
    grid: [Extent; 3],
    /// Bytes of weights that it reads for each workgroup along the axis of rows.
    weight_bytes: u64,
}

impl Prepared {
    /// Makes buffers, pipelines and bind groups.
    pub fn new(backend: &GpuBackend, plan: Plan) -> Result<Prepared, BackendError> {
        let invalid = |what: String| BackendError::Invalid(what);
        if plan.rope_tables.len() > MAX_ROPE_TABLES || plan.shape.n_tokens > MAX_ROWS {
            return Err(invalid(
                "more rope tables or tokens than a step takes".into(),
            ));
        }
        let cache = backend.cache.as_ref().map(|c| &c.spec);
        let program = dispatch::program(&Dispatch {
            plan: &plan,
            weights: &backend.weights,
            cache,
            tuning: backend.device.tuning,
        })
        .map_err(invalid)?;
        let device = &backend.device;
        let memory = Memory {
            storages: device.all(
                "a plan's buffers",
                plan.storage_sizes().iter().map(|n| 4 * *n as u64),
            )?,
            scratch: device.all("a plan's scratch", program.scratch.iter().copied())?,
            batch: device.storage("a batch", batch::max_bytes(&plan, cache))?,
        };
        let launches = ready(backend, &memory, &program)?;
        let results = program
            .top_k
            .map(|shape| Results::new(device, &plan, shape, &memory.scratch));
        let results = results.transpose()?;
        let owned = memory.storages.iter().chain(&memory.scratch);
        let owned = owned.chain([&memory.batch]).map(wgpu::Buffer::size);
        let owned = owned.chain(results.as_ref().map(Results::bytes));
        let n_rows = |weight: WeightId| backend.weights[weight.0].rows;
        Ok(Prepared {
            n_vocab: plan.n_embed_rows(EmbedRow::Token, n_rows),
            n_positions: plan.n_embed_rows(EmbedRow::Position, n_rows),
            tile_rows: dispatch::tile_rows(&plan),
            launches,
            bytes: owned.sum(),
            results,
            counts: Counts::default(),
            storages: memory.storages,
            batch: memory.batch,
            words: Vec::new(),
            plan,
        })
    }

    /// Bytes of the plan's buffers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The launches of the last step.
    pub fn profile(&self) -> Vec<LaunchProfile> {
        let done = self.launches.iter().map(|launch| {
            let kernels: Vec<_> = launch.members.iter().map(|m| m.kernel).collect();
            let weight_bytes = launch.members.iter().map(|m| m.weight_bytes(&self.counts));
            let grid = launch.grid.iter().map(|extent| extent.of(&self.counts));
            LaunchProfile {
                label: self.plan.labels[launch.members[0].op].clone(),
                kernel: kernels.join("+"),
                workgroups: grid.map(u64::from).product(),
                weight_bytes: weight_bytes.sum(),
            }
        });
        done.filter(|launch| launch.workgroups > 0).collect()
    }

    /// Begins a step: writes the batch and submits one pass.
    pub fn start(
        &mut self,
        device: &Device,
        batch: &Batch,
        sampling: &[Option<Sampling>],
        follows: bool,
        cache: Option<&CacheSpec>,
    ) -> Result<(), BackendError> {
        self.check(batch, cache)?;
        match &self.results {
            Some(results) => results.check(batch, sampling, follows)?,
            None if follows || !sampling.is_empty() => {
                return Err(BackendError::Invalid("the plan chooses no tokens".into()));
            }
            None => {}
        }
        self.counts = batch::write(
            &self.plan,
            batch,
            sampling,
            self.tile_rows,
            cache.is_some_and(|cache| cache.n_pages > 0),
            &mut self.words,
        );
        let words = bytemuck::cast_slice(&self.words);
        device.write(&self.batch, 0, words);
        let mut encoder = device
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        if let Some(results) = self.results.as_ref().filter(|_| follows) {
            results.copy_chosen(&mut encoder, &self.batch, HEADER_WORDS);
        }
        self.encode(&mut encoder);
        let results = self.results.as_ref();
        let started = results.map(|results| results.copy(&mut encoder, batch, sampling));
        let submission = device.submit(Some(encoder.finish()));
        if let (Some(results), Some(started)) = (&mut self.results, started) {
            results.submitted(started, submission);
        }
        Ok(())
    }

    /// Waits for the oldest step that was started; one entry per wanted row.
    pub fn finish(&mut self, device: &Device) -> Result<Vec<Sampled>, BackendError> {
        match &mut self.results {
            Some(results) => results.read(device),
            None => device.wait().map(|()| Vec::new()),
        }
    }

    fn check(&self, batch: &Batch, cache: Option<&CacheSpec>) -> Result<(), BackendError> {
        let shape = self.plan.shape;
        let invalid = |what: String| Err(BackendError::Invalid(what));
        if batch.phase != shape.phase
            || batch.n_tokens() > shape.n_tokens
            || batch.outputs.len() > shape.n_outputs
        {
            return invalid(format!(
                "the batch of {} tokens and {} outputs does not fit {shape:?}",
                batch.n_tokens(),
                batch.outputs.len()
            ));
        }
        if let Some(cache) = cache
            && batch.runs().count() > cache.n_sequences
        {
            return invalid(format!(
                "a batch of {} sequences; the cache is for {}",
                batch.runs().count(),
                cache.n_sequences
            ));
        }
        // A workgroup writes the key of its row while others attend: to see it, a row must be alone in its sequence.
        let mut pairs = batch.sequences.windows(2);
        if batch.phase == Phase::Decode && pairs.any(|pair| pair[0] == pair[1]) {
            return invalid("a step of single tokens has two of one sequence".into());
        }
        // Without a cache there are no slots, and nothing reads the pages that a batch may name.
        let n_pages = match cache.map_or(0, |cache| cache.n_pages) {
            0 => {
                let named = batch.tables.iter().flatten().max();
                named.map_or(0, |&page| page as usize + 1)
            }
            n => n,
        };
        if self.plan.needs_whole_sequences() {
            batch.check_whole().or_else(invalid)?;
        }
        batch
            .check(self.n_vocab, self.n_positions, n_pages * PAGE_TOKENS)
            .or_else(invalid)
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: None,
        });
        for launch in &self.launches {
            let [x, y, z] = launch.grid.map(|extent| extent.of(&self.counts));
            if x > 0 && y > 0 && z > 0 {
                pass.set_pipeline(&launch.pipeline);
                pass.set_bind_group(0, &launch.group, &[]);
                pass.dispatch_workgroups(x, y, z);
            }
        }
    }

    /// Fills an input for the next step.
    pub fn write(
        &self,
        device: &Device,
        buffer: BufferId,
        values: &[f32],
    ) -> Result<(), BackendError> {
        let size = self.plan.input_size(buffer);
        if size.is_none_or(|size| values.len() > size) {
            let what = format!("buffer {} takes no {} numbers", buffer.0, values.len());
            return Err(BackendError::Invalid(what));
        }
        let storage = self.plan.buffers[buffer.0].storage;
        let bytes = bytemuck::cast_slice(values);
        device.write(&self.storages[storage], 0, bytes);
        Ok(())
    }

    /// Rows of a buffer that is still whole.
    pub fn read(
        &self,
        device: &Device,
        buffer: BufferId,
        rows: Range<usize>,
    ) -> Result<Vec<f32>, BackendError> {
        let info = self.plan.buffers.get(buffer.0);
        let info = info.filter(|info| rows.end <= self.plan.shape.n_rows(info.rows));
        let Some(info) = info.filter(|_| self.plan.outputs.contains(&buffer)) else {
            let what = format!("rows {rows:?} of buffer {} are not kept", buffer.0);
            return Err(BackendError::Invalid(what));
        };
        let n = rows.len() * info.cols;
        if n == 0 {
            return Ok(Vec::new());
        }
        let (from, bytes) = (4 * (rows.start * info.cols) as u64, 4 * n as u64);
        let readback = device.readback(bytes)?;
        let mut encoder = device
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        encoder.copy_buffer_to_buffer(&self.storages[info.storage], from, &readback, 0, bytes);
        let submission = device.submit(Some(encoder.finish()));
        let words = device.read_words(&readback, n, submission)?;
        Ok(words.into_iter().map(f32::from_bits).collect())
    }
}

/// The buffers that a plan owns.
struct Memory {
    storages: Vec<wgpu::Buffer>,
    scratch: Vec<wgpu::Buffer>,
    batch: wgpu::Buffer,
}

impl Device {
    fn all(
        &self,
        what: &str,
        bytes: impl Iterator<Item = u64>,
    ) -> Result<Vec<wgpu::Buffer>, BackendError> {
        bytes.map(|bytes| self.storage(what, bytes)).collect()
    }
}

fn ready(
    backend: &GpuBackend,
    memory: &Memory,
    program: &Program,
) -> Result<Vec<Ready>, BackendError> {
    let device = &backend.device;
    let mut pipelines = backend
        .pipelines
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let launches: Vec<&Launch> = program.joints.iter().map(|joint| &joint.launch).collect();
    let compiled = pipelines.of(device, &launches)?;
    compiled
        .into_iter()
        .zip(&program.joints)
        .map(|((pipeline, layout), joint)| {
            let what = format!("bindings of kernel {}", joint.launch.shader.name());
            let make = || bind_group(backend, memory, &layout, &joint.launch);
            let members = joint.members.iter();
            Ok(Ready {
                pipeline,
                group: device.create(&what, 0, make)?,
                grid: joint.launch.grid,
                members: members
                    .map(|&i| Member::new(backend, &program.launches[i], program.ops[i]))
                    .collect(),
            })
        })
        .collect()
}

impl Member {
    fn new(backend: &GpuBackend, launch: &Launch, op: usize) -> Member {
        Member {
            kernel: launch.shader.name(),
            op,
            grid: launch.grid,
            weight_bytes: weight_bytes(backend, launch),
        }
    }

    /// Bytes of weights for a batch.
    fn weight_bytes(&self, counts: &Counts) -> u64 {
        let rows = self.grid.iter().filter(|e| matches!(e, Extent::Rows(..)));
        let rows: u64 = rows.map(|extent| u64::from(extent.of(counts))).product();
        rows * self.weight_bytes
    }
}

/// Bytes of the bound weights: of a matrix that `embed` looks into a row, and of those of experts the chosen ones.
fn weight_bytes(backend: &GpuBackend, launch: &Launch) -> u64 {
    let bytes = launch.bindings.iter().map(|binding| match binding.slot {
        Slot::Weight(id, shard) => {
            let weight = &backend.weights[id.0];
            let bytes = backend.weight_buffers[id.0][shard].size();
            match (launch.shader.name(), launch.shader.value_of("N_USED")) {
                ("embed", _) => 4 * weight.layout.row_words as u64,
                ("matmul_experts_vec", Some(n)) => bytes * n as u64 / weight.n_experts as u64,
                _ => bytes,
            }
        }
        _ => 0,
    });
    bytes.sum()
}

fn bind_group(
    backend: &GpuBackend,
    memory: &Memory,
    layout: &wgpu::BindGroupLayout,
    launch: &Launch,
) -> wgpu::BindGroup {
    let entries: Vec<_> = launch
        .bindings
        .iter()
        .enumerate()
        .map(|(i, binding)| wgpu::BindGroupEntry {
            binding: i as u32,
            resource: resource(backend, memory, binding.slot),
        })
        .collect();
    let device = &backend.device.device;
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout,
        entries: &entries,
    })
}

fn resource<'a>(
    backend: &'a GpuBackend,
    memory: &'a Memory,
    slot: Slot,
) -> wgpu::BindingResource<'a> {
    // `dispatch` refuses plans over layers that the cache does not have.
    type Part = for<'c> fn(&'c Cache, usize) -> wgpu::BindingResource<'c>;
    let cached = |part: Part, i: usize| match &backend.cache {
        Some(cache) => part(cache, i),
        None => backend.nothing.as_entire_binding(),
    };
    match slot {
        Slot::Storage(i) => memory.storages[i].as_entire_binding(),
        Slot::Weight(id, shard) => backend.weight_buffers[id.0][shard].as_entire_binding(),
        Slot::Keys(i) => cached(Cache::keys, i),
        Slot::Values(i) => cached(Cache::values, i),
        Slot::State(i) => cached(Cache::state, i),
        Slot::Batch => memory.batch.as_entire_binding(),
        Slot::Scratch(i) => memory.scratch[i].as_entire_binding(),
        Slot::Nothing => backend.nothing.as_entire_binding(),
    }
}
