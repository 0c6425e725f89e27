//! Metadata of one architecture, read with the key named in every error.

use super::Error;
use crate::gguf::{Gguf, Value};

/// Bound on every extent; real models stay far below, and products of two fit 64 bits.
const MAX_EXTENT: u64 = 1 << 24;

/// The keys below `<architecture>.`.
pub(super) struct Keys<'a> {
    pub gguf: &'a Gguf,
    pub arch: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    /// An error about one key.
    pub fn bad(&self, name: &str, what: impl Into<String>) -> Error {
        Error::Key {
            key: self.key(name),
            what: what.into(),
        }
    }

    /// A positive number that the file may leave out.
    pub fn optional_extent(&self, name: &str) -> Result<Option<usize>, Error> {
        let key = self.key(name);
        match self.gguf.metadata().get(&key) {
            None => Ok(None),
            Some(Value::Array(_)) => self.same_extents(name).map(Some),
            Some(_) => match self.gguf.u64(&key) {
                Some(n) if (1..=MAX_EXTENT).contains(&n) => Ok(Some(n as usize)),
                _ => Err(self.bad(name, format!("a number from 1 to {MAX_EXTENT} is needed"))),
            },
        }
    }

    /// A positive number that the file may leave out or give as zero for none.
    pub fn optional_nonzero(&self, name: &str) -> Result<Option<usize>, Error> {
        match self.gguf.u64(&self.key(name)) {
            Some(0) => Ok(None),
            _ => self.optional_extent(name),
        }
    }

    /// One number per layer, which must all be the same.
    fn same_extents(&self, name: &str) -> Result<usize, Error> {
        let items = self.gguf.u32s(&self.key(name)).unwrap_or_default();
        match items.first() {
            Some(&first) if first > 0 && items.iter().all(|&n| n == first) => Ok(first as usize),
            _ => Err(Error::Unsupported(format!(
                "{} that differs from layer to layer",
                self.key(name)
            ))),
        }
    }

    /// A positive number for each layer, given once or for each.
    pub fn extents(&self, name: &str, n_layers: usize) -> Result<Vec<usize>, Error> {
        let key = self.key(name);
        match self.gguf.metadata().get(&key) {
            Some(Value::Array(_)) => {
                let numbers = self.per_layer(name)?;
                match numbers.len() == n_layers && !numbers.contains(&0) {
                    true => Ok(numbers),
                    false => Err(self.bad(name, "a positive number for each layer is needed")),
                }
            }
            _ => Ok(vec![self.extent(name)?; n_layers]),
        }
    }

    /// One number per layer, zeros included.
    pub fn per_layer(&self, name: &str) -> Result<Vec<usize>, Error> {
        let key = self.key(name);
        let numbers = self.gguf.u32s(&key);
        let numbers = numbers.filter(|n| n.iter().all(|&n| u64::from(n) <= MAX_EXTENT));
        match numbers {
            Some(numbers) => Ok(numbers.into_iter().map(|n| n as usize).collect()),
            None => Err(self.bad(name, "a number for each layer is needed")),
        }
    }

    /// A positive number that the file must have.
    pub fn extent(&self, name: &str) -> Result<usize, Error> {
        self.optional_extent(name)?
            .ok_or_else(|| self.bad(name, "is missing"))
    }

    /// A finite number that the file may leave out.
    pub fn optional_f32(&self, name: &str) -> Result<Option<f32>, Error> {
        if !self.has(name) {
            return Ok(None);
        }
        match self.gguf.f32(&self.key(name)) {
            Some(v) if v.is_finite() => Ok(Some(v)),
            _ => Err(self.bad(name, "a finite number is needed")),
        }
    }

    /// Numbers that the file may leave out; infinite ones too, but all are numbers.
    pub fn optional_f32s(&self, name: &str) -> Result<Option<Vec<f32>>, Error> {
        if !self.has(name) {
            return Ok(None);
        }
        match self.gguf.f32s(&self.key(name)) {
            Some(numbers) if numbers.iter().all(|x| !x.is_nan()) => Ok(Some(numbers)),
            _ => Err(self.bad(name, "an array of numbers is needed")),
        }
    }

    /// A positive number that the file may leave out or give as zero for none.
    pub fn optional_positive(&self, name: &str) -> Result<Option<f32>, Error> {
        Ok(self.optional_f32(name)?.filter(|&v| v > 0.0))
    }

    /// A truth value that the file may leave out.
    pub fn optional_bool(&self, name: &str) -> Result<Option<bool>, Error> {
        if !self.has(name) {
            return Ok(None);
        }
        let value = self.gguf.bool(&self.key(name));
        value
            .map(Some)
            .ok_or_else(|| self.bad(name, "a truth value is needed"))
    }

    /// One truth value per layer, where the file has an array; some write them as numbers.
    pub fn optional_bools(&self, name: &str) -> Result<Option<Vec<bool>>, Error> {
        let key = self.key(name);
        let Some(Value::Array(_)) = self.gguf.metadata().get(&key) else {
            return Ok(None);
        };
        let numbers = || Some(self.gguf.u32s(&key)?.into_iter().map(|n| n != 0).collect());
        match self.gguf.bools(&key).or_else(numbers) {
            Some(values) => Ok(Some(values)),
            None => Err(self.bad(name, "truth values are needed")),
        }
    }

    /// Whether the file has an array there.
    pub fn is_array(&self, name: &str) -> bool {
        let value = self.gguf.metadata().get(&self.key(name));
        matches!(value, Some(Value::Array(_)))
    }

    /// Whether the file has the key.
    pub fn has(&self, name: &str) -> bool {
        self.gguf.metadata().contains_key(&self.key(name))
    }

    /// A string that the file may leave out.
    pub fn optional_str(&self, name: &str) -> Option<&str> {
        self.gguf.str(&self.key(name))
    }
}
