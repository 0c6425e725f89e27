//! Adapters: which there are, which one is meant, and opening it with the limits that kernels need.

use std::sync::{Arc, Mutex, PoisonError};

use super::arithmetic::Arithmetic;
use super::disk_cache::DiskCache;
use super::limits::{missing_limit, requested_limits};
use super::memory::own_bytes;
use super::profile::TrafficCounters;
use crate::backend::{BackendError, DeviceInfo};
use crate::settings::cache_folder;

/// What an adapter is, in the order in which it is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    Discrete,
    Integrated,
    Virtual,
    Other,
    /// A CPU in disguise (llvmpipe, SwiftShader, WARP), slower than the SIMD backend.
    Software,
}

/// What a user sees of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterSummary {
    /// Its place in [`adapters`].
    pub index: usize,
    pub name: String,
    /// `Vulkan`, `Metal` or `Dx12`.
    pub api: String,
    pub kind: AdapterKind,
    pub driver: String,
    /// Memory of its own, where the driver tells; a CPU in disguise has none.
    pub memory_bytes: Option<u64>,
}

impl std::fmt::Display for AdapterSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let api = self.api.to_lowercase();
        write!(f, "{}: {api}:{} ({:?})", self.index, self.name, self.kind)
    }
}

/// Which adapter to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best GPU; never a software adapter.
    Automatic,
    /// An index, a part of the name in any case, or either after the API: `vulkan:llvmpipe`.
    Named(String),
}

impl DeviceChoice {
    /// Reads a setting; the empty string and `auto` are automatic.
    pub fn parse(text: &str) -> DeviceChoice {
        match text.trim() {
            "" | "auto" => DeviceChoice::Automatic,
            name => DeviceChoice::Named(name.to_lowercase()),
        }
    }

    fn accepts(&self, adapter: &AdapterSummary) -> bool {
        let DeviceChoice::Named(wanted) = self else {
            return adapter.kind != AdapterKind::Software;
        };
        let wanted = wanted.to_lowercase();
        let api = adapter.api.to_lowercase();
        let name = match wanted.split_once(':') {
            Some((wanted_api, name)) if wanted_api == api => name,
            _ => &wanted,
        };
        match name.parse::<usize>() {
            Ok(index) => index == adapter.index,
            Err(_) => name == api || adapter.name.to_lowercase().contains(name),
        }
    }
}

/// Which optional features may be used, and whether shaders keep their runtime checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Reduce by subgroups where the adapter has them.
    pub subgroups: bool,
    /// Reduce by subgroups of this size that are made in workgroup memory: for tests.
    pub made_subgroups: Option<usize>,
    /// Keep bounds checks in shaders and zero their workgroup memory: slower, for tests.
    pub checked: bool,
    /// Share out work as on a GPU even where the adapter runs on CPU cores: for tests.
    pub gpu_shapes: bool,
    /// Ask for the limits that WebGPU promises and not for the adapter's own: for tests.
    pub least_limits: bool,
    /// Bind every weight in two parts, as one that is larger than a binding: for tests.
    pub split_weights: bool,
    /// Keep compiled kernels in the user's folder of caches.
    pub disk_cache: bool,
    /// What products are computed in; none: what suits the adapter.
    pub arithmetic: Option<Arithmetic>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            subgroups: true,
            made_subgroups: None,
            checked: false,
            gpu_shapes: false,
            least_limits: false,
            split_weights: false,
            disk_cache: false,
            arithmetic: None,
        }
    }
}

/// How kernels add over a workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reduction {
    /// Through workgroup memory.
    Memory,
    /// By the device's subgroups, whatever their size.
    Subgroups,
    /// By subgroups of this size, made in workgroup memory.
    MadeSubgroups(usize),
}

/// Properties that choose kernel variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuning {
    pub reduction: Reduction,
    /// Share out work as suits an adapter that runs on CPU cores.
    pub software: bool,
    pub arithmetic: Arithmetic,
    /// Buffers that a kernel may bind.
    pub max_bindings: usize,
}

/// All adapters, best first. Without a driver or a Vulkan loader there are none.
pub fn adapters() -> Vec<AdapterSummary> {
    ranked_adapters().into_iter().map(|(_, s)| s).collect()
}

/// Share of a GPU's memory budget that may be in use, all programs together.
const MAX_BUDGET_PERCENT: u8 = 95;

