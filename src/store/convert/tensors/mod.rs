//! The tensors of a checkpoint as those of a GGUF file: names, types, order of rows.

mod names;

use super::arch::{Architecture, Change, heads};
use super::checkpoint::Checkpoint;
use super::config::{Config, MAX_EXTENT};
use super::rope::Factors;
use super::safetensors::{Entry, Shard};
use super::{Error, bad};
use crate::gguf::Header;
use crate::quant::QuantType;
use names::Names;
use std::collections::BTreeMap;
use std::io::Write;

/// Weights that are converted at a time.
const PIECE: usize = 1 << 20;
/// Small matrices that stay in 32-bit floats.
const KEPT: [&str; 2] = ["position_embd.weight", "token_types.weight"];
const EMBEDDING: &str = "token_embd.weight";

/// A tensor of the file that is made.
struct Target<'a> {
    name: String,
    /// Extents, fastest-varying first.
    shape: Vec<u64>,
    quant: QuantType,
    source: Source<'a>,
}

enum Source<'a> {
    /// A tensor of the checkpoint.
    Stored {
        bytes: &'a [u8],
        quant: QuantType,
        /// Heads whose rows change places.
        n_heads: Option<u64>,
        /// What is added to each weight.
        plus: f32,
    },
    Values(Vec<f32>),
}

/// All tensors of a model, in the order in which they are written.
pub struct Tensors<'a> {
    targets: Vec<Target<'a>>,
}

impl<'a> Tensors<'a> {
    /// Matches what the checkpoint has with what the architecture needs. Matrices get the type `float`, or without one
    /// keep half floats and round others to them.
    pub fn new(
        checkpoint: &'a Checkpoint,
        architecture: &Architecture,
        config: &Config,
        factors: Factors,
        float: Option<Floats>,
    ) -> Result<Tensors<'a>, Error> {
        let tied = config
            .optional_bool("tie_word_embeddings")?
            .or(architecture.is_tied);
        let is_tied = tied.unwrap_or(true);
        let names = Names {
            architecture,
            n_layers: config.n_layers()?,
            is_tied,
        };
        let mut found = BTreeMap::new();
        for (shard, entry) in checkpoint.tensors() {
            let Some((name, change)) = names.of(&shard.name, &entry.name)? else {
                continue;
            };
            let target = target(&name, change, shard, entry, config, float)?;
            if found.insert(order(&name), target).is_some() {
                let text = format!(
                    "tensor {:?} is another's twin: both would be {name}",
                    entry.name
                );
                return Err(bad(&shard.name, text));
            }
        }
        names.check_complete(found.values().map(|target| target.name.as_str()))?;
        let mut targets: Vec<Target> = found.into_values().collect();
        for (name, values) in factors {
            targets.push(Target {
                name: name.into(),
                shape: vec![values.len() as u64],
                quant: QuantType::F32,
                source: Source::Values(values),
            });
        }
        Ok(Tensors { targets })
    }

    /// Columns and rows of the embedding matrix, whose rows are the entries of the vocabulary.
    pub fn embedding(&self) -> (usize, usize) {
        let embedding = self.targets.iter().find(|target| target.name == EMBEDDING);
        match embedding.map(|target| target.shape.as_slice()) {
            Some(&[columns, rows]) => (columns as usize, rows as usize),
            _ => (0, 0),
        }
    }

    /// Type of most of the weights in matrices.
    pub fn main_type(&self) -> QuantType {
        let weights = |quant: QuantType| -> u64 {
            let matrices = self
                .targets
                .iter()
                .filter(|t| t.shape.len() > 1 && t.quant == quant);
            matrices.map(|t| t.shape.iter().product::<u64>()).sum()
        };
        let types = [QuantType::F32, QuantType::F16, QuantType::BF16];
        types
            .into_iter()
            .max_by_key(|&quant| weights(quant))
            .unwrap_or(QuantType::F16)
    }

    /// Adds the directory.
    pub fn describe(&self, header: &mut Header) {
        for target in &self.targets {
            header.tensor(&target.name, &target.shape, target.quant);
        }
    }

    /// Bytes of all tensors in the file that is made, about as many as are read.
    pub fn total(&self) -> u64 {
        self.targets.iter().map(Target::bytes).sum()
    }

    /// Writes the data; `progress` hears how many of the bytes of [`total`](Self::total) are done. Memory is bounded by
    /// a piece and a row.
    pub fn write(
        &self,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut done = 0;
        for target in &self.targets {
            target.write(&mut |piece| {
                out.write_all(piece)
                    .map_err(Error::io("cannot write the model"))?;
                done += piece.len() as u64;
                progress(done)
            })?;
            out.write_all(Header::padding(target.bytes()))
                .map_err(Error::io("cannot write the model"))?;
        }
        Ok(())
    }
}

/// What matrices become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floats {
    /// Of this type.
    As(QuantType),
    /// Of the type that the checkpoint has: they are quantised afterwards.
    Unchanged,
}

