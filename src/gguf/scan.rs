//! The first walk over a GGUF header: proves its structure and notes where arrays lie.

use std::collections::HashMap;
use std::ops::Range;

use super::{Array, ElementType};
use crate::quant::{self, QuantType};

/// Bounds that no real file comes near; they keep a hostile one from costing memory.
const MAX_TENSORS: u64 = 1 << 16;
const MAX_KEYS: u64 = 1 << 16;
const MAX_KEY_BYTES: u64 = 65_535;
const MAX_STRING_BYTES: u64 = 16 << 20;
const MAX_NAME_BYTES: u64 = 256;
const MAX_ITEMS: u64 = 1 << 24;
/// All scalar strings together, since the header is copied once.
const MAX_CONDENSED_BYTES: usize = 64 << 20;

/// Why a header was refused.
pub(super) enum Problem {
    Invalid(String),
    Unsupported(String),
}

/// Where each key lies with its type and value, in file order.
pub(super) type Entries = Vec<(String, Range<usize>)>;

/// A header that has been walked to its end.
pub(super) struct Scan {
    pub header: Header,
    /// The tensors' types, in file order.
    pub quants: Vec<QuantType>,
    /// Arrays by key; their items stay in the file.
    pub arrays: HashMap<String, Array>,
    pub entries: Entries,
}

pub(super) struct Header {
    /// The header after the magic, with every array emptied and every tensor's type F32: the
    /// decoder does not know all types.
    pub condensed: Vec<u8>,
    /// Length of the header in the file, magic included.
    pub original_bytes: usize,
}

struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
    condensed: Vec<u8>,
}

type Result<T> = std::result::Result<T, Problem>;

fn invalid<T>(what: impl Into<String>) -> Result<T> {
    Err(Problem::Invalid(what.into()))
}

/// Walks the header of a mapped file.
pub(super) fn scan(bytes: &[u8]) -> Result<Scan> {
    match bytes.get(..4) {
        Some(b"GGUF") => {}
        Some(b"FUGG") => {
            return Err(Problem::Unsupported(
                "it is big-endian; convert it to little-endian".into(),
            ));
        }
        _ => return invalid("it does not begin with the magic GGUF"),
    }
    let mut walker = Walker {
        bytes,
        at: 4,
        condensed: Vec::new(),
    };
    let version = walker.u32("the version")?;
    if !(2..=3).contains(&version) {
        return Err(Problem::Unsupported(format!(
            "GGUF version {version}; versions 2 and 3 are read"
        )));
    }
    let n_tensors = walker.count("the number of tensors", MAX_TENSORS)?;
    let n_keys = walker.count("the number of metadata keys", MAX_KEYS)?;
    let (arrays, entries) = walker.metadata(n_keys)?;
    let mut quants = Vec::new();
    for i in 0..n_tensors {
        quants.push(walker.tensor(i)?);
    }
    let header = Header {
        original_bytes: walker.at,
        condensed: walker.condensed,
    };
    Ok(Scan {
        header,
        quants,
        arrays,
        entries,
    })
}

