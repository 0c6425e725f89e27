//! Puts shaders together: one `const` line per number, then the files of a kernel and its parts,
//! one after another. WGSL resolves names in any order, so a kernel calls a function and the list
//! of parts decides which file defines it. Also the one place that decides about runtime checks.

use std::fmt::Write;

use super::device::Device;
use super::disk_cache::DiskCache;

/// Declares the embedded files by their path under `shaders/`, without the ending.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        const FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../shaders/", $name, ".wgsl")))),*];
    };
}

files! {
    "kernels/activate",
    "kernels/add",
    "kernels/add_low_rank",
    "kernels/attention_decode",
    "kernels/attention_merge",
    "kernels/attention_prefill",
    "kernels/concat_heads",
    "kernels/delta_net",
    "kernels/embed",
    "kernels/gaussian_top_k",
    "kernels/glu",
    "kernels/kv_write",
    "kernels/kv_write_blocks",
    "kernels/layer_norm",
    "kernels/match_length",
    "kernels/matmul_experts_tile",
    "kernels/matmul_experts_vec",
    "kernels/matmul_tile",
    "kernels/matmul_vec",
    "kernels/moe_combine",
    "kernels/moe_group",
    "kernels/moe_route",
    "kernels/norm_rope_kv",
    "kernels/pool",
    "kernels/rms_norm",
    "kernels/rope",
    "kernels/rope_kv",
    "kernels/round_input",
    "kernels/sample",
    "kernels/scale",
    "kernels/select_rows",
    "kernels/short_conv",
    "kernels/soft_cap",
    "kernels/stream_mix",
    "kernels/top_k",
    "kernels/top_k_merge",
    "kv/f16",
    "kv/f32",
    "kv/q4_0",
    "kv/q8_0",
    "parts/alibi",
    "parts/attention",
    "parts/attention_given",
    "parts/attention_turned",
    "parts/batch",
    "parts/both_ways",
    "parts/candidates",
    "parts/clamped_swish",
    "parts/causal",
    "parts/codes_1",
    "parts/codes_2",
    "parts/codes_3",
    "parts/codes_4",
    "parts/codes_5",
    "parts/codes_6",
    "parts/codes_8",
    "parts/columns_active",
    "parts/columns_glu",
    "parts/columns_plain",
    "parts/expert_store",
    "parts/experts",
    "parts/factor",
    "parts/fma4",
    "parts/gelu_erf",
    "parts/gelu_tanh",
    "parts/grid",
    "parts/half_bits",
    "parts/halves_codes",
    "parts/halves_weights",
    "parts/identity",
    "parts/input_bytes",
    "parts/input_halves",
    "parts/kv_blocks",
    "parts/lanes",
    "parts/lanes_memory",
    "parts/lanes_subgroups",
    "parts/logistic",
    "parts/moments",
    "parts/pages",
    "parts/reduce_subgroup",
    "parts/reduce_workgroup",
    "parts/relu_squared",
    "parts/row_word",
    "parts/runs",
    "parts/sigmoid",
    "parts/silu",
    "parts/sinks",
    "parts/slot_columns",
    "parts/slot_quads",
    "parts/soft_cap",
    "parts/source_rows",
    "parts/source_slots",
    "parts/span",
    "parts/span_values",
    "parts/splits",
    "parts/subgroups",
    "parts/subgroups_made",
    "parts/tile",
    "parts/tile_floats",
    "parts/tile_halves",
    "parts/tile_integers",
    "parts/up_clamped",
    "parts/up_plain",
    "parts/turned",
    "parts/unbiased",
    "parts/values_e2m1",
    "parts/values_iq4",
    "parts/values_signed",
    "parts/values_unsigned",
    "parts/x_columns",
    "parts/x_quads",
    "quant/bf16",
    "quant/f16",
    "quant/f32",
    "quant/iq1_m",
    "quant/iq1_s",
    "quant/iq2_s",
    "quant/iq2_xs",
    "quant/iq2_xxs",
    "quant/iq3_s",
    "quant/iq3_xxs",
    "quant/iq4_nl",
    "quant/iq4_xs",
    "quant/mxfp4",
    "quant/nvfp4",
    "quant/q1_0",
    "quant/q2_0",
    "quant/q2_k",
    "quant/q3_k",
    "quant/q4_0",
    "quant/q4_1",
    "quant/q4_k",
    "quant/q5_0",
    "quant/q5_1",
    "quant/q5_k",
    "quant/q6_k",
    "quant/q8_0",
    "quant/tq2_0",
}

/// A shader to be: the kernel, its parts and its numbers.
#[derive(Debug, Clone)]
pub(super) struct Shader {
    kernel: &'static str,
    parts: Vec<&'static str>,
    constants: String,
    half_floats: bool,
    /// Bytes of workgroup memory, where launches of it may share a dispatch with others.
    joinable: Option<usize>,
}

