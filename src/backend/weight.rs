//! Weight matrices as the model names them, before a backend has them.

use std::sync::Arc;

use crate::gguf::{Gguf, TensorInfo};
use crate::quant::QuantType;

/// A loaded weight. Ids are given out by [`super::Backend::load`] in the order of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub usize);

/// A matrix `[rows, cols]`, stored by rows; vectors have one row. It may be several tensors of
/// one type joined by rows, such as the query, key and value projections of a layer.
#[derive(Debug, Clone)]
pub struct WeightSpec {
    /// Tensor names joined by `+`, for messages.
    pub name: String,
    pub quant: QuantType,
    pub rows: usize,
    pub cols: usize,
    parts: Vec<Part>,
    gguf: Arc<Gguf>,
}

#[derive(Debug, Clone)]
struct Part {
    tensor: TensorInfo,
    first_row: usize,
    rows: usize,
}

impl WeightSpec {
    /// Joins tensors of one file by rows; all must have one type and one row length. Several
    /// vectors become one column, since biases of different lengths are joined too. A bare name
    /// is a join of one.
    ///
    /// # Errors
    /// Names the tensor that is missing or that does not fit the first.
    pub fn join(gguf: &Arc<Gguf>, names: &[&str]) -> Result<WeightSpec, String> {
        let mut parts = Vec::new();
        let mut first: Option<(QuantType, usize)> = None;
        for name in names {
            let tensor = gguf
                .tensor(name)
                .ok_or_else(|| format!("tensor {name} is missing"))?;
            let quant = tensor
                .quant()
                .ok_or_else(|| format!("tensor {name} has an unknown type"))?;
            let is_column = names.len() > 1 && tensor.shape.len() == 1 && quant.is_float();
            let cols = if is_column {
                1
            } else {
                tensor.shape[0] as usize
            };
            if *first.get_or_insert((quant, cols)) != (quant, cols) {
                return Err(format!("tensor {name} cannot be joined to {}", names[0]));
            }
            parts.push(Part {
                first_row: 0,
                rows: (tensor.n_elements() / cols.max(1) as u64) as usize,
                tensor: tensor.clone(),
            });
        }
        let (quant, cols) = first.ok_or("a weight needs at least one tensor")?;
        Ok(WeightSpec {
            name: names.join("+"),
            quant,
            rows: parts.iter().map(|p| p.rows).sum(),
            cols,
            parts,
            gguf: Arc::clone(gguf),
        })
    }

    /// Makes a matrix of plain floats one row.
    pub fn flatten(&mut self) {
        assert!(self.quant.is_float() && self.parts.len() == 1);
        self.cols *= self.rows;
        self.rows = 1;
        self.parts[0].rows = 1;
    }

    /// Sorts rows that alternate in blocks of these widths, over and over: all first blocks, then
    /// all second ones, and so on.
    pub fn deal(&mut self, widths: &[usize]) {
        assert_eq!(self.parts.len(), 1);
        let period: usize = widths.iter().sum();
        assert!(self.rows.is_multiple_of(period));
        let whole = self.parts.remove(0);
        let mut start = 0;
        for &rows in widths {
            self.parts
                .extend((start..whole.rows).step_by(period).map(|first_row| Part {
                    tensor: whole.tensor.clone(),
                    first_row,
                    rows,
                }));
            start += rows;
        }
    }

    /// Whether it is a norm or a bias: one row, or the column that joined vectors become.
    pub fn is_vector(&self) -> bool {
        self.rows == 1 || self.parts.iter().all(|p| p.tensor.shape.len() == 1)
    }

    /// The parts in order: number of rows and their bytes in the mapped file.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (usize, &[u8])> {
        self.parts.iter().map(|p| (p.rows, self.part_bytes(p)))
    }

    fn part_bytes(&self, part: &Part) -> &[u8] {
        let row_bytes = self.row_bytes();
        &self.gguf.data(&part.tensor)[part.first_row * row_bytes..][..part.rows * row_bytes]
    }

    /// The file that holds the bytes; a backend that reads them in place keeps it alive.
    pub fn file(&self) -> &Arc<Gguf> {
        &self.gguf
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.quant.row_bytes(self.cols)
    }

    /// Bytes of the matrix.
    pub fn bytes(&self) -> u64 {
        (self.rows * self.row_bytes()) as u64
    }
}
