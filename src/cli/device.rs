//! Which device runs the models: the one place that knows both backends.

use crate::backend::{Backend, BackendError};
use crate::cpu::CpuBackend;
use crate::engine::{DeviceRequest, OpenBackend};
use crate::gpu::{DeviceChoice, GpuBackend};
use std::sync::Arc;

/// The name of the SIMD backend.
const CPU: &str = "cpu";

/// Opens the device that `name` (the value of `OLLAMA_WGPU_DEVICE`) means: `cpu`, or an adapter's index or a part of
/// its name. Without a name it is the best GPU, and the CPU where there is none that can be used.
///
/// # Errors
/// A named device that is not there, with those that are; one that lacks a limit.
pub fn open(name: Option<&str>) -> Result<Box<dyn Backend>, BackendError> {
    open_for(name, None)
}

/// Opens devices for models as they are loaded: as [`open`], but a model's own wish for the CPU (`num_gpu` 0) comes
/// first, and its wish for a certain GPU (`main_gpu`) where the user named no device.
pub fn opener(name: Option<String>) -> OpenBackend {
    Arc::new(move |request: &DeviceRequest| {
        let threads = threads(request.num_thread);
        if request.num_gpu == 0 {
            return Ok(cpu(threads));
        }
        let wish = request.main_gpu.filter(|&index| index >= 0);
        let wish = wish.map(|index| index.to_string());
        open_for(name.as_deref().or(wish.as_deref()), threads)
    })
}

fn open_for(name: Option<&str>, threads: Option<usize>) -> Result<Box<dyn Backend>, BackendError> {
    let name = name.unwrap_or_default();
    if name.eq_ignore_ascii_case(CPU) {
        return Ok(cpu(threads));
    }
    let choice = DeviceChoice::parse(name);
    match GpuBackend::open(&choice) {
        Ok(gpu) => {
            tracing::info!(device = gpu.device().name, "model runs on the GPU");
            Ok(Box::new(gpu))
        }
        Err(BackendError::NoDevice { wanted, available }) => {
            if choice != DeviceChoice::Automatic {
                let available = format!("{CPU}; {available}");
                return Err(BackendError::NoDevice { wanted, available });
            }
            tracing::info!("no GPU found (other devices: {available}); model runs on the CPU");
            Ok(cpu(threads))
        }
        Err(error) if choice == DeviceChoice::Automatic => {
            tracing::warn!("{error}; model runs on the CPU");
            Ok(cpu(threads))
        }
        Err(error) => Err(error),
    }
}

/// A request's `num_thread`, where it asks for some. More threads than cores only wait for each other, and anyone who can
/// ask a question could ask for a million.
fn threads(num_thread: usize) -> Option<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (num_thread > 0).then(|| num_thread.min(cores))
}

fn cpu(threads: Option<usize>) -> Box<dyn Backend> {
    Box::new(CpuBackend::new(threads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_lists_those_there_are() {
        let error = open(Some("no such device")).err().expect("no such device");
        let text = error.to_string();
        assert!(text.contains("\"no such device\""), "{text}");
        assert!(text.contains("available: cpu"), "{text}");
    }

    #[test]
    fn threads_are_no_more_than_cores() {
        assert_eq!((threads(0), threads(1)), (None, Some(1)));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(threads(1_000_000), Some(cores));
    }

    #[test]
    fn a_model_can_ask_for_the_cpu() {
        let request = DeviceRequest {
            num_gpu: 0,
            main_gpu: None,
            num_thread: 1,
        };
        let open = opener(Some("no such device".to_owned()));
        assert!(!open(&request).expect("a CPU").device().is_gpu);
        let request = DeviceRequest {
            num_gpu: -1,
            ..request
        };
        assert!(open(&request).is_err());
    }
}
