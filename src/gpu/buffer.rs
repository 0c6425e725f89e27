//! Buffers on the device: weights streamed from the mapped file, and reading results back.

use super::device::Device;
use crate::backend::{BackendError, WeightSpec};
use crate::quant::QuantType;
use crate::quant::device::{self, DeviceLayout};

/// Bytes of re-laid rows that are handed to the driver at a time.
const STAGING_BYTES: usize = 8 << 20;
/// The largest part of a weight, so that 32-bit offsets and 2 GiB limits are far away.
const MAX_SHARD_BYTES: u64 = 1 << 30;

/// Bytes of an allocation that asks how much memory is free.
const PROBE_BYTES: u64 = 256 << 20;

/// Most that is asked for: a driver that promises more than there is must not do so for ever.
const MAX_PROBED_BYTES: u64 = 1 << 40;

/// Rows of a weight that one binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shard {
    pub first_row: usize,
    pub rows: usize,
}

/// How a weight lies on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WeightShape {
    pub name: String,
    pub rows: usize,
    /// As in [`WeightSpec`].
    pub n_experts: usize,
    pub parts_per_expert: usize,
    pub layout: DeviceLayout,
    pub shards: Vec<Shard>,
}

impl WeightShape {
    /// Vectors (norms, biases) become one row of 32-bit floats, matrices keep their type. A weight
    /// larger than a binding is split by rows, between experts where whole ones fit.
    pub fn new(weight: &WeightSpec, device: &Device) -> WeightShape {
        let (quant, rows, cols) = match weight.is_vector() {
            true => (QuantType::F32, 1, weight.rows * weight.cols),
            false => (weight.quant, weight.rows, weight.cols),
        };
        let layout = DeviceLayout::new(quant, cols);
        let row_bytes = 4 * layout.row_words as u64;
        let table_bytes = 4 * device::table(quant).len() as u64;
        let binding_bytes = device.limits.max_storage_buffer_binding_size;
        let most = binding_bytes.min(MAX_SHARD_BYTES);
        let fitting = most.saturating_sub(table_bytes) / row_bytes.max(1);
        let expert_rows = (rows / weight.n_experts).max(1);
        let step = match (fitting as usize).max(1) {
            step if device.split_weights => step.min(rows.div_ceil(2)).max(1),
            step if step > expert_rows => step / expert_rows * expert_rows,
            step => step,
        };
        let shards = (0..rows).step_by(step).map(|first_row| Shard {
            first_row,
            rows: step.min(rows - first_row),
        });
        WeightShape {
            name: weight.name.clone(),
            rows,
            n_experts: weight.n_experts,
            parts_per_expert: weight.parts_per_expert(),
            layout,
            shards: shards.collect(),
        }
    }
}

/// All numbers of a vector.
fn vector(weight: &WeightSpec) -> Vec<f32> {
    let mut floats = Vec::with_capacity(weight.rows * weight.cols);
    for (rows, bytes) in weight.parts() {
        let at = floats.len();
        floats.resize(at + rows * weight.cols, 0.0);
        weight.quant.decode(bytes, &mut floats[at..]);
    }
    floats
}

impl Device {
    /// A storage buffer. `what` is for messages.
    pub fn storage(&self, what: &str, bytes: u64) -> Result<wgpu::Buffer, BackendError> {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC;
        self.buffer(what, bytes, usage)
    }

    /// How many of `wanted` bytes can be allocated now: no interface tells it on every platform,
    /// so they are allocated, without being touched, and given back.
    pub fn free_bytes(&self, wanted: u64) -> u64 {
        let largest = self.limits.max_storage_buffer_binding_size;
        let largest = largest.min(self.limits.max_buffer_size).min(PROBE_BYTES);
        let wanted = wanted.min(MAX_PROBED_BYTES);
        let mut held = Vec::new();
        let mut n_bytes = 0;
        while n_bytes < wanted {
            let bytes = largest.min(wanted - n_bytes);
            let Ok(buffer) = self.storage("a probe of free memory", bytes) else {
                break;
            };
            held.push(buffer);
            n_bytes += bytes;
        }
        held.iter().for_each(wgpu::Buffer::destroy);
        match self.wait() {
            Ok(()) => n_bytes,
            Err(_) => 0,
        }
    }

