//! Checkpoints in Hugging Face's format to GGUF: a folder's weights, settings and vocabulary become one file.

mod adapter;
mod arch;
mod checkpoint;
mod config;
pub(super) mod limits;
mod pooling;
mod rope;
mod safetensors;
mod tensors;
mod vocab;

use super::quantize::Level;
use super::{Digest, Error, Store};
use crate::gguf::Header;
use crate::quant::QuantType;
pub(super) use adapter::convert_adapter;
use arch::Keys;
use checkpoint::Checkpoint;
use config::Config;
use safetensors::Entry;
use std::io::Write;
use tensors::{Floats, Tensors};

/// Entries of a vocabulary; real ones stay far below.
const MAX_ENTRIES: usize = 1 << 21;

/// The architectures that can be converted, by the name in `config.json`, with what they are in GGUF.
pub fn convertible() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = arch::ARCHITECTURES.iter();
    rows.flat_map(|row| row.names.iter().map(|name| (*name, row.arch)))
}

/// Converts a checkpoint's files, each with the name that the request gives it, and writes the GGUF file to `out`.
///
/// Matrices become half floats, or stay what they are where those of the checkpoint are BF16; vectors become 32-bit
/// floats. With a `level`, matrices get its type if it is one of plain floats, and otherwise stay what they are, to be
/// quantised. Without one, a checkpoint of 8-bit floats is to become `Q8_0`, as Ollama has it. `progress` hears how many
/// bytes are done, of how many; its error ends the work. Returns the level that is left to be quantised to.
///
/// # Errors
/// [`Error::Unsupported`] for what is not converted, by name, and [`Error::BadRequest`] for files that are missing,
/// damaged or contradict each other.
pub(super) fn convert(
    store: &Store,
    files: &[(&str, Digest)],
    level: Option<Level>,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), Error>,
) -> Result<Option<Level>, Error> {
    let checkpoint = Checkpoint::open(store, files)?;
    let is_float8 = |entry: &Entry| entry.float8().is_some();
    let has_float8 = checkpoint.tensors().any(|(_, entry)| is_float8(entry));
    let level = level.or(has_float8.then_some(Level::Q8_0));
    let (name, mut config) = Config::read(&checkpoint)?;
    let architecture = arch::by_name(&name)?;
    config.fill(architecture.defaults);
    let floats = level.map(|level| match level.quant() {
        quant if quant.is_float() => Floats::As(quant),
        _ => Floats::Unchanged,
    });
    let mut header = Header::default();
    header.string("general.architecture", architecture.arch);
    header.string("general.type", "model");
    let mut keys = Keys::new(&mut header, architecture.arch);
    let factors = (architecture.write)(&config, &mut keys)?;
    if architecture.arch == "bert" || checkpoint.has(pooling::MODULES) {
        pooling::write(&checkpoint, &mut keys)?;
    }
    let tensors = Tensors::new(&checkpoint, architecture, &config, factors, floats)?;
    let extents = (config.u32("hidden_size")?, config.u32("vocab_size")?);
    let (n_columns, n_vocab) = tensors.embedding();
    if (n_columns, n_vocab) != (extents.0 as usize, extents.1 as usize) {
        let text = format!(
            "hidden_size and vocab_size are {extents:?}, the embedding has {n_vocab} rows of {n_columns}"
        );
        return Err(bad(config::FILE, text));
    }
    if n_vocab > MAX_ENTRIES {
        let text = format!("vocab_size is {n_vocab}; at most {MAX_ENTRIES} are accepted");
        return Err(bad(config::FILE, text));
    }
    header.u32("general.file_type", file_type(tensors.main_type()));
    header.u32("general.quantization_version", 2);
    vocab::write(
        &checkpoint,
        &config,
        architecture.arch,
        n_vocab,
        &mut header,
    )?;
    tensors.describe(&mut header);
    header
        .write(out)
        .map_err(Error::io("cannot write the model"))?;
    let total = tensors.total();
    tensors.write(out, &mut |done| progress(done, total))?;
    checkpoint.check_whole()?;
    Ok(level.filter(|level| !level.quant().is_float()))
}

/// llama.cpp's number for files whose matrices have this type.
fn file_type(quant: QuantType) -> u32 {
    let level = match quant {
        QuantType::F32 => Level::F32,
        QuantType::BF16 => Level::BF16,
        _ => Level::F16,
    };
    level.file_type()
}

/// An error about one of the files.
fn bad(file: &str, what: impl std::fmt::Display) -> Error {
    Error::BadRequest(format!("{file}: {what}"))
}
