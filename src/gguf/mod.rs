//! GGUF files: header, metadata, tensor directory and memory-mapped tensor data.
//!
//! `scan.rs` walks the header first and proves every count, length and offset against the file;
//! only then does the `gguf-rs` crate decode it, from a copy whose arrays are emptied (arrays
//! are read from the map instead: a vocabulary of 262,144 entries would otherwise become as many
//! JSON values). Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod dialect;
mod directory;
mod lora;
mod map;
mod scan;
#[cfg(test)]
mod tests;
mod write;

pub use lora::{Lora, LoraPair};
pub use map::MappedFile;
pub use write::Header;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::quant::QuantType;

/// Why a file is not a usable GGUF file.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be opened or mapped.
    #[error("cannot open {path}: {source}", path = .path.display())]
    Open {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The bytes are not a valid GGUF file; `what` names the part that is wrong.
    #[error("{path} is not a valid GGUF file: {what}", path = .path.display())]
    Invalid { path: PathBuf, what: String },
    /// A valid file that asks for something this program does not have.
    #[error("{path} is not supported: {what}", path = .path.display())]
    Unsupported { path: PathBuf, what: String },
}

impl Error {
    /// What is wrong, without the path: that of a server is not for clients.
    pub fn problem(&self) -> String {
        match self {
            Error::Open { source, .. } => format!("it cannot be opened: {source}"),
            Error::Invalid { what, .. } => format!("it is not a valid GGUF file: {what}"),
            Error::Unsupported { what, .. } => format!("it is not supported: {what}"),
        }
    }
}

/// One metadata value. Integers of all widths become 64-bit.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// The element types of metadata, with GGUF's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

/// An array that still lies in the mapped file; read it through [`Gguf::strings`] and its kin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    pub element: ElementType,
    pub len: usize,
    /// Byte range of the items in the file.
    range: Range<usize>,
}