    fn buffer(
        &self,
        what: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, BackendError> {
        // Shaders read whole vectors, and a binding cannot be empty.
        let size = bytes.next_multiple_of(16).max(16);
        let bound = usage.contains(wgpu::BufferUsages::STORAGE);
        let binding = self.limits.max_storage_buffer_binding_size;
        let limits = [
            ("maxStorageBufferBindingSize", binding, bound),
            ("maxBufferSize", self.limits.max_buffer_size, true),
        ];
        let passed = limits
            .iter()
            .find(|(_, most, holds)| *holds && size > *most);
        if let Some((name, most, _)) = passed {
            let what = format!("{what} beyond its {name} of {most}");
            return Err(self.out_of_memory(&what, size));
        }
        self.create(what, size, || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size,
                usage,
                mapped_at_creation: false,
            })
        })
    }

    /// A buffer that results are copied to for reading.
    pub fn readback(&self, bytes: u64) -> Result<wgpu::Buffer, BackendError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.buffer("results", bytes, usage)
    }

    /// Hands bytes to the driver, which copies them to the buffer with the next submission.
    pub fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        self.traffic.uploaded(bytes.len() as u64);
        self.queue.write_buffer(buffer, offset, bytes);
    }

    /// Submits what was written and, if there is one, a command buffer.
    pub fn submit(&self, commands: Option<wgpu::CommandBuffer>) -> wgpu::SubmissionIndex {
        self.traffic.submitted();
        self.queue.submit(commands)
    }

    /// Waits until the device has done all that was submitted.
    pub fn wait(&self) -> Result<(), BackendError> {
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    /// Waits until the device has done this submission and those before it.
    pub fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<(), BackendError> {
        self.poll(wgpu::PollType::Wait {
            submission_index: Some(submission),
            timeout: None,
        })
    }

    fn poll(&self, until: wgpu::PollType) -> Result<(), BackendError> {
        self.traffic.waited();
        self.device.poll(until).map_err(|e| self.lost(e))?;
        self.check()
    }

    /// Waits for a submission and reads the first words of the readback buffer that it filled.
    pub fn read_words(
        &self,
        buffer: &wgpu::Buffer,
        n: usize,
        submission: wgpu::SubmissionIndex,
    ) -> Result<Vec<u32>, BackendError> {
        let bytes = 4 * n as u64;
        let slice = buffer.slice(..bytes);
        self.traffic.read_back(bytes);
        let (sender, receiver) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // The receiver lives until the wait below is over.
            let _ = sender.send(result);
        });
        self.wait_for(submission)?;
        let mapped = receiver.try_recv().map_err(|e| self.lost(e))?;
        mapped.map_err(|e| self.lost(e))?;
        let view = slice.get_mapped_range().map_err(|e| self.lost(e))?;
        let words = bytemuck::pod_collect_to_vec(&view[..]);
        drop(view);
        buffer.unmap();
        Ok(words)
    }

    /// Uploads a weight, a bounded number of rows at a time.
    pub fn upload(
        &self,
        weight: &WeightSpec,
        shape: &WeightShape,
    ) -> Result<Vec<wgpu::Buffer>, BackendError> {
        let row_bytes = 4 * shape.layout.row_words;
        let table = device::table(shape.layout.quant);
        let table = bytemuck::cast_slice(&table);
        let shard_buffer = |rows: usize| -> Result<wgpu::Buffer, BackendError> {
            let table_at = (rows * row_bytes) as u64;
            let buffer = self.storage(&weight.name, table_at + table.len() as u64)?;
            if !table.is_empty() {
                self.write(&buffer, table_at, table);
            }
            Ok(buffer)
        };
        let shards = shape.shards.iter();
        let buffers = shards
            .map(|shard| shard_buffer(shard.rows))
            .collect::<Result<Vec<_>, _>>()?;
        let mut stream = Stream {
            device: self,
            shape,
            buffers: &buffers,
            row: 0,
            staged: Vec::new(),
        };
        if weight.is_vector() {
            stream.push(bytemuck::cast_slice(&vector(weight)))?;
        } else {
            for (rows, bytes) in weight.parts() {
                for row in bytes.chunks_exact(weight.row_bytes()).take(rows) {
                    stream.push(row)?;
                }
            }
        }
        stream.flush()?;
        Ok(buffers)
    }
}

/// Rows on their way to the device.
struct Stream<'a> {
    device: &'a Device,
    shape: &'a WeightShape,
    buffers: &'a [wgpu::Buffer],
    /// First row that is not staged yet.
    row: usize,
    staged: Vec<u32>,
}

impl Stream<'_> {
    /// Stages a row of the layout's type.
    fn push(&mut self, row: &[u8]) -> Result<(), BackendError> {
        let layout = &self.shape.layout;
        let at = self.staged.len();
        self.staged.resize(at + layout.row_words, 0);
        layout.lay_out(row, &mut self.staged[at..]);
        self.row += 1;
        let shard_ends = self.shape.shards.iter().any(|s| s.first_row == self.row);
        if shard_ends || 4 * self.staged.len() >= STAGING_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands the staged rows, all of one shard, to the driver and waits for it: so that the host
    /// never holds more than one stage of them.
    fn flush(&mut self) -> Result<(), BackendError> {
        let row_words = self.shape.layout.row_words;
        let first = self.row - self.staged.len() / row_words;
        let shards = self.shape.shards.iter().zip(self.buffers);
        let mut holding =
            shards.filter(|(s, _)| (s.first_row..s.first_row + s.rows).contains(&first));
        if let Some((shard, buffer)) = holding.next() {
            let offset = 4 * ((first - shard.first_row) * row_words) as u64;
            let bytes = bytemuck::cast_slice(&self.staged);
            self.device.write(buffer, offset, bytes);
            self.device.submit(None);
            self.device.wait()?;
        }
        self.staged.clear();
        Ok(())
    }
}
