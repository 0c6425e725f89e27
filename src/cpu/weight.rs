//! A weight that stays in the mapped file.

use crate::backend::WeightSpec;
use crate::quant::QuantType;

/// The rows of a weight, wherever its tensors lie in the file.
pub struct WeightRows<'a> {
    /// First row of each tensor, and its bytes.
    parts: Vec<(usize, &'a [u8])>,
    row_bytes: usize,
    pub quant: QuantType,
    pub rows: usize,
    pub cols: usize,
}

impl<'a> WeightRows<'a> {
    pub fn new(spec: &'a WeightSpec) -> WeightRows<'a> {
        WeightRows::join(spec.quant, spec.cols, spec.parts())
    }

    /// Tensors of one type and row length, as numbers of rows and bytes.
    pub fn join(
        quant: QuantType,
        cols: usize,
        tensors: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> WeightRows<'a> {
        let mut n_rows = 0;
        let mut parts = Vec::new();
        for (rows, bytes) in tensors {
            parts.push((n_rows, bytes));
            n_rows += rows;
        }
        WeightRows {
            parts,
            row_bytes: quant.row_bytes(cols),
            quant,
            rows: n_rows,
            cols,
        }
    }

    /// The bytes of row `i`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [u8] {
        let part = match self.parts.as_slice() {
            [part] => part,
            parts => &parts[parts.partition_point(|part| part.0 <= i) - 1],
        };
        &part.1[(i - part.0) * self.row_bytes..][..self.row_bytes]
    }
}

/// All numbers of a weight, such as a norm's or a bias.
pub fn decode_all(spec: &WeightSpec) -> Vec<f32> {
    let mut out = vec![0.0; spec.rows * spec.cols];
    let mut rest = out.as_mut_slice();
    for (rows, bytes) in spec.parts() {
        let (part, after) = rest.split_at_mut(rows * spec.cols);
        spec.quant.decode(bytes, part);
        rest = after;
    }
    out
}
