//! Quantising: a model's files become one, whose tensors have the types that llama.cpp would choose.

mod level;
mod mix;

pub(super) use level::Level;

use super::Error;
use crate::gguf::{Gguf, Header, TensorInfo};
use crate::quant::{EncodeError, QuantType};
use mix::Mixer;
use std::io::Write;
use std::num::NonZero;

/// Weights that a thread encodes at a time: whole blocks of every type.
const PIECE: usize = 1 << 18;

/// What marks the parts of a model that was split into several files; left out when they are joined.
const SPLIT_KEYS: [&str; 3] = ["split.no", "split.count", "split.tensors.count"];

/// Whether every tensor holds plain floats, which is what can be quantised.
pub(super) fn is_unquantized(gguf: &Gguf) -> bool {
    let mut quants = gguf.tensors().iter().filter_map(TensorInfo::quant);
    quants.all(QuantType::is_float)
}

/// A file that is to be made: all tensors of `parts`, which are one model, with the metadata of the first.
pub(super) struct Rewrite<'a> {
    header: Header,
    /// In the order of the file: where the bytes come from, and the type they get.
    tensors: Vec<(&'a [u8], QuantType, QuantType, &'a str)>,
}

impl<'a> Rewrite<'a> {
    /// With a level, types become what it asks for; without, the parts are only joined.
    pub fn new(parts: &'a [Gguf], level: Option<Level>) -> Result<Rewrite<'a>, Error> {
        let mut header = Header::default();
        let Some(first) = parts.first() else {
            return Err(Error::BadRequest("a model without files".into()));
        };
        let is_ours = |key: &str| level.is_some() && LEVEL_KEYS.contains(&key);
        header.copy_metadata(first, |key| SPLIT_KEYS.contains(&key) || is_ours(key));
        if let Some(level) = level {
            header.u32(LEVEL_KEYS[0], QUANTIZATION_VERSION);
            header.u32(LEVEL_KEYS[1], level.file_type());
        }
        let all: Vec<(&Gguf, &TensorInfo)> = parts
            .iter()
            .flat_map(|part| part.tensors().iter().map(move |tensor| (part, tensor)))
            .collect();
        let mut names = std::collections::HashSet::new();
        if let Some((_, twice)) = all.iter().find(|(_, t)| !names.insert(&t.name)) {
            let text = format!("tensor {} is in two of the files", twice.name);
            return Err(Error::BadRequest(text));
        }
        let mut mixer = level.map(|level| Mixer::new(level, first, all.iter().map(|(_, t)| *t)));
        // The choice goes by layers, whatever the order of the file.
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|&i| mix::layer(&all[i].1.name));
        let mut chosen = vec![QuantType::F32; all.len()];
        for i in order {
            let tensor = all[i].1;
            // The directory of an open file has no other types.
            let quant = tensor.quant().unwrap_or(QuantType::F32);
            chosen[i] = match &mut mixer {
                Some(mixer) => mixer.choose(&tensor.name, &tensor.shape, quant),
                None => quant,
            };
        }
        let mut tensors = Vec::new();
        for ((gguf, tensor), to) in all.into_iter().zip(chosen) {
            header.tensor(&tensor.name, &tensor.shape, to);
            let from = tensor.quant().unwrap_or(QuantType::F32);
            tensors.push((gguf.data(tensor), from, to, tensor.name.as_str()));
        }
        Ok(Rewrite { header, tensors })
    }

    /// Bytes of the tensors before.
    pub fn total(&self) -> u64 {
        self.tensors.iter().map(|t| t.0.len() as u64).sum()
    }

    /// Writes the file; `progress` hears how many of the bytes of [`total`](Self::total) are done, and its error ends
    /// the writing. Memory is bounded by a piece for each thread.
    pub fn write(
        &self,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let cannot_write = || Error::io("cannot write the model");
        self.header.write(out).map_err(cannot_write())?;
        let n_threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut done = 0;
        for &(bytes, from, to, name) in &self.tensors {
            let step = from.row_bytes(PIECE) * n_threads;
            let mut written = 0;
            for bytes in bytes.chunks(step) {
                if from == to {
                    out.write_all(bytes).map_err(cannot_write())?;
                    written += bytes.len();
                } else {
                    let encoded = encode(bytes, from, to).map_err(|e| {
                        Error::Unsupported(format!("tensor {name} cannot be quantized: {e}"))
                    })?;
                    for piece in &encoded {
                        out.write_all(piece).map_err(cannot_write())?;
                        written += piece.len();
                    }
                }
                done += bytes.len() as u64;
                progress(done)?;
            }
            out.write_all(Header::padding(written as u64))
                .map_err(cannot_write())?;
        }
        Ok(())
    }
}

const LEVEL_KEYS: [&str; 2] = ["general.quantization_version", "general.file_type"];
/// Of the layouts of blocks, which have not changed since llama.cpp began to count.
const QUANTIZATION_VERSION: u32 = 2;

/// Whole blocks from one type to another, a piece on each thread.
fn encode(bytes: &[u8], from: QuantType, to: QuantType) -> Result<Vec<Vec<u8>>, EncodeError> {
    let piece = |bytes: &[u8]| {
        let mut weights = vec![0.0; bytes.len() / from.block_bytes() * from.block_len()];
        from.decode(bytes, &mut weights);
        let mut encoded = vec![0; to.row_bytes(weights.len())];
        to.encode(&weights, &mut encoded)?;
        Ok(encoded)
    };
    std::thread::scope(|scope| {
        let pieces = bytes.chunks(from.row_bytes(PIECE));
        let threads: Vec<_> = pieces
            .map(|bytes| scope.spawn(move || piece(bytes)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}
