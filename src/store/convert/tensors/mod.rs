//! The tensors of a checkpoint as those of a GGUF file: names, types, order of rows.

mod adapter;
mod names;
mod scaled;

use super::arch::{Architecture, Change, heads, n_experts};
use super::checkpoint::Checkpoint;
use super::config::{Config, MAX_EXTENT};
use super::rope::Factors;
use super::safetensors::{Entry, Shard};
use super::{Error, bad};
use crate::gguf::Header;
use crate::quant::QuantType;
pub use adapter::Base;
use names::Names;
use scaled::{Scaled, Scales};
use std::collections::BTreeMap;
use std::io::Write;

/// Weights that are converted at a time.
const PIECE: usize = 1 << 20;
/// Ends of the names of small matrices that become 32-bit floats.
const KEPT: [&str; 3] = [
    "position_embd.weight",
    "token_types.weight",
    ".ffn_gate_inp.weight",
];
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
    /// A matrix whose columns become rows, of 32-bit floats.
    Turned {
        bytes: &'a [u8],
        quant: QuantType,
        n_heads: Option<u64>,
    },
    /// A matrix of 8-bit floats.
    Scaled {
        matrix: Scaled<'a>,
        n_heads: Option<u64>,
    },
    /// Matrices of one shape and type, one behind the other.
    Joined(Vec<Target<'a>>),
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
        let scales = Scales::new(checkpoint, config)?;
        let mut found = BTreeMap::new();
        let mut experts: BTreeMap<_, BTreeMap<u32, Target>> = BTreeMap::new();
        let tensors = checkpoint.tensors();
        for (shard, entry) in tensors.filter(|(_, entry)| !scales.has(&entry.name)) {
            let Some((name, change)) = names.of(&shard.name, &entry.name)? else {
                continue;
            };
            let target = target(&name, change, (shard, entry), &scales, config, float)?;
            let other = match change {
                Change::Expert(n) => experts.entry(order(&name)).or_default().insert(n, target),
                _ => found.insert(order(&name), target),
            };
            if other.is_some() {
                let text = format!(
                    "tensor {:?} is another's twin: both would be {name}",
                    entry.name
                );
                return Err(bad(&shard.name, text));
            }
        }
        for (key, parts) in experts {
            found.insert(key, joined(parts, n_experts(config)?)?);
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
    (shard, entry): (&'a Shard, &'a Entry),
    scales: &Scales<'a>,
    config: &Config,
    float: Option<Floats>,
) -> Result<Target<'a>, Error> {
    let wrong = |what: &str| {
        bad(
            &shard.name,
            format!("tensor {:?} of shape {:?} {what}", entry.name, entry.shape),
        )
    };
    // 8-bit floats become 32-bit ones on the way.
    let float8 = entry.float8();
    let Some(stored) = entry.quant().or(float8.map(|_| QuantType::F32)) else {
        return Err(Error::Unsupported(format!(
            "{}: tensor {:?} has type {}; supported are F32, F16, BF16, and F8_E4M3 and F8_E5M2 with scales of blocks",
            shard.name, entry.name, entry.dtype
        )));
    };
    let is_extent = |extent: &u64| (1..=MAX_EXTENT).contains(extent);
    if !(1..=2).contains(&entry.shape.len()) || !entry.shape.iter().all(is_extent) {
        return Err(wrong("is no vector or matrix of a model"));
    }
    let is_kept = entry.shape.len() == 1 || KEPT.iter().any(|end| name.ends_with(end));
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
        source: match float8 {
            Some(format) => Source::Scaled {
                matrix: scales.matrix(shard, entry, format)?,
                n_heads,
            },
            None => Source::Stored {
                bytes: shard.data(entry),
                quant: stored,
                n_heads,
                plus: if change == Change::PlusOne { 1.0 } else { 0.0 },
            },
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
            Source::Joined(parts) => parts.iter().try_for_each(|part| part.write(out)),
            Source::Stored {
                bytes,
                quant,
                n_heads,
                plus,
            } => self.write_rows(bytes, *quant, *n_heads, *plus, out),
            Source::Scaled { matrix, n_heads } => {
                let n_rows = matrix.n_rows();
                // One head at a time, or rows of about a piece.
                let band = match n_heads {
                    Some(n) => n_rows / *n as usize,
                    None => (PIECE / self.shape[0] as usize).max(1),
                };
                (0..n_rows).step_by(band).try_for_each(|first| {
                    let rows = matrix.rows(first..n_rows.min(first + band));
                    self.write_rows(&rows, QuantType::F32, n_heads.map(|_| 1), 0.0, out)
                })
            }
            Source::Turned {
                bytes,
                quant,
                n_heads,
            } => {
                let mut weights = vec![0.0; bytes.len() / quant.block_bytes()];
                quant.decode(bytes, &mut weights);
                let n_rows = self.shape[1] as usize;
                let turned = (0..n_rows).flat_map(|row| weights[row..].iter().step_by(n_rows));
                let turned: Vec<u8> = turned.flat_map(|weight| weight.to_le_bytes()).collect();
                self.write_rows(&turned, QuantType::F32, *n_heads, 0.0, out)
            }
        }
    }

    /// Writes rows, with those of each of `n_heads` heads in the order in which pairs turn.
    fn write_rows(
        &self,
        bytes: &[u8],
        from: QuantType,
        n_heads: Option<u64>,
        plus: f32,
        out: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(n_heads) = n_heads else {
            return self.write_pieces(bytes, from, plus, out);
        };
        // A vector is a matrix of one column.
        let row = from.row_bytes(match self.shape[..] {
            [_] => 1,
            [columns, ..] => columns as usize,
            [] => 1,
        });
        let mut piece = Vec::new();
        for turned in bytes
            .chunks(bytes.len() / n_heads as usize)
            .flat_map(|head| interleaved(head, row))
        {
            piece.extend_from_slice(turned);
            if piece.len() >= PIECE {
                self.write_pieces(&piece, from, plus, out)?;
                piece.clear();
            }
        }
        self.write_pieces(&piece, from, plus, out)
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

/// The matrices of all experts as one tensor.
fn joined(parts: BTreeMap<u32, Target>, n_experts: u32) -> Result<Target, Error> {
    let numbers = parts.keys().copied();
    let is_complete = numbers.eq(0..n_experts);
    let parts: Vec<Target> = parts.into_values().collect();
    let first = &parts[0];
    let (name, mut shape, quant) = (first.name.clone(), first.shape.clone(), first.quant);
    let is_even = parts
        .iter()
        .all(|part| part.shape == shape && part.quant == quant);
    if !is_complete || !is_even {
        let text = format!(
            "{name} needs {n_experts} experts of one shape and type, and the safetensors files have others"
        );
        return Err(Error::BadRequest(text));
    }
    shape.push(u64::from(n_experts));
    Ok(Target {
        name,
        shape,
        quant,
        source: Source::Joined(parts),
    })
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
