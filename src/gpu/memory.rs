//! How much memory an adapter has of its own.

/// Bytes of all its heaps that are the device's; none where its interface does not tell (Metal, DX12).
#[cfg(not(target_vendor = "apple"))]
pub(super) fn own_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    use ash::vk::MemoryHeapFlags;
    // SAFETY: nothing is destroyed, and the adapter outlives the guard.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = adapter.shared_instance().raw_instance();
    let device = adapter.raw_physical_device();
    // SAFETY: the adapter is of this instance.
    let memory = unsafe { instance.get_physical_device_memory_properties(device) };
    let heaps = memory.memory_heaps_as_slice().iter();
    let own = heaps.filter(|heap| heap.flags.contains(MemoryHeapFlags::DEVICE_LOCAL));
    Some(own.map(|heap| heap.size).sum())
}

/// Metal's limits do not say it.
#[cfg(target_vendor = "apple")]
pub(super) fn own_bytes(_: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::AdapterKind;
    use crate::gpu::device::ranked_adapters;

    #[test]
    fn vulkan_tells_it_and_a_cpu_in_disguise_has_none() {
        for (adapter, summary) in ranked_adapters() {
            let bytes = own_bytes(&adapter);
            let tells = adapter.get_info().backend == wgpu::Backend::Vulkan;
            assert_eq!(
                bytes.is_some_and(|bytes| bytes > 1 << 20),
                tells,
                "{summary}"
            );
            let is_software = summary.kind == AdapterKind::Software;
            assert_eq!(summary.memory_bytes, bytes.filter(|_| !is_software));
        }
    }
}
