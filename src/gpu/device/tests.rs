//! Which adapters are taken, and what their errors mean.

use super::*;

#[test]
fn errors_of_every_class_are_failures() {
    let source = || Box::new(std::io::Error::other("the driver said so"));
    let description = || "it was asked for too much".to_owned();
    let memory = wgpu::Error::OutOfMemory { source: source() };
    assert!(matches!(Failure::of(memory), Failure::OutOfMemory(_)));
    for error in [
        wgpu::Error::Validation {
            source: source(),
            description: description(),
        },
        wgpu::Error::Internal {
            source: source(),
            description: description(),
        },
    ] {
        let Failure::Lost(what) = Failure::of(error) else {
            panic!("it can go on");
        };
        assert!(what.contains(&description()), "{what}");
    }
}

/// Where there is a GPU, be it one in software.
#[test]
fn an_error_that_no_scope_catches_fails_the_device_alone() {
    let ranked = ranked_adapters();
    let Some((adapter, summary)) = ranked.first() else {
        return eprintln!("not tested: no adapter");
    };
    let device = Device::open_adapter(adapter, summary, Options::default()).expect("it opens");
    device.check().expect("nothing has happened");
    // Two usages that exclude each other, twice.
    for _ in 0..2 {
        drop(device.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("impossible"),
            size: 16,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        }));
    }
    let error = device.check().expect_err("it has failed");
    let BackendError::Lost { what, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(what.contains("impossible"), "{what}");
    let other = Device::open_adapter(adapter, summary, Options::default()).expect("it opens");
    other.check().expect("another one works");
}

fn adapter(index: usize, name: &str, kind: AdapterKind) -> AdapterSummary {
    AdapterSummary {
        index,
        name: name.into(),
        api: "Vulkan".into(),
        kind,
        driver: String::new(),
        memory_bytes: None,
    }
}

#[test]
fn software_is_used_only_when_named() {
    let llvmpipe = adapter(1, "llvmpipe (LLVM 15)", AdapterKind::Software);
    for name in ["1", "llvmpipe", "vulkan:LLVMpipe", "vulkan:1", "vulkan"] {
        assert!(DeviceChoice::parse(name).accepts(&llvmpipe), "{name}");
    }
    for name in ["", "auto", "0", "metal:llvmpipe", "nvidia"] {
        assert!(!DeviceChoice::parse(name).accepts(&llvmpipe), "{name}");
    }
    let gpu = adapter(0, "NVIDIA H100", AdapterKind::Discrete);
    assert!(DeviceChoice::Automatic.accepts(&gpu));
}

#[test]
fn a_missing_device_is_named_with_those_there_are() {
    let found = [adapter(0, "llvmpipe", AdapterKind::Software)];
    let error = no_device(&DeviceChoice::parse("radeon"), found.iter());
    assert_eq!(
        error.to_string(),
        "device \"radeon\" not found; available: 0: vulkan:llvmpipe (Software)"
    );
}

#[test]
fn subgroups_are_used_where_their_sizes_are_known() {
    let mut info = wgpu::AdapterInfo::new(wgpu::DeviceType::Other, wgpu::Backend::Vulkan);
    let mut usable = |features, min, max| {
        (info.subgroup_min_size, info.subgroup_max_size) = (min, max);
        has_usable_subgroups(features, &info)
    };
    let subgroup = wgpu::Features::SUBGROUP;
    for (min, max) in [(4, 4), (4, 128), (8, 8), (32, 32), (32, 64), (128, 128)] {
        assert!(usable(subgroup, min, max), "{min} to {max}");
        assert!(!usable(wgpu::Features::empty(), min, max));
    }
    for (min, max) in [(0, 0), (1, 128), (64, 256)] {
        assert!(!usable(subgroup, min, max), "{min} to {max}");
    }
}

#[test]
fn kinds_follow_type_and_name() {
    assert_eq!(
        kind(wgpu::DeviceType::Other, "SwiftShader Device"),
        AdapterKind::Software
    );
    assert_eq!(
        kind(wgpu::DeviceType::IntegratedGpu, "Intel"),
        AdapterKind::Integrated
    );
}