impl Shader {
    /// A kernel of `shaders/kernels`, without parts.
    pub fn new(kernel: &'static str) -> Shader {
        Shader {
            kernel,
            parts: vec![kernel],
            constants: String::new(),
            half_floats: false,
            joinable: None,
        }
    }

    /// A shader that was made of others.
    pub fn joined(text: String) -> Shader {
        Shader {
            kernel: "joined",
            parts: Vec::new(),
            constants: text,
            half_floats: false,
            joinable: None,
        }
    }

    /// The kernel's name without its folder.
    pub fn name(&self) -> &'static str {
        self.kernel.trim_start_matches("kernels/")
    }

    pub fn parts(mut self, parts: &[&'static str]) -> Shader {
        self.parts.extend(parts);
        self
    }

    /// Lets launches share a dispatch with others. The workgroup takes so many bytes of memory.
    pub fn joinable(mut self, workgroup_bytes: usize) -> Shader {
        self.joinable = Some(workgroup_bytes);
        self
    }

    /// Bytes of workgroup memory and invocations of a workgroup, if launches may share a dispatch with others.
    pub fn as_joinable(&self) -> Option<(usize, usize)> {
        Some((self.joinable?, self.value_of("WG")?))
    }

    /// What [`Self::number`] was told, if it was.
    pub fn value_of(&self, name: &str) -> Option<usize> {
        let mut lines = self.constants.lines();
        let value = lines.find_map(|line| line.strip_prefix(&format!("const {name}: u32 = ")))?;
        value.strip_suffix("u;")?.parse().ok()
    }

    pub fn has_half_floats(&self) -> bool {
        self.half_floats
    }

    /// The type `f16`, which not every device has.
    pub fn half_floats(mut self) -> Shader {
        self.half_floats = true;
        self
    }

    pub fn number(mut self, name: &str, value: usize) -> Shader {
        line(&mut self.constants, format_args!("{name}: u32 = {value}u"));
        self
    }

    pub fn float(mut self, name: &str, value: f32) -> Shader {
        line(
            &mut self.constants,
            format_args!("{name}: f32 = {value:?}f"),
        );
        self
    }

    pub fn flag(mut self, name: &str, value: bool) -> Shader {
        line(&mut self.constants, format_args!("{name}: bool = {value}"));
        self
    }

    /// A table of four numbers a line, and `N_NAME` for how many lines it has.
    pub fn quads(mut self, name: &str, lines: &[[usize; 4]]) -> Shader {
        let vectors: Vec<String> = lines
            .iter()
            .map(|[a, b, c, d]| format!("vec4<u32>({a}u, {b}u, {c}u, {d}u)"))
            .collect();
        let (n, vectors) = (vectors.len(), vectors.join(", "));
        line(
            &mut self.constants,
            format_args!("{name}: array<vec4<u32>, {n}> = array<vec4<u32>, {n}>({vectors})"),
        );
        self.number(&format!("N_{name}"), n)
    }

    /// The WGSL text. Equal texts are equal pipelines.
    pub fn source(&self) -> String {
        let mut source = String::new();
        if self.half_floats {
            source.push_str("enable f16;\n");
        }
        source.push_str(&self.constants);
        for part in &self.parts {
            source.push('\n');
            source.push_str(file(part));
        }
        source
    }
}

fn line(constants: &mut String, declaration: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = writeln!(constants, "const {declaration};");
}

/// The text of an embedded file.
///
/// # Panics
/// If `dispatch` names a file that does not exist, which the test of all shaders would have shown.
fn file(name: &str) -> &'static str {
    let found = FILES.iter().find(|(path, _)| *path == name);
    found.unwrap_or_else(|| panic!("no shader file {name}")).1
}

/// Compiles a compute pipeline with the entry point `main`. Errors go to the device's error scope.
///
/// A checked device keeps the driver-independent bounds checks and the zeroing of workgroup memory: for
/// tests. They cost up to a quarter of the time, and every index of these shaders follows from
/// shapes that were checked before.
pub(super) fn pipeline(
    device: &Device,
    layout: &wgpu::PipelineLayout,
    shader: &Shader,
) -> wgpu::ComputePipeline {
    let description = wgpu::ShaderModuleDescriptor {
        label: Some(shader.name()),
        source: wgpu::ShaderSource::Wgsl(shader.source().into()),
    };
    let (cache, checked) = (device.disk_cache.as_ref(), device.checked);
    let device = &device.device;
    let module = if checked {
        device.create_shader_module(description)
    } else {
        // SAFETY: indices stay inside their buffers for every batch that `Batch::check` accepts
        // (rows, slots, pages and token ids are bounded there, columns by the constants), and all
        // loops end: their bounds are constants or counts of the batch.
        unsafe {
            device.create_shader_module_trusted(description, wgpu::ShaderRuntimeChecks::unchecked())
        }
    };
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(shader.name()),
        layout: Some(layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &[],
            zero_initialize_workgroup_memory: checked,
        },
        cache: cache.map(DiskCache::handle),
    })
}