fn target<'a>(
    name: &str,
    change: Change,
    shard: &'a Shard,
    entry: &'a Entry,
    config: &Config,
    float: Option<Floats>,
) -> Result<Target<'a>, Error> {
    let wrong = |what: &str| {
        bad(
            &shard.name,
            format!("tensor {:?} of shape {:?} {what}", entry.name, entry.shape),
        )
    };
    let Some(stored) = entry.quant() else {
        return Err(Error::Unsupported(format!(
            "{}: tensor {:?} has type {}; supported are F32, F16, BF16",
            shard.name, entry.name, entry.dtype
        )));
    };
    let is_extent = |extent: &u64| (1..=MAX_EXTENT).contains(extent);
    if !(1..=2).contains(&entry.shape.len()) || !entry.shape.iter().all(is_extent) {
        return Err(wrong("is no vector or matrix of a model"));
    }
    let is_kept = entry.shape.len() == 1 || KEPT.contains(&name);
    let quant = match (is_kept, float, stored) {
        (true, ..) => QuantType::F32,
        (_, Some(Floats::As(quant)), _) => quant,
        (_, Some(Floats::Unchanged), stored) => stored,
        (_, None, QuantType::BF16) => QuantType::BF16,
        _ => QuantType::F16,
    };
    let (n_heads, n_kv_heads) = heads(config)?;
    let n_heads = match change {
        Change::QueryHeads => Some(u64::from(n_heads)),
        Change::KeyHeads => Some(u64::from(n_kv_heads)),
        _ => None,
    };
    if n_heads.is_some_and(|n| !entry.shape[0].is_multiple_of(2 * n)) {
        return Err(wrong("has rows that are no pairs of every head"));
    }
    Ok(Target {
        name: name.into(),
        shape: entry.shape.iter().rev().copied().collect(),
        quant,
        source: Source::Stored {
            bytes: shard.data(entry),
            quant: stored,
            n_heads,
            plus: if change == Change::PlusOne { 1.0 } else { 0.0 },
        },
    })
}

impl Target<'_> {
    fn bytes(&self) -> u64 {
        self.quant
            .row_bytes(self.shape.iter().product::<u64>() as usize) as u64
    }

    fn write(&self, out: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        match &self.source {
            Source::Values(values) => out(&values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>()),
            Source::Stored {
                bytes,
                quant,
                n_heads: Some(n_heads),
                plus,
            } => {
                // A vector is a matrix of one column.
                let row = bytes.len() / self.shape[self.shape.len() - 1] as usize;
                let mut piece = Vec::new();
                for turned in bytes
                    .chunks(bytes.len() / *n_heads as usize)
                    .flat_map(|head| interleaved(head, row))
                {
                    piece.extend_from_slice(turned);
                    if piece.len() >= PIECE {
                        self.write_pieces(&piece, *quant, *plus, out)?;
                        piece.clear();
                    }
                }
                self.write_pieces(&piece, *quant, *plus, out)
            }
            Source::Stored {
                bytes,
                quant,
                n_heads: None,
                plus,
            } => self.write_pieces(bytes, *quant, *plus, out),
        }
    }

    fn write_pieces(
        &self,
        bytes: &[u8],
        from: QuantType,
        plus: f32,
        out: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for piece in bytes.chunks(from.row_bytes(PIECE)) {
            if from == self.quant && plus == 0.0 {
                out(piece)?;
                continue;
            }
            let mut weights = vec![0.0; piece.len() / from.block_bytes()];
            from.decode(piece, &mut weights);
            // Adding zero would take the sign of zeros.
            if plus != 0.0 {
                weights.iter_mut().for_each(|weight| *weight += plus);
            }
            let mut encoded = vec![0; self.quant.row_bytes(weights.len())];
            self.quant.encode(&weights, &mut encoded).map_err(|e| {
                Error::Unsupported(format!("tensor {} cannot be converted: {e}", self.name))
            })?;
            out(&encoded)?;
        }
        Ok(())
    }
}

/// Rows of a head: each of the first half, and behind it that of the second half which turns with it.
fn interleaved(head: &[u8], row: usize) -> impl Iterator<Item = &[u8]> {
    let (first, second) = head.split_at(head.len() / 2);
    let pairs = first.chunks(row).zip(second.chunks(row));
    pairs.flat_map(|(a, b)| [a, b])
}

/// What tensors outside of layers come before, then layer by layer, by name.
fn order(name: &str) -> (Option<u32>, String) {
    let layer = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    (
        layer.and_then(|(number, _)| number.parse().ok()),
        name.into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_head_interleave() {
        let rows = interleaved(&[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], 2);
        assert_eq!(
            rows.collect::<Vec<_>>().concat(),
            [0, 0, 3, 3, 1, 1, 4, 4, 2, 2, 5, 5]
        );
    }
}
