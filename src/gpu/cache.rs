//! What sequences keep on the device: keys and values by layer, recurrent states by number. They lie
//! side by side in few buffers, since those of many layers are equally large and would leave up to
//! half of each block of the allocator empty.

use std::num::NonZeroU64;

use super::device::Device;
use super::dispatch::cached_bytes;
use crate::backend::{BackendError, CacheSpec};

/// The largest buffer of a cache, where a binding may be as large.
const MAX_BUFFER_BYTES: u64 = 1 << 30;

/// The cache of a model.
pub(super) struct Cache {
    pub spec: CacheSpec,
    buffers: Vec<wgpu::Buffer>,
    keys: Vec<Place>,
    values: Vec<Place>,
    states: Vec<Place>,
}

/// A part of one of the buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    buffer: usize,
    offset: u64,
    bytes: u64,
}

/// Puts one part after another.
struct Places {
    alignment: u64,
    most: u64,
    /// Bytes of each buffer.
    sizes: Vec<u64>,
}

impl Places {
    /// The place of the next part. One that is larger than `most` has a buffer of its own.
    fn add(&mut self, bytes: usize) -> Place {
        // Shaders read whole vectors, and a binding cannot be empty.
        let bytes = (bytes as u64).next_multiple_of(16).max(16);
        let next = |size: &u64| size.next_multiple_of(self.alignment);
        let offset = match self.sizes.last().map(next) {
            Some(offset) if offset + bytes <= self.most => offset,
            _ => {
                self.sizes.push(0);
                0
            }
        };
        let buffer = self.sizes.len() - 1;
        self.sizes[buffer] = offset + bytes;
        Place {
            buffer,
            offset,
            bytes,
        }
    }
}

impl Cache {
    /// Allocates it.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`], also for a layer that is larger than a binding.
    pub fn new(device: &Device, spec: &CacheSpec) -> Result<Cache, BackendError> {
        let limits = &device.limits;
        let mut places = Places {
            alignment: limits.min_storage_buffer_offset_alignment.into(),
            most: MAX_BUFFER_BYTES
                .min(limits.max_storage_buffer_binding_size)
                .min(limits.max_buffer_size),
            sizes: Vec::new(),
        };
        let layer_bytes = |numbers| cached_bytes(spec.kv_type, numbers) * spec.n_slots();
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for dims in &spec.layers {
            keys.push(places.add(layer_bytes(dims.keys)));
            values.push(places.add(layer_bytes(dims.values)));
        }
        let states = spec.states.iter();
        let states = states
            .map(|state| places.add(4 * state.size * spec.n_sequences))
            .collect();
        let buffers = places.sizes.iter();
        let buffers = buffers.map(|&bytes| device.storage("the cache", bytes));
        Ok(Cache {
            buffers: buffers.collect::<Result<_, _>>()?,
            keys,
            values,
            states,
            spec: spec.clone(),
        })
    }

    /// Bytes of its buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(wgpu::Buffer::size).sum()
    }

    /// Keys of a layer of the cache.
    pub fn keys(&self, layer: usize) -> wgpu::BindingResource<'_> {
        self.part(self.keys[layer])
    }

    /// Values of a layer of the cache.
    pub fn values(&self, layer: usize) -> wgpu::BindingResource<'_> {
        self.part(self.values[layer])
    }

    /// A recurrent state of all sequences.
    pub fn state(&self, state: usize) -> wgpu::BindingResource<'_> {
        self.part(self.states[state])
    }

    fn part(&self, place: Place) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffers[place.buffer],
            offset: place.offset,
            size: NonZeroU64::new(place.bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_no_buffer_is_larger_than_a_binding() {
        let mut places = Places {
            alignment: 256,
            most: 1024,
            sizes: Vec::new(),
        };
        let at = |bytes| {
            let place = places.add(bytes);
            (place.buffer, place.offset, place.bytes)
        };
        let found = [300, 0, 512, 512, 2000, 16].map(at);
        let expected = [
            (0, 0, 304),
            (0, 512, 16),
            (1, 0, 512),
            (1, 512, 512),
            (2, 0, 2000),
            (3, 0, 16),
        ];
        assert_eq!(found, expected);
        assert_eq!(places.sizes, [528, 1024, 2000, 16]);
    }
}
