//! The devices that every case runs on.

use std::sync::{Mutex, PoisonError};

use ollama_wgpu::backend::{Backend, BackendError};
use ollama_wgpu::cpu::{CpuBackend, InstructionSet};
use ollama_wgpu::gpu::{self, DeviceChoice, GpuBackend};

type Opened = Result<Box<dyn Backend>, BackendError>;

/// A named way to open a backend.
pub struct Device {
    pub name: String,
    open: Box<dyn Fn() -> Opened + Send + Sync>,
}

impl Device {
    pub fn new(
        name: impl Into<String>,
        open: impl Fn() -> Opened + Send + Sync + 'static,
    ) -> Device {
        Device {
            name: name.into(),
            open: Box::new(open),
        }
    }

    pub fn open(&self) -> Opened {
        (self.open)()
    }
}

/// The CPU with every instruction set that this machine has.
pub fn cpus() -> Vec<Device> {
    let device = |isa: InstructionSet| {
        Device::new(format!("cpu {}", isa.name()), move || {
            Ok(Box::new(CpuBackend::with_isa(isa, Some(2))))
        })
    };
    InstructionSet::present().into_iter().map(device).collect()
}

/// Every GPU adapter that answers, software ones included, with the variants of the shaders: as
/// users run them; and with the shapes of a GPU, with runtime checks but without subgroups.
pub fn gpus() -> Vec<Device> {
    let checked = gpu::Options {
        checked: true,
        subgroups: false,
        gpu_shapes: true,
        ..gpu::Options::default()
    };
    let mut devices = plain_gpus();
    devices.extend(variants(
        ", checked, no subgroups, shapes of a GPU",
        checked,
    ));
    devices
}

/// Every GPU adapter with the shapes of a GPU, with subgroups, the limits that WebGPU promises, and
/// every weight in two parts.
pub fn least_gpus() -> Vec<Device> {
    let least = gpu::Options {
        gpu_shapes: true,
        least_limits: true,
        split_weights: true,
        ..gpu::Options::default()
    };
    variants(", shapes of a GPU, least limits, split weights", least)
}

/// Every GPU adapter with products in integers, and with those in half floats where it has them: each
/// with the shapes of one kind of device.
pub fn arithmetic_gpus() -> Vec<Device> {
    let integers = gpu::Options {
        checked: true,
        gpu_shapes: true,
        ..in_arithmetic(true, false)
    };
    let mut devices = variants(", integers, checked, shapes of a GPU", integers);
    devices.extend(variants(", halves", in_arithmetic(false, true)));
    devices
}

/// The first GPU adapter, as users run it but for its arithmetic.
pub fn plain_in_arithmetic() -> Vec<Device> {
    let first = gpu::adapters().into_iter().take(1);
    let both = |adapter: gpu::AdapterSummary| {
        [
            gpu(&adapter, ", integers", in_arithmetic(true, false)),
            gpu(&adapter, ", halves", in_arithmetic(false, true)),
        ]
    };
    first.flat_map(both).collect()
}

fn in_arithmetic(integers: bool, halves: bool) -> gpu::Options {
    gpu::Options {
        arithmetic: Some(gpu::Arithmetic { integers, halves }),
        ..gpu::Options::default()
    }
}

/// The first GPU adapter with the shapes of a GPU, runtime checks and subgroups of widths that are not
/// its own.
pub fn gpus_of_widths(widths: &[usize]) -> Vec<Device> {
    let adapter = gpu::adapters().into_iter().next().expect("a GPU adapter");
    let of_width = |&width: &usize| {
        let options = gpu::Options {
            checked: true,
            gpu_shapes: true,
            made_subgroups: Some(width),
            ..gpu::Options::default()
        };
        gpu(&adapter, &format!(", subgroups of {width}"), options)
    };
    widths.iter().map(of_width).collect()
}

/// The first GPU adapter with the shapes of a GPU, with its own subgroups or without.
pub fn first_gpu_in_its_shapes(subgroups: bool) -> Device {
    let adapter = gpu::adapters().into_iter().next().expect("a GPU adapter");
    let options = gpu::Options {
        gpu_shapes: true,
        subgroups,
        ..gpu::Options::default()
    };
    gpu(&adapter, &format!(", subgroups {subgroups}"), options)
}

/// Every GPU adapter as users run it.
pub fn plain_gpus() -> Vec<Device> {
    variants("", gpu::Options::default())
}

fn variants(suffix: &str, options: gpu::Options) -> Vec<Device> {
    let adapters = gpu::adapters().into_iter();
    adapters
        .map(|adapter| gpu(&adapter, suffix, options))
        .collect()
}

/// The adapter is opened once; every backend shares its device and its compiled kernels.
fn gpu(adapter: &gpu::AdapterSummary, suffix: &str, options: gpu::Options) -> Device {
    let choice = DeviceChoice::Named(adapter.index.to_string());
    let opened: Mutex<Option<GpuBackend>> = Mutex::new(None);
    Device::new(format!("{}{suffix}", adapter.name), move || {
        let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match opened.take() {
            Some(first) => first,
            None => GpuBackend::open_with(&choice, options)?,
        };
        let sibling = first.sibling();
        *opened = Some(first);
        Ok(Box::new(sibling?))
    })
}

/// Does the work for every item on a thread of its own and joins what it lists. A driver compiles
/// the kernels of a device on one core, which is most of what tests on a software GPU cost.
pub fn beside_one_another<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Vec<String> + Sync,
) -> Vec<String> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items
            .iter()
            .map(|item| scope.spawn(move || work(item)))
            .collect();
        let lists = threads.into_iter().map(|t| t.join().expect("no panic"));
        lists.flatten().collect()
    })
}
