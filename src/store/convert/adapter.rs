//! LoRA adapters in safetensors to GGUF.

use super::arch;
use super::checkpoint::Checkpoint;
use super::config::Config;
use super::tensors::{Base, Tensors};
use super::{Digest, Error, Store};
use crate::gguf::{Gguf, Header};
use std::io::Write;

const SETTINGS: &str = "adapter_config.json";

/// Settings of PEFT that change what is computed, where they are set.
const REFUSED: &[&str] = &[
    "alora_invocation_tokens",
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "use_dora",
    "use_qalora",
];

/// Converts an adapter's files, each with the name that the request gives it, for the model `base`, and writes the GGUF
/// file to `out`.
///
/// # Errors
/// [`Error::Unsupported`] for what is not converted, by name, and [`Error::BadRequest`] for files that are missing or
/// damaged. Whether the pairs fit the model is for [`Lora::check`](crate::gguf::Lora::check) to say.
pub(in crate::store) fn convert_adapter(
    store: &Store,
    files: &[(&str, Digest)],
    base: &Gguf,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let checkpoint = Checkpoint::open(store, files)?;
    let settings = Config::of(&checkpoint, SETTINGS)?;
    let settings = settings.ok_or_else(|| {
        Error::BadRequest(format!(
            "{SETTINGS} is missing: it says how much of the adapter is added"
        ))
    })?;
    let arch = base.architecture();
    let architecture = arch::by_arch(arch)?;
    let number = |key: &str| base.u32(&format!("{arch}.{key}")).unwrap_or(0);
    let n_heads = number("attention.head_count");
    let n_kv_heads = number("attention.head_count_kv");
    let base = Base {
        architecture,
        n_layers: number("block_count"),
        n_heads,
        n_kv_heads: if n_kv_heads == 0 { n_heads } else { n_kv_heads },
    };
    let is_mlx = settings.has("lora_parameters");
    let alpha = match settings.object("lora_parameters")? {
        Some(parameters) => mlx_alpha(&settings, &parameters)?,
        None => peft_alpha(&settings)?,
    };
    let tensors = Tensors::of_adapter(&checkpoint, &base, is_mlx)?;
    let mut header = Header::default();
    header.string("general.architecture", architecture.arch);
    header.string("general.type", "adapter");
    header.string("adapter.type", "lora");
    header.f32("adapter.lora.alpha", alpha as f32);
    tensors.describe(&mut header);
    header
        .write(out)
        .map_err(Error::io("cannot write the adapter"))?;
    tensors.write(out, &mut |_| Ok(()))?;
    checkpoint.check_whole()
}

/// PEFT adds `lora_alpha / r` times the product; GGUF divides by the rank as well.
fn peft_alpha(settings: &Config) -> Result<f64, Error> {
    settings.only("peft_type", &["LORA"])?;
    settings.unset(REFUSED)?;
    // Others make changes to the weights of the model that only PEFT could undo.
    if settings.has("init_lora_weights") && settings.optional_bool("init_lora_weights").is_err() {
        settings.only("init_lora_weights", &["gaussian", "orthogonal", "eva"])?;
    }
    let alpha = settings.f64("lora_alpha")?;
    match settings.optional_bool("use_rslora")? {
        // Divided by the root of the rank instead.
        Some(true) => {
            settings.unset(&["rank_pattern"])?;
            Ok(alpha * f64::from(settings.u32("r")?).sqrt())
        }
        _ => Ok(alpha),
    }
}

/// MLX adds `scale` times the product; older files have alpha instead.
fn mlx_alpha(settings: &Config, parameters: &Config) -> Result<f64, Error> {
    settings.only("fine_tune_type", &["lora"])?;
    match parameters.optional_f64("scale")? {
        Some(scale) => Ok(scale * f64::from(parameters.u32("rank")?)),
        None => parameters.f64("alpha"),
    }
}