pub(super) fn ranked_adapters() -> Vec<(wgpu::Adapter, AdapterSummary)> {
    let mut description = wgpu::InstanceDescriptor::new_without_display_handle();
    description.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    // The flags that a release build sets by default serve indirect dispatch, which is not used.
    description.flags = wgpu::InstanceFlags::empty();
    // Allocations fail before the driver begins to swap, where it tells its budget.
    description.memory_budget_thresholds.for_resource_creation = Some(MAX_BUDGET_PERCENT);
    let instance = wgpu::Instance::new(description);
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let mut ranked: Vec<_> = found
        .into_iter()
        .map(|adapter| {
            let summary = summarise(&adapter);
            (adapter, summary)
        })
        .collect();
    ranked.sort_by_key(|(_, summary)| summary.kind);
    for (index, (_, summary)) in ranked.iter_mut().enumerate() {
        summary.index = index;
    }
    ranked
}

fn summarise(adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let kind = kind(info.device_type, &info.name);
    AdapterSummary {
        index: 0,
        name: info.name.clone(),
        api: format!("{:?}", info.backend),
        driver: format!("{} {}", info.driver, info.driver_info),
        memory_bytes: own_bytes(adapter).filter(|_| kind != AdapterKind::Software),
        kind,
    }
}

fn kind(device_type: wgpu::DeviceType, name: &str) -> AdapterKind {
    const SOFTWARE: [&str; 4] = ["llvmpipe", "lavapipe", "SwiftShader", "Basic Render Driver"];
    if SOFTWARE.iter().any(|s| name.contains(s)) {
        return AdapterKind::Software;
    }
    match device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Other => AdapterKind::Other,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
    }
}

/// What went wrong on a device outside of any call.
#[derive(Debug, Clone)]
enum Failure {
    OutOfMemory(String),
    Lost(String),
}

impl Failure {
    /// What an error that no scope caught means for the device: after one that is not of memory, nothing that it holds can
    /// be relied on.
    fn of(error: wgpu::Error) -> Failure {
        match error {
            wgpu::Error::OutOfMemory { .. } => Failure::OutOfMemory("a step".into()),
            error => Failure::Lost(error.to_string()),
        }
    }
}

/// Memory that is taken from the driver at a time for buffers that are smaller; larger ones have
/// memory of their own. The least that the allocator takes: of larger blocks the caches of layers,
/// which are equally large, leave up to half empty, and a software driver fills all with zeros.
const SMALL_BLOCK_BYTES: u64 = 4 << 20;

