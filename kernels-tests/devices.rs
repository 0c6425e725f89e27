//! The devices that every case runs on.

use ollama_wgpu::backend::{Backend, BackendError};
use ollama_wgpu::cpu::{CpuBackend, InstructionSet};
use ollama_wgpu::gpu::{self, DeviceChoice, GpuBackend};

type Open = Box<dyn Fn() -> Result<Box<dyn Backend>, BackendError>>;

/// A named way to open a backend.
pub struct Device {
    pub name: String,
    open: Open,
}

impl Device {
    pub fn new(
        name: impl Into<String>,
        open: impl Fn() -> Result<Box<dyn Backend>, BackendError> + 'static,
    ) -> Device {
        Device {
            name: name.into(),
            open: Box::new(open),
        }
    }

    pub fn open(&self) -> Result<Box<dyn Backend>, BackendError> {
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

/// Every GPU adapter that answers, software ones included, with every variant of the shaders:
/// first as users run them, then with runtime checks, then without subgroups.
pub fn gpus() -> Vec<Device> {
    let plain = gpu::Options::default();
    let variants = [
        ("", plain),
        (
            ", checked",
            gpu::Options {
                checked: true,
                ..plain
            },
        ),
        (
            ", no subgroups",
            gpu::Options {
                subgroups: false,
                ..plain
            },
        ),
    ];
    let device = |adapter: &gpu::AdapterSummary, (suffix, options)| {
        let choice = DeviceChoice::Named(adapter.index.to_string());
        Device::new(format!("{}{suffix}", adapter.name), move || {
            Ok(Box::new(GpuBackend::open_with(&choice, options)?))
        })
    };
    let adapters = gpu::adapters();
    adapters
        .iter()
        .flat_map(|a| variants.map(|v| device(a, v)))
        .collect()
}