/// One entry of the tensor directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// Extents, fastest-varying first, as GGUF writes them.
    pub shape: Vec<u64>,
    /// GGML's number of the tensor's type.
    pub ggml_type: u32,
    /// Position of the data, in bytes from the start of the file.
    pub offset: u64,
    /// Size of the data in bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// The quantisation type; always known, since [`Gguf::open`] refuses others by name.
    pub fn quant(&self) -> Option<QuantType> {
        QuantType::from_ggml(self.ggml_type)
    }

    /// Number of weights.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A parsed GGUF file, mapped into memory.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: MappedFile,
    metadata: BTreeMap<String, Value>,
    /// Where each key lies with its type and value, in file order.
    entries: Vec<(String, Range<usize>)>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Opens and checks a file. Every count, length, offset and alignment is proven to lie inside
    /// the file, so that no later access can fail.
    ///
    /// # Errors
    /// [`Error::Open`] if it cannot be mapped, [`Error::Invalid`] if it is damaged, and
    /// [`Error::Unsupported`] for another version, byte order or tensor type.
    pub fn open(path: &Path) -> Result<Gguf, Error> {
        let opened = |source| Error::Open {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(opened)?;
        let is_file = file.metadata().map_err(opened)?.is_file();
        if !is_file {
            return Err(opened(std::io::Error::other("not a regular file")));
        }
        let map = MappedFile::new(file).map_err(opened)?;
        Self::parse(path, map)
    }

    /// Lets go of a tensor's pages; see [`MappedFile::release_pages`].
    pub fn release_pages(&self, tensor: &TensorInfo) {
        let bytes = tensor.offset as usize..(tensor.offset + tensor.bytes) as usize;
        if let Err(e) = self.map.release_pages(bytes) {
            tracing::debug!("pages of {} are kept: {e}", self.path.display());
        }
    }

    /// Whether the file still has all its bytes; if not, zeros may have been read in place of some.
    pub fn is_whole(&self) -> bool {
        self.map.is_whole()
    }

    fn parse(path: &Path, map: MappedFile) -> Result<Gguf, Error> {
        let scan::Scan {
            header,
            quants,
            arrays,
            entries,
        } = scan::scan(&map).map_err(|problem| match problem {
            scan::Problem::Invalid(what) => invalid(path, what),
            scan::Problem::Unsupported(what) => unsupported(path, what),
        })?;
        // The container expects the bytes after the magic.
        let mut container = gguf_rs::GGUFContainer::new(
            gguf_rs::ByteOrder::LE,
            Box::new(Cursor::new(header.condensed)),
            0,
        );
        let decoded = container
            .decode()
            .map_err(|e| invalid(path, e.to_string()))?;
        let metadata = directory::metadata(decoded.metadata(), arrays, path)?;
        let alignment = directory::alignment(&metadata, path)?;
        let data_start = (header.original_bytes as u64).next_multiple_of(alignment);
        let tensors = directory::tensors(
            &decoded,
            &quants,
            data_start,
            alignment,
            map.len() as u64,
            path,
        )?;
        let by_name: HashMap<_, _> = tensors
            .iter()
            .enumerate()
            .map(|(i, t)| (t.name.clone(), i))
            .collect();
        if by_name.len() != tensors.len() {
            return Err(invalid(path, "two tensors have the same name".into()));
        }
        Ok(Gguf {
            path: path.into(),
            map,
            metadata,
            entries,
            tensors,
            by_name,
        })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// `general.architecture`, or an empty string where the file has none.
    pub fn architecture(&self) -> &str {
        self.str("general.architecture").unwrap_or_default()
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// Each key with the bytes that it takes in the file: key, type and value.
    fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let entries = self.entries.iter();
        entries.map(|(key, range)| (key.as_str(), &self.map[range.clone()]))
    }

    /// A string value.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// A non-negative integer of any width.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match *self.metadata.get(key)? {
            Value::U64(v) => Some(v),
            Value::I64(v) => u64::try_from(v).ok(),
            _ => None,
        }
    }

    /// A non-negative integer that fits 32 bits.
    pub fn u32(&self, key: &str) -> Option<u32> {
        u32::try_from(self.u64(key)?).ok()
    }

    /// A number as `f32`; integers convert.
    pub fn f32(&self, key: &str) -> Option<f32> {
        match *self.metadata.get(key)? {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            Value::U64(v) => Some(v as f32),
            Value::I64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match *self.metadata.get(key)? {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    fn array(&self, key: &str) -> Option<&Array> {
        match self.metadata.get(key)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// Length of an array.
    pub fn n_items(&self, key: &str) -> Option<usize> {
        Some(self.array(key)?.len)
    }

    /// The items of a string array, straight from the map. They need not be UTF-8.
    pub fn strings(&self, key: &str) -> Option<Strings<'_>> {
        let array = self.array(key)?;
        (array.element == ElementType::String).then(|| Strings {
            rest: &self.map[array.range.clone()],
            left: array.len,
        })
    }

    /// The items of an integer array, where all fit `i64`.
    pub fn i64s(&self, key: &str) -> Option<Vec<i64>> {
        let array = self.array(key)?;
        let bytes = &self.map[array.range.clone()];
        macro_rules! read {
            ($t:ty) => {
                bytes
                    .chunks_exact(size_of::<$t>())
                    .map(|b| i64::try_from(<$t>::from_le_bytes(b.try_into().ok()?)).ok())
                    .collect()
            };
        }
        match array.element {
            ElementType::U8 => read!(u8),
            ElementType::I8 => read!(i8),
            ElementType::U16 => read!(u16),
            ElementType::I16 => read!(i16),
            ElementType::U32 => read!(u32),
            ElementType::I32 => read!(i32),
            ElementType::U64 => read!(u64),
            ElementType::I64 => read!(i64),
            _ => None,
        }
    }

    /// The items of an integer array, where all fit `i32`.
    pub fn i32s(&self, key: &str) -> Option<Vec<i32>> {
        let items = self.i64s(key)?;
        items.into_iter().map(|v| i32::try_from(v).ok()).collect()
    }

    /// The items of an integer array, where all fit `u32`.
    pub fn u32s(&self, key: &str) -> Option<Vec<u32>> {
        let items = self.i64s(key)?;
        items.into_iter().map(|v| u32::try_from(v).ok()).collect()
    }

    /// The items of a float array.
    pub fn f32s(&self, key: &str) -> Option<Vec<f32>> {
        let array = self.array(key)?;
        let bytes = &self.map[array.range.clone()];
        match array.element {
            ElementType::F32 => Some(
                bytes
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                    .collect(),
            ),
            ElementType::F64 => bytes
                .chunks_exact(8)
                .map(|b| Some(f64::from_le_bytes(b.try_into().ok()?) as f32))
                .collect(),
            _ => None,
        }
    }

    /// The items of an array of 64-bit floats.
    pub fn f64s(&self, key: &str) -> Option<Vec<f64>> {
        let array = self.array(key)?;
        let (items, _) = self.map[array.range.clone()].as_chunks::<8>();
        let items = items.iter().map(|b| f64::from_le_bytes(*b)).collect();
        (array.element == ElementType::F64).then_some(items)
    }

    /// The items of an array of truth values.
    pub fn bools(&self, key: &str) -> Option<Vec<bool>> {
        let array = self.array(key)?;
        (array.element == ElementType::Bool).then(|| {
            self.map[array.range.clone()]
                .iter()
                .map(|&b| b != 0)
                .collect()
        })
    }

    /// The items of an array of bytes, straight from the map.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        let array = self.array(key)?;
        let is_bytes = matches!(array.element, ElementType::U8 | ElementType::I8);
        is_bytes.then(|| &self.map[array.range.clone()])
    }

    /// The tensor directory, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// One tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.tensors[i])
    }

    /// The mapped bytes of a tensor of this file.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.map[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize]
    }
}

/// The items of a string array.
#[derive(Debug, Clone)]
pub struct Strings<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (len, rest) = self.rest.split_first_chunk::<8>()?;
        let (item, rest) = rest.split_at(u64::from_le_bytes(*len) as usize);
        self.rest = rest;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

fn invalid(path: &Path, what: String) -> Error {
    Error::Invalid {
        path: path.into(),
        what,
    }
}

fn unsupported(path: &Path, what: String) -> Error {
    Error::Unsupported {
        path: path.into(),
        what,
    }
}