/// An open device with its queue.
pub(super) struct Device {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub traffic: TrafficCounters,
    pub limits: wgpu::Limits,
    pub tuning: Tuning,
    pub checked: bool,
    pub split_weights: bool,
    pub disk_cache: Option<DiskCache>,
    summary: AdapterSummary,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Device {
    /// Opens the first adapter that the choice accepts.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] where there is none, [`BackendError::Unsuitable`] where it
    /// lacks a limit or its driver refuses to open it.
    pub fn open(choice: &DeviceChoice, options: Options) -> Result<Device, BackendError> {
        let ranked = ranked_adapters();
        let Some((adapter, summary)) = ranked.iter().find(|(_, s)| choice.accepts(s)) else {
            return Err(no_device(choice, ranked.iter().map(|(_, s)| s)));
        };
        Self::open_adapter(adapter, summary, options)
    }

    /// As [`Self::open`], of an adapter that was chosen.
    ///
    /// # Errors
    /// [`BackendError::Unsuitable`] as there.
    pub fn open_adapter(
        adapter: &wgpu::Adapter,
        summary: &AdapterSummary,
        options: Options,
    ) -> Result<Device, BackendError> {
        let unsuitable = |what: String| BackendError::Unsuitable {
            device: summary.name.clone(),
            what,
        };
        let offered = adapter.limits();
        if let Some(what) = missing_limit(&offered) {
            return Err(unsuitable(what));
        }
        let info = adapter.get_info();
        let mut arithmetic = options
            .arithmetic
            .unwrap_or_else(|| Arithmetic::of(adapter));
        arithmetic.halves &= adapter.features().contains(wgpu::Features::SHADER_F16);
        let reduction = match options.made_subgroups {
            Some(size) => Reduction::MadeSubgroups(size),
            None if options.subgroups && has_usable_subgroups(adapter.features(), &info) => {
                Reduction::Subgroups
            }
            None => Reduction::Memory,
        };
        let mut features = wgpu::Features::empty();
        features.set(wgpu::Features::SUBGROUP, reduction == Reduction::Subgroups);
        features.set(wgpu::Features::SHADER_F16, arithmetic.halves);
        let folder = cache_folder().filter(|_| options.disk_cache);
        let has_caches = adapter.features().contains(wgpu::Features::PIPELINE_CACHE);
        let uses_cache = folder.is_some() && has_caches;
        features.set(wgpu::Features::PIPELINE_CACHE, uses_cache);
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("ollama-wgpu"),
            required_features: features,
            required_limits: match options.least_limits {
                true => requested_limits(wgpu::Limits::default()),
                false => requested_limits(offered),
            },
            memory_hints: wgpu::MemoryHints::Manual {
                suballocated_device_memory_block_size: SMALL_BLOCK_BYTES..SMALL_BLOCK_BYTES,
            },
            ..Default::default()
        });
        let (device, queue) =
            pollster::block_on(request).map_err(|e| unsuitable(e.to_string().to_lowercase()))?;
        let limits = device.limits();
        Ok(Device {
            failure: watch(&device),
            tuning: Tuning {
                reduction,
                software: summary.kind == AdapterKind::Software && !options.gpu_shapes,
                arithmetic,
                max_bindings: limits.max_storage_buffers_per_shader_stage as usize,
            },
            limits,
            checked: options.checked,
            split_weights: options.split_weights,
            disk_cache: folder.and_then(|folder| DiskCache::open(&device, &info, &folder)),
            traffic: TrafficCounters::default(),
            summary: summary.clone(),
            device,
            queue,
        })
    }

    pub fn info(&self) -> DeviceInfo {
        DeviceInfo {
            name: self.summary.name.clone(),
            api: self.summary.api.clone(),
            is_gpu: true,
            memory_bytes: self.summary.memory_bytes,
        }
    }

    /// Memory taken from the driver, where the allocator tells.
    pub fn reserved_bytes(&self) -> Option<u64> {
        let report = self.device.generate_allocator_report()?;
        Some(report.total_reserved_bytes)
    }

    /// Ends the device.
    pub fn lose(&self) {
        self.device.destroy();
    }

    /// An error where the device failed since it was opened.
    pub fn check(&self) -> Result<(), BackendError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.clone() {
            None => Ok(()),
            Some(Failure::Lost(what)) => Err(self.lost(what)),
            Some(Failure::OutOfMemory(what)) => Err(self.out_of_memory(&what, 0)),
        }
    }

    pub fn lost(&self, what: impl ToString) -> BackendError {
        BackendError::Lost {
            device: self.summary.name.clone(),
            what: what.to_string(),
        }
    }

    pub fn out_of_memory(&self, what: &str, bytes: u64) -> BackendError {
        BackendError::OutOfMemory {
            device: self.summary.name.clone(),
            what: what.to_owned(),
            bytes,
        }
    }

    /// Creates something of `bytes` bytes; the driver's refusal is an error, not a panic.
    pub fn create<T>(
        &self,
        what: &str,
        bytes: u64,
        make: impl FnOnce() -> T,
    ) -> Result<T, BackendError> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let made = make();
        let internal = pollster::block_on(internal.pop());
        let validation = pollster::block_on(validation.pop());
        if pollster::block_on(memory.pop()).is_some() {
            return Err(self.out_of_memory(what, bytes));
        }
        self.check()?;
        match validation.or(internal) {
            None => Ok(made),
            Some(error) => Err(BackendError::Invalid(format!("{what}: {error}"))),
        }
    }
}

/// Whether reductions may use subgroups: they need the feature, and subgroups of 4 or more.
fn has_usable_subgroups(features: wgpu::Features, info: &wgpu::AdapterInfo) -> bool {
    let sizes_known = info.subgroup_min_size >= 4 && info.subgroup_max_size <= 128;
    features.contains(wgpu::Features::SUBGROUP) && sizes_known
}

fn no_device<'a>(
    choice: &DeviceChoice,
    found: impl Iterator<Item = &'a AdapterSummary>,
) -> BackendError {
    let names: Vec<String> = found.map(ToString::to_string).collect();
    BackendError::NoDevice {
        wanted: match choice {
            DeviceChoice::Automatic => "a GPU".into(),
            DeviceChoice::Named(name) => name.clone(),
        },
        available: match names.is_empty() {
            true => "none, is a graphics driver installed?".into(),
            false => names.join(", "),
        },
    }
}

/// Collects errors that no scope catches; without a handler wgpu would panic.
fn watch(device: &wgpu::Device) -> Arc<Mutex<Option<Failure>>> {
    let failure = Arc::new(Mutex::new(None));
    let record = |failure: &Mutex<Option<Failure>>, new: Failure| {
        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            tracing::error!("the GPU failed: {new:?}");
            *failure = Some(new);
        }
    };
    let shared = Arc::clone(&failure);
    device.on_uncaptured_error(Arc::new(move |error| record(&shared, Failure::of(error))));
    let shared = Arc::clone(&failure);
    device.set_device_lost_callback(move |reason, message| {
        if reason != wgpu::DeviceLostReason::Destroyed {
            record(&shared, Failure::Lost(message));
        }
    });
    failure
}

#[cfg(test)]
mod tests;
