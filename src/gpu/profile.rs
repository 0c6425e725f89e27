//! What steps cost, counted where it happens and without a clock: so that a test can hold it on any
//! device, and a user can see where a step's work lies.

use std::sync::atomic::{AtomicU64, Ordering};

/// One dispatch of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchProfile {
    /// That of the plan's op, the first where it stands for several.
    pub label: String,
    /// The file in `shaders/kernels`; those of launches side by side with `+` between them.
    pub kernel: String,
    pub workgroups: u64,
    /// Bytes of weights that it reads.
    pub weight_bytes: u64,
}

/// What crossed between host and device since the device was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    pub submits: u64,
    /// Times that the host waited for the device.
    pub waits: u64,
    pub uploaded_bytes: u64,
    pub read_back_bytes: u64,
}

/// Bytes of a model's buffers on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    pub weights: u64,
    pub cache: u64,
    /// Activations, batches and results of all prepared plans.
    pub plans: u64,
    /// What the allocator took from the driver, for all models on the device and what wgpu itself
    /// needs; `None` where it does not tell.
    pub reserved: Option<u64>,
}

/// The running totals behind [`Traffic`].
#[derive(Debug, Default)]
pub(super) struct TrafficCounters {
    submits: AtomicU64,
    waits: AtomicU64,
    uploaded_bytes: AtomicU64,
    read_back_bytes: AtomicU64,
}

impl TrafficCounters {
    pub fn submitted(&self) {
        self.submits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn waited(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn uploaded(&self, bytes: u64) {
        self.uploaded_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn read_back(&self, bytes: u64) {
        self.read_back_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn totals(&self) -> Traffic {
        Traffic {
            submits: self.submits.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            uploaded_bytes: self.uploaded_bytes.load(Ordering::Relaxed),
            read_back_bytes: self.read_back_bytes.load(Ordering::Relaxed),
        }
    }
}
