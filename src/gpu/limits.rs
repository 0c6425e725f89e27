//! What an adapter can do: what users see of it, what kernels need, what they are given.

use super::arithmetic::Arithmetic;
use super::device::ranked_adapters;

/// What an adapter can do, as far as users ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterLimits {
    /// Largest buffer, and the part of it that a kernel sees at once.
    pub buffer_bytes: u64,
    pub binding_bytes: u64,
    /// Memory that a workgroup shares.
    pub workgroup_bytes: u64,
    /// Invocations of the smallest and the largest subgroup, where it has any.
    pub subgroups: Option<(u32, u32)>,
    /// What prompts are computed in unless the user says otherwise.
    pub arithmetic: Arithmetic,
}

/// The limits of all [`super::adapters`], in their order.
pub fn limits() -> Vec<AdapterLimits> {
    let all = ranked_adapters().into_iter();
    all.map(|(adapter, _)| {
        let limits = adapter.limits();
        let info = adapter.get_info();
        let has_subgroups = adapter.features().contains(wgpu::Features::SUBGROUP);
        let sizes = (info.subgroup_min_size, info.subgroup_max_size);
        AdapterLimits {
            buffer_bytes: limits.max_buffer_size,
            binding_bytes: limits.max_storage_buffer_binding_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size.into(),
            subgroups: has_subgroups.then_some(sizes),
            arithmetic: Arithmetic::of(&adapter),
        }
    })
    .collect()
}

/// Limits that kernels rely on, by their names in WebGPU; most are WebGPU's defaults.
fn needed_limits(l: &wgpu::Limits) -> [(&'static str, u64, u64); 6] {
    [
        (
            "maxStorageBufferBindingSize",
            l.max_storage_buffer_binding_size,
            128 << 20,
        ),
        (
            "maxStorageBuffersPerShaderStage",
            l.max_storage_buffers_per_shader_stage.into(),
            8,
        ),
        (
            "maxComputeWorkgroupStorageSize",
            l.max_compute_workgroup_storage_size.into(),
            16 << 10,
        ),
        (
            "maxComputeInvocationsPerWorkgroup",
            l.max_compute_invocations_per_workgroup.into(),
            256,
        ),
        (
            "maxComputeWorkgroupSizeX",
            l.max_compute_workgroup_size_x.into(),
            256,
        ),
        (
            "maxComputeWorkgroupsPerDimension",
            l.max_compute_workgroups_per_dimension.into(),
            65535,
        ),
    ]
}

pub(super) fn missing_limit(offered: &wgpu::Limits) -> Option<String> {
    let missing = needed_limits(offered);
    let missing = missing.iter().find(|(_, has, needed)| has < needed)?;
    let (name, has, needed) = missing;
    Some(format!("its {name} is {has}, {needed} are needed"))
}

/// Buffers that kernels bind where the adapter offers so many: those of several launches side by side.
const MOST_BINDINGS: u32 = 16;

/// The compute limits that are used, so that a kernel past them fails on every adapter, and the
/// adapter's own for the rest.
pub(super) fn requested_limits(offered: wgpu::Limits) -> wgpu::Limits {
    wgpu::Limits {
        max_storage_buffers_per_shader_stage: offered
            .max_storage_buffers_per_shader_stage
            .min(MOST_BINDINGS),
        max_compute_workgroup_storage_size: 16 << 10,
        max_compute_invocations_per_workgroup: 256,
        max_compute_workgroup_size_x: 256,
        max_compute_workgroups_per_dimension: 65535,
        ..offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_limit_is_named() {
        assert_eq!(missing_limit(&wgpu::Limits::default()), None);
        let small_bindings = wgpu::Limits {
            max_storage_buffer_binding_size: (128 << 20) - 4,
            ..wgpu::Limits::default()
        };
        let little_memory = wgpu::Limits {
            max_compute_workgroup_storage_size: 8192,
            ..wgpu::Limits::default()
        };
        let missing = [small_bindings, little_memory].map(|limits| missing_limit(&limits));
        let expected = [
            "its maxStorageBufferBindingSize is 134217724, 134217728 are needed",
            "its maxComputeWorkgroupStorageSize is 8192, 16384 are needed",
        ];
        assert_eq!(missing, expected.map(|text| Some(text.to_owned())));
    }

    #[test]
    fn the_limits_of_webgpu_are_enough_and_all_that_is_used() {
        let least = wgpu::Limits::default();
        assert_eq!(missing_limit(&least), None);
        // Whatever more an adapter offers, kernels do not see it, but for bindings: launches side by side have more.
        let most = requested_limits(wgpu::Limits::unlimited());
        assert_eq!(most.max_storage_buffers_per_shader_stage, MOST_BINDINGS);
        let used = needed_limits(&most);
        let bounded = used.iter().filter(|(_, asked, needed)| asked == needed);
        assert_eq!(bounded.count(), 4);
    }
}
