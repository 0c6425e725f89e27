//! The devices that every case runs on.

use ollama_wgpu::backend::{Backend, BackendError};
use ollama_wgpu::cpu::{CpuBackend, InstructionSet};
use ollama_wgpu::gpu::{self, DeviceChoice, GpuBackend, Options};

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
/// with and without subgroups, and once with the runtime checks that a server leaves out.
pub fn gpus() -> Vec<Device> {
    let variant = |subgroups, checked| Options {
        subgroups,
        checked,
        ..Options::default()
    };
    let variants = [
        ("subgroups", variant(true, false)),
        ("subgroups, checked", variant(true, true)),
        ("no subgroups", variant(false, false)),
    ];
    let mut devices = Vec::new();
    for adapter in gpu::adapters() {
        for (label, options) in variants {
            let choice = DeviceChoice::Named(adapter.index.to_string());
            devices.push(Device::new(format!("{adapter}, {label}"), move || {
                let backend = GpuBackend::open_with(&choice, options)?;
                Ok(Box::new(backend) as Box<dyn Backend>)
            }));
        }
    }
    devices
}
