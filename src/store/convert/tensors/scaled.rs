//! Matrices of 8-bit floats with a scale for each block of rows and columns, as DeepSeek and Qwen publish them.
//!
//! Formats: E4M3 and E5M2 of "FP8 Formats for Deep Learning" (Micikevicius et al., 2022). A weight is its float times the
//! scale of its block, which stands in a tensor beside the matrix.

use super::super::config::Config;
use super::super::safetensors::{Entry, Float8, Shard};
use super::super::{Checkpoint, Error, bad};
use super::{MAX_EXTENT, QuantType};
use std::collections::HashMap;
use std::ops::Range;

/// What stands behind a matrix' name in that of its scales.
const SCALES: &str = "_scale_inv";
/// Rows and columns of a block where `config.json` does not say it.
const BLOCK: [usize; 2] = [128, 128];

/// The scales of a checkpoint's matrices.
pub struct Scales<'a> {
    by_matrix: HashMap<&'a str, (&'a Shard, &'a Entry)>,
    block: [usize; 2],
}

/// A matrix, and the scales of its blocks by rows.
pub struct Scaled<'a> {
    floats: &'a [u8],
    format: Float8,
    n_columns: usize,
    scales: Vec<f32>,
    block: [usize; 2],
}

impl<'a> Scales<'a> {
    pub fn new(checkpoint: &'a Checkpoint, config: &Config) -> Result<Scales<'a>, Error> {
        let is_float8: HashMap<&str, bool> = checkpoint
            .tensors()
            .map(|(_, entry)| (entry.name.as_str(), entry.float8().is_some()))
            .collect();
        let by_matrix = checkpoint.tensors().filter_map(|(shard, entry)| {
            let matrix = entry.name.strip_suffix(SCALES)?;
            (is_float8.get(matrix) == Some(&true)).then_some((matrix, (shard, entry)))
        });
        Ok(Scales {
            by_matrix: by_matrix.collect(),
            block: block(config)?,
        })
    }

    /// Whether a tensor holds scales of a matrix that is there.
    pub fn has(&self, name: &str) -> bool {
        let matrix = name.strip_suffix(SCALES);
        matrix.is_some_and(|matrix| self.by_matrix.contains_key(matrix))
    }

    /// A tensor of `format` with its scales.
    pub fn matrix(
        &self,
        shard: &'a Shard,
        entry: &'a Entry,
        format: Float8,
    ) -> Result<Scaled<'a>, Error> {
        let Some(&(file, scales)) = self.by_matrix.get(entry.name.as_str()) else {
            return Err(Error::Unsupported(format!(
                "{}: tensor {:?} has type {} and no {:?} with scales of blocks beside it",
                shard.name,
                entry.name,
                entry.dtype,
                format!("{}{SCALES}", entry.name)
            )));
        };
        let wrong = |what: String| bad(&file.name, format!("tensor {:?} {what}", scales.name));
        let Some(quant) = scales.quant() else {
            return Err(Error::Unsupported(format!(
                "{}: tensor {:?} has type {}; scales of F32, F16, BF16 are supported",
                file.name, scales.name, scales.dtype
            )));
        };
        let blocks: Vec<u64> = entry
            .shape
            .iter()
            .zip(self.block)
            .map(|(&extent, block)| extent.div_ceil(block as u64))
            .collect();
        if entry.shape.len() != 2 || scales.shape != blocks {
            let text = format!(
                "has the shape {:?}: blocks of {:?} in {:?} of shape {:?} need {blocks:?}",
                scales.shape, self.block, entry.name, entry.shape
            );
            return Err(wrong(text));
        }
        let bytes = file.data(scales);
        let mut numbers = vec![0.0; bytes.len() / quant.block_bytes()];
        quant.decode(bytes, &mut numbers);
        Ok(Scaled {
            floats: shard.data(entry),
            format,
            n_columns: entry.shape[1] as usize,
            scales: numbers,
            block: self.block,
        })
    }
}

/// Rows and columns of a block, as the settings have it.
fn block(config: &Config) -> Result<[usize; 2], Error> {
    let Some(settings) = config.object("quantization_config")? else {
        return Ok(BLOCK);
    };
    let extent = |n: &f32| n.fract() == 0.0 && *n <= MAX_EXTENT as f32;
    match settings.optional_f32s("weight_block_size")?.as_deref() {
        None => Ok(BLOCK),
        Some([rows, columns]) if extent(rows) && extent(columns) => {
            Ok([*rows as usize, *columns as usize])
        }
        Some(_) => Err(settings.bad(
            "weight_block_size",
            format!("must be two whole numbers from 1 to {MAX_EXTENT}"),
        )),
    }
}

impl Scaled<'_> {
    pub fn n_rows(&self) -> usize {
        self.floats.len() / self.n_columns
    }

    /// Some of its rows, as the bytes of 32-bit floats.
    pub fn rows(&self, rows: Range<usize>) -> Vec<u8> {
        let numbers: [f32; 256] = std::array::from_fn(|byte| self.format.number(byte as u8));
        let per_row = self.n_columns.div_ceil(self.block[1]);
        let mut bytes = Vec::with_capacity(QuantType::F32.row_bytes(rows.len() * self.n_columns));
        for row in rows {
            let floats = &self.floats[row * self.n_columns..(row + 1) * self.n_columns];
            let scales = &self.scales[row / self.block[0] * per_row..];
            for (floats, scale) in floats.chunks(self.block[1]).zip(scales) {
                let weights = floats.iter().map(|f| numbers[usize::from(*f)] * scale);
                bytes.extend(weights.flat_map(f32::to_le_bytes));
            }
        }
        bytes
    }
}
