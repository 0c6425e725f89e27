//! Weight matrices as the model names them, before a backend has them.

use std::sync::Arc;

use super::BackendError;
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
    /// Rows of all experts together.
    pub rows: usize,
    pub cols: usize,
    /// Matrices of `rows / n_experts` rows that lie one after another: one, but for weights that
    /// [`WeightSpec::experts`] makes.
    pub n_experts: usize,
    is_vector: bool,
    parts: Vec<Part>,
    gguf: Arc<Gguf>,
}

/// Rows of a tensor.
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
        let rows = parts.iter().map(|p| p.rows).sum();
        Ok(WeightSpec {
            name: names.join("+"),
            quant,
            rows,
            cols,
            n_experts: 1,
            is_vector: rows == 1 || parts.iter().all(|p| p.tensor.shape.len() == 1),
            parts,
            gguf: Arc::clone(gguf),
        })
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

    /// Some rows of a weight of one tensor.
    pub fn cut_rows(&self, first_row: usize, rows: usize) -> WeightSpec {
        assert!(self.parts.len() == 1 && first_row + rows <= self.rows);
        let part = Part {
            tensor: self.parts[0].tensor.clone(),
            first_row: self.parts[0].first_row + first_row,
            rows,
        };
        WeightSpec {
            name: format!("{}[{first_row}..{}]", self.name, first_row + rows),
            rows,
            parts: vec![part],
            ..self.clone()
        }
    }

    /// A matrix as one row: norms that have a vector for each head.
    ///
    /// # Errors
    /// Names a tensor that is missing or does not hold plain 32-bit floats, whose rows alone lie
    /// one after another on every device.
    pub fn flat(gguf: &Arc<Gguf>, name: &str) -> Result<WeightSpec, String> {
        let mut spec = WeightSpec::join(gguf, &[name])?;
        if spec.quant != QuantType::F32 {
            return Err(format!(
                "tensor {name} has type {}, F32 is needed",
                spec.quant.name()
            ));
        }
        spec.cols *= spec.rows;
        spec.rows = 1;
        spec.is_vector = true;
        spec.parts.iter_mut().for_each(|part| part.rows = 1);
        Ok(spec)
    }

    /// The matrices of experts: tensors `[n_experts, rows, cols]` of one type and shape, joined
    /// within each expert (`gate` and `up`, say), so that one expert's rows lie together.
    ///
    /// # Errors
    /// Names the tensor that is missing or that does not fit.
    pub fn experts(
        gguf: &Arc<Gguf>,
        names: &[&str],
        n_experts: usize,
    ) -> Result<WeightSpec, String> {
        let joined = WeightSpec::join(gguf, names)?;
        joined.by_expert(n_experts, false)
    }

    /// As [`WeightSpec::experts`], of tensors `[rows, cols]` for one expert after another.
    ///
    /// # Errors
    /// Names the tensor that is missing or that does not fit.
    pub fn separate_experts(
        gguf: &Arc<Gguf>,
        names: &[&str],
        n_experts: usize,
    ) -> Result<WeightSpec, String> {
        let mut joined = WeightSpec::join(gguf, names)?;
        let rows = joined.parts[0].rows;
        if let Some(part) = joined.parts.iter().find(|part| part.rows != rows) {
            return Err(format!(
                "tensor {} has {} rows, {rows} are needed",
                part.tensor.name, part.rows
            ));
        }
        joined.n_experts = n_experts;
        joined.is_vector = false;
        Ok(joined)
    }

    /// Experts of one matrix each as experts of so many matrices with equally many rows.
    pub fn cut_experts(mut self, n_parts: usize) -> WeightSpec {
        let cut = |whole: &Part| {
            let rows = whole.rows / n_parts;
            let tensor = whole.tensor.clone();
            let first = whole.first_row;
            (0..n_parts).map(move |i| Part {
                tensor: tensor.clone(),
                first_row: first + i * rows,
                rows,
            })
        };
        self.parts = self.parts.iter().flat_map(cut).collect();
        self
    }

    /// The biases of experts: tensors `[n_experts, rows]` of 32-bit floats, in the order of
    /// [`WeightSpec::experts`].
    ///
    /// # Errors
    /// As [`WeightSpec::experts`].
    pub fn expert_biases(
        gguf: &Arc<Gguf>,
        names: &[&str],
        n_experts: usize,
    ) -> Result<WeightSpec, String> {
        let mut joined = WeightSpec::join(gguf, names)?;
        if !joined.quant.is_float() {
            return Err(format!("tensor {} must hold plain floats", joined.name));
        }
        for part in &mut joined.parts {
            part.rows = part.tensor.n_elements() as usize;
        }
        joined.cols = 1;
        joined.by_expert(n_experts, true)
    }

    fn by_expert(mut self, n_experts: usize, is_vector: bool) -> Result<WeightSpec, String> {
        let rows = self.parts[0].rows;
        let fits = |part: &Part| part.rows == rows && rows.is_multiple_of(n_experts);
        if let Some(part) = self.parts.iter().find(|part| !fits(part)) {
            return Err(format!(
                "tensor {} has {} rows, which are not {n_experts} times those of {}",
                part.tensor.name, part.rows, self.parts[0].tensor.name
            ));
        }
        let rows = rows / n_experts;
        let part = |expert: usize, whole: &Part| Part {
            tensor: whole.tensor.clone(),
            first_row: expert * rows,
            rows,
        };
        let experts = 0..n_experts;
        let parts: Vec<Part> = experts
            .flat_map(|e| self.parts.iter().map(move |p| part(e, p)))
            .collect();
        self.rows = parts.len() * rows;
        self.n_experts = n_experts;
        self.is_vector = is_vector;
        self.parts = parts;
        Ok(self)
    }

    /// Tensors that are joined within an expert.
    pub fn parts_per_expert(&self) -> usize {
        self.parts.len() / self.n_experts
    }

    /// Whether it is a norm or a bias: one row, or the column that joined vectors become.
    pub fn is_vector(&self) -> bool {
        self.is_vector
    }

    /// The parts in order: number of rows and their bytes in the mapped file.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (usize, &[u8])> {
        self.parts.iter().map(|p| (p.rows, self.part_bytes(p)))
    }

    /// Lets go of the pages of its tensors, which are read again where they are needed.
    pub fn release_pages(&self) {
        for part in &self.parts {
            self.gguf.release_pages(&part.tensor);
        }
    }

    /// Rows and bytes of part `i`.
    pub fn part(&self, i: usize) -> (usize, &[u8]) {
        let part = &self.parts[i];
        (part.rows, self.part_bytes(part))
    }

    fn part_bytes(&self, part: &Part) -> &[u8] {
        let row_bytes = self.row_bytes();
        &self.gguf.data(&part.tensor)[part.first_row * row_bytes..][..part.rows * row_bytes]
    }

    /// The file that holds the bytes; a backend that reads them in place keeps it alive.
    pub fn file(&self) -> &Arc<Gguf> {
        &self.gguf
    }

    /// To be asked after bytes were read.
    ///
    /// # Errors
    /// [`BackendError::FileCut`] where the file has lost some of them.
    pub fn check_file(&self) -> Result<(), BackendError> {
        if self.gguf.is_whole() {
            return Ok(());
        }
        let file = self.gguf.path().file_name().unwrap_or_default();
        let file = file.to_string_lossy().into_owned();
        Err(BackendError::FileCut { file })
    }

    /// The layer it belongs to, from its tensors' names: `blk.<layer>.<part>`.
    pub fn layer(&self) -> Option<usize> {
        let rest = self.name.strip_prefix("blk.")?;
        rest.split('.').next()?.parse().ok()
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
