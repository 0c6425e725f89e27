//! Compiled kernels, shared by the models of a device: a pipeline per shader text, a layout per
//! list of bindings.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::thread;

use super::device::Device;
use super::launch::{Binding, Launch};
use super::shader::{self, Shader};
use crate::backend::BackendError;

/// What has been compiled on a device.
#[derive(Default)]
pub(super) struct Pipelines {
    by_source: HashMap<String, wgpu::ComputePipeline>,
    /// By which bindings are written.
    layouts: HashMap<Vec<bool>, Layout>,
}

#[derive(Clone)]
struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// A pipeline to be compiled.
struct Job<'a> {
    source: String,
    shader: &'a Shader,
    layout: Layout,
}

impl Pipelines {
    pub fn len(&self) -> usize {
        self.by_source.len()
    }

    /// The launches' pipelines and the layouts of their bind groups, in order. Those that are
    /// missing are compiled on all cores: a driver takes up to a second for a kernel.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] with the name of a kernel that the driver refuses.
    pub fn of(
        &mut self,
        device: &Device,
        launches: &[&Launch],
    ) -> Result<Vec<(wgpu::ComputePipeline, wgpu::BindGroupLayout)>, BackendError> {
        let mut jobs: HashMap<String, Job> = HashMap::new();
        let mut wanted = Vec::new();
        for launch in launches {
            let layout = self.layout(device, &launch.bindings);
            let source = launch.shader.source();
            if !self.by_source.contains_key(&source) {
                let job = || Job {
                    source: source.clone(),
                    shader: &launch.shader,
                    layout: layout.clone(),
                };
                jobs.entry(source.clone()).or_insert_with(job);
            }
            wanted.push((source, layout));
        }
        let jobs: Vec<Job> = jobs.into_values().collect();
        for (job, compiled) in jobs.iter().zip(compile(device, &jobs)) {
            self.by_source.insert(job.source.clone(), compiled?);
        }
        if let Some(cache) = device.disk_cache.as_ref().filter(|_| !jobs.is_empty()) {
            cache.save();
        }
        let ready = wanted
            .into_iter()
            .map(|(source, layout)| (self.by_source[&source].clone(), layout.group));
        Ok(ready.collect())
    }

    fn layout(&mut self, device: &Device, bindings: &[Binding]) -> Layout {
        let key = bindings.iter().map(|b| b.writes).collect();
        let make = || Layout::new(&device.device, bindings);
        self.layouts.entry(key).or_insert_with(make).clone()
    }
}

/// Compiles every job, in order.
fn compile(device: &Device, jobs: &[Job]) -> Vec<Result<wgpu::ComputePipeline, BackendError>> {
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    let chunks = jobs.chunks(jobs.len().div_ceil(n_threads).max(1));
    thread::scope(|scope| {
        let workers: Vec<_> = chunks
            .map(|chunk| scope.spawn(move || chunk.iter().map(|job| job.compile(device)).collect()))
            .collect();
        let done = workers.into_iter().flat_map(|worker| {
            let compiled: Vec<_> = worker.join().unwrap_or_else(|e| resume_unwind(e));
            compiled
        });
        done.collect()
    })
}

impl Job<'_> {
    fn compile(&self, device: &Device) -> Result<wgpu::ComputePipeline, BackendError> {
        let what = format!("kernel {}", self.shader.name());
        device.create(&what, 0, || {
            shader::pipeline(device, &self.layout.pipeline, self.shader)
        })
    }
}

impl Layout {
    fn new(device: &wgpu::Device, bindings: &[Binding]) -> Layout {
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
        Layout { group, pipeline }
    }
}
