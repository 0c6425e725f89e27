//! What products of prompts are computed in: 32-bit floats everywhere, integers where an adapter has
//! an instruction for four products of bytes, half floats where it has them.

use crate::backend::BackendError;
use crate::settings;

/// The variable that overrides what suits an adapter.
const VARIABLE: &str = "OLLAMA_WGPU_ARITHMETIC";

/// NVIDIA's number in PCI.
const NVIDIA: u32 = 0x10de;

/// What may be used beside 32-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arithmetic {
    /// Quantised weights times an input of 16 bits, as products of bytes: on any device, since one
    /// that lacks the instruction has others for it.
    pub integers: bool,
    /// Factors of 16 bits, products and sums of 32: where the device has them.
    pub halves: bool,
}

impl Arithmetic {
    /// What the user's variable says, if anything.
    ///
    /// # Errors
    /// [`BackendError::Setting`] where it names something else.
    pub fn from_env() -> Result<Option<Arithmetic>, BackendError> {
        settings::variable(VARIABLE)
            .map(|text| Arithmetic::parse(&text))
            .transpose()
    }

    fn parse(text: &str) -> Result<Arithmetic, BackendError> {
        let mut arithmetic = Arithmetic::default();
        for name in text.split(',') {
            match name.trim().to_lowercase().as_str() {
                "floats" => {}
                "integers" => arithmetic.integers = true,
                "halves" => arithmetic.halves = true,
                _ => {
                    return Err(BackendError::Setting(format!(
                        "{VARIABLE} is {text:?}; accepted is a list of floats, integers and halves"
                    )));
                }
            }
        }
        Ok(arithmetic)
    }

    /// What an adapter computes fastest, by what is known of its kind.
    pub(super) fn of(adapter: &wgpu::Adapter) -> Arithmetic {
        let integers = has_integer_dot(adapter);
        let info = adapter.get_info();
        // NVIDIA's cards turn a half float into a float at a fraction of the speed of a product;
        // others read it as an operand. Software does either one by one.
        let converts = info.vendor == NVIDIA || info.device_type == wgpu::DeviceType::Cpu;
        let has_halves = adapter.features().contains(wgpu::Features::SHADER_F16);
        Arithmetic {
            integers,
            halves: has_halves && !converts,
        }
    }
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match (self.integers, self.halves) {
            (false, false) => "floats",
            (true, false) => "floats and integers",
            (false, true) => "floats and halves",
            (true, true) => "floats, integers and halves",
        })
    }
}

/// Whether the driver says that products of four bytes are an instruction. wgpu accepts them on every
/// adapter, and so does Vulkan 1.3; only this property tells what they cost. DX12 has none: its
/// drivers may translate them too.
#[cfg(not(target_vendor = "apple"))]
fn has_integer_dot(adapter: &wgpu::Adapter) -> bool {
    use ash::vk;
    // SAFETY: nothing is destroyed, and the adapter outlives the guard.
    let Some(adapter) = (unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }) else {
        return false;
    };
    let instance = adapter.shared_instance();
    let version = adapter
        .physical_device_capabilities()
        .properties()
        .api_version;
    // From 1.3 on the structure is known without its extension; the call came with 1.1.
    if version < vk::API_VERSION_1_3 || instance.instance_api_version() < vk::API_VERSION_1_1 {
        return false;
    }
    let mut dot = vk::PhysicalDeviceShaderIntegerDotProductProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut dot);
    let instance = instance.raw_instance();
    // SAFETY: the adapter is of this instance, and a device of 1.3 fills both structures.
    unsafe {
        instance.get_physical_device_properties2(adapter.raw_physical_device(), &mut properties);
    }
    dot.integer_dot_product4x8_bit_packed_signed_accelerated == vk::TRUE
}

/// Metal's language has no such product.
#[cfg(target_vendor = "apple")]
fn has_integer_dot(_: &wgpu::Adapter) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_what_is_used() {
        let used = |text| Arithmetic::parse(text).map(|a| (a.integers, a.halves)).ok();
        assert_eq!(used("floats"), Some((false, false)));
        assert_eq!(used("Integers"), Some((true, false)));
        assert_eq!(used("integers, halves"), Some((true, true)));
        assert_eq!(used("bytes"), None);
    }
}