impl<'a> Walker<'a> {
    /// The next `n` bytes; with `keep` they go to the condensed header too.
    fn take(&mut self, n: u64, what: &str, keep: bool) -> Result<&'a [u8]> {
        let left = (self.bytes.len() - self.at) as u64;
        if n > left {
            return invalid(format!(
                "it ends inside {what}: {n} bytes are needed at byte {}, {left} are left",
                self.at
            ));
        }
        let taken = &self.bytes[self.at..self.at + n as usize];
        self.at += n as usize;
        if keep {
            if self.condensed.len() + taken.len() > MAX_CONDENSED_BYTES {
                return invalid(format!(
                    "its header holds more than {MAX_CONDENSED_BYTES} bytes of text"
                ));
            }
            self.condensed.extend_from_slice(taken);
        }
        Ok(taken)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        let bytes = self.take(4, what, true)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self, what: &str, keep: bool) -> Result<u64> {
        let bytes = self.take(8, what, keep)?;
        Ok(bytes.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
    }

    fn count(&mut self, what: &str, max: u64) -> Result<u64> {
        let n = self.u64(what, true)?;
        if n > max {
            return invalid(format!("{what} is {n}, at most {max} are accepted"));
        }
        Ok(n)
    }

    /// A string with its length before it; `max` bounds the length in bytes.
    fn string(&mut self, what: &str, max: u64) -> Result<&'a [u8]> {
        let len = self.u64(what, true)?;
        if len > max {
            return invalid(format!(
                "{what} is {len} bytes long, at most {max} are accepted"
            ));
        }
        self.take(len, what, true)
    }

    fn metadata(&mut self, n_keys: u64) -> Result<(HashMap<String, Array>, Entries)> {
        let (mut arrays, mut entries) = (HashMap::new(), Vec::new());
        let mut seen = std::collections::HashSet::new();
        for i in 0..n_keys {
            let start = self.at;
            let key = self.string(&format!("metadata key {i}"), MAX_KEY_BYTES)?;
            let Ok(key) = std::str::from_utf8(key) else {
                return invalid(format!("metadata key {i} is not UTF-8"));
            };
            if !seen.insert(key) {
                return invalid(format!("key {key} appears twice"));
            }
            let what = format!("the value of {key}");
            match self.u32(&what)? {
                8 => {
                    self.string(&what, MAX_STRING_BYTES)?;
                }
                9 => {
                    arrays.insert(key.to_string(), self.array(&what)?);
                }
                other => match element(other).and_then(width) {
                    Some(width) => {
                        self.take(width, &what, true)?;
                    }
                    None => return invalid(format!("{what} has the unknown type {other}")),
                },
            }
            entries.push((key.to_string(), start..self.at));
        }
        Ok((arrays, entries))
    }

    /// Steps over an array; the condensed header gets an empty one.
    fn array(&mut self, what: &str) -> Result<Array> {
        let kind = self.u32(what)?;
        let Some(element) = element(kind) else {
            return invalid(format!("{what} is an array of the unknown type {kind}"));
        };
        let len = self.u64(what, false)?;
        self.condensed.extend_from_slice(&0u64.to_le_bytes());
        if len > MAX_ITEMS {
            return invalid(format!(
                "{what} has {len} items, at most {MAX_ITEMS} are accepted"
            ));
        }
        let start = self.at;
        match width(element) {
            Some(width) => {
                self.take(len * width, what, false)?;
            }
            None => {
                for _ in 0..len {
                    let bytes = self.u64(what, false)?;
                    self.take(bytes, what, false)?;
                }
            }
        }
        Ok(Array {
            element,
            len: len as usize,
            range: start..self.at,
        })
    }

    fn tensor(&mut self, i: u64) -> Result<QuantType> {
        let what = format!("tensor {i} of the directory");
        let name = self.string(&what, MAX_NAME_BYTES)?;
        let name = String::from_utf8_lossy(name).into_owned();
        let n_dims = self.u32(&what)?;
        if !(1..=4).contains(&n_dims) {
            return invalid(format!(
                "tensor {name} has {n_dims} extents, 1 to 4 are accepted"
            ));
        }
        let mut elements = 1u64;
        for _ in 0..n_dims {
            let extent = self.u64(&what, true)?;
            elements = match elements.checked_mul(extent).filter(|&n| n <= 1 << 48) {
                Some(n) => n,
                None => return invalid(format!("tensor {name}: its size overflows")),
            };
        }
        let kind = self.take(4, &what, false)?;
        let kind = u32::from_le_bytes([kind[0], kind[1], kind[2], kind[3]]);
        let Some(quant) = QuantType::from_ggml(kind) else {
            return Err(Problem::Unsupported(format!(
                "tensor {name} has type {}; supported are {}",
                quant::ggml_name(kind),
                quant::supported_names()
            )));
        };
        let f32 = QuantType::F32.ggml();
        self.condensed.extend_from_slice(&f32.to_le_bytes());
        self.u64(&what, true)?;
        Ok(quant)
    }
}

fn element(kind: u32) -> Option<ElementType> {
    use ElementType::*;
    Some(match kind {
        0 => U8,
        1 => I8,
        2 => U16,
        3 => I16,
        4 => U32,
        5 => I32,
        6 => F32,
        7 => Bool,
        8 => String,
        10 => U64,
        11 => I64,
        12 => F64,
        _ => return None,
    })
}

/// Bytes of one item; none for strings, whose length varies.
fn width(element: ElementType) -> Option<u64> {
    use ElementType::*;
    Some(match element {
        U8 | I8 | Bool => 1,
        U16 | I16 => 2,
        U32 | I32 | F32 => 4,
        U64 | I64 | F64 => 8,
        String => return None,
    })
}
