//! Writing GGUF files: the header, after which the caller writes the tensors' bytes one after the other.

use super::{ElementType, Gguf};
use crate::quant::QuantType;
use std::io::{self, Write};

/// Where tensors begin: at multiples of this many bytes, GGUF's default.
const ALIGNMENT: u64 = 32;
/// GGUF's number of arrays among the types of values.
const ARRAY: u32 = 9;

/// The metadata and the tensor directory of a file that is being made.
#[derive(Debug, Default)]
pub struct Header {
    n_keys: u64,
    metadata: Vec<u8>,
    tensors: Vec<Tensor>,
}

#[derive(Debug)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    quant: QuantType,
}

impl Tensor {
    /// Bytes of the data, without what follows up to the next tensor.
    fn bytes(&self) -> u64 {
        let blocks = self.shape.iter().product::<u64>() / self.quant.block_len() as u64;
        blocks * self.quant.block_bytes() as u64
    }
}

impl Header {
    /// Takes over another file's metadata as they are, without its alignment and the keys that `is_left_out` tells.
    pub fn copy_metadata(&mut self, from: &Gguf, is_left_out: impl Fn(&str) -> bool) {
        for (key, bytes) in from.entries() {
            if key != "general.alignment" && !is_left_out(key) {
                self.metadata.extend_from_slice(bytes);
                self.n_keys += 1;
            }
        }
    }

    /// Adds a whole number.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, ElementType::U32);
        self.metadata.extend(value.to_le_bytes());
    }

    /// Adds a text.
    pub fn string(&mut self, key: &str, value: &str) {
        self.key(key, ElementType::String);
        put_text(&mut self.metadata, value);
    }

    /// Adds a number.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, ElementType::F32);
        self.metadata.extend(value.to_le_bytes());
    }

    /// Adds a truth value.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, ElementType::Bool);
        self.metadata.push(value.into());
    }

    /// Adds an array of texts.
    pub fn strings(&mut self, key: &str, values: &[String]) {
        self.array(key, ElementType::String, values.len());
        for value in values {
            put_text(&mut self.metadata, value);
        }
    }

    /// Adds an array of whole numbers.
    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, ElementType::I32, values.len());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.metadata.extend(bytes);
    }

    /// Adds an array of numbers.
    pub fn f32s(&mut self, key: &str, values: &[f32]) {
        self.array(key, ElementType::F32, values.len());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.metadata.extend(bytes);
    }

    /// Adds an array of truth values.
    pub fn bools(&mut self, key: &str, values: &[bool]) {
        self.array(key, ElementType::Bool, values.len());
        self.metadata
            .extend(values.iter().map(|&value| value as u8));
    }

    fn key(&mut self, key: &str, element: ElementType) {
        self.key_of(key, element as u32);
    }

    /// The key of an array, and what comes before its items.
    fn array(&mut self, key: &str, element: ElementType, len: usize) {
        self.key_of(key, ARRAY);
        self.metadata.extend((element as u32).to_le_bytes());
        self.metadata.extend((len as u64).to_le_bytes());
    }

    fn key_of(&mut self, key: &str, value_type: u32) {
        put_text(&mut self.metadata, key);
        self.metadata.extend(value_type.to_le_bytes());
        self.n_keys += 1;
    }

    /// Adds a tensor to the directory; extents come fastest-varying first, and rows are whole blocks of the type.
    pub fn tensor(&mut self, name: &str, shape: &[u64], quant: QuantType) {
        self.tensors.push(Tensor {
            name: name.into(),
            shape: shape.into(),
            quant,
        });
    }

    /// Writes the header, up to where the first tensor's bytes belong. Behind the bytes of each tensor
    /// [`padding`](Self::padding) follows.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.n_keys.to_le_bytes());
        bytes.extend_from_slice(&self.metadata);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_text(&mut bytes, &tensor.name);
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            for extent in &tensor.shape {
                bytes.extend(extent.to_le_bytes());
            }
            bytes.extend(tensor.quant.ggml().to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        bytes.extend_from_slice(Self::padding(bytes.len() as u64));
        out.write_all(&bytes)
    }

    /// The zeros that follow `bytes` bytes of a tensor.
    pub fn padding(bytes: u64) -> &'static [u8] {
        let left = bytes.next_multiple_of(ALIGNMENT) - bytes;
        &[0; ALIGNMENT as usize][..left as usize]
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, header: &Header| {
            let path = folder.path().join(name);
            let mut file = std::fs::File::create(&path).unwrap();
            header.write(&mut file).unwrap();
            for tensor in &header.tensors {
                let data = vec![name.len() as u8; tensor.bytes() as usize];
                file.write_all(&data).unwrap();
                file.write_all(Header::padding(tensor.bytes())).unwrap();
            }
            Gguf::open(&path).unwrap()
        };
        let mut first = Header::default();
        first.u32("general.file_type", 1);
        first.u32("general.alignment", 32);
        first.u32("a.b", 7);
        first.f32("a.c", 0.5);
        first.bool("a.d", true);
        first.strings("a.e", &["".into(), "é b".into()]);
        first.i32s("a.f", &[-1, 2]);
        first.f32s("a.g", &[1.5]);
        first.bools("a.h", &[true, false]);
        first.tensor("w", &[32, 3], QuantType::Q8_0);
        first.tensor("x", &[5], QuantType::F32);
        first.tensor("y", &[2], QuantType::F16);
        let from = write("first", &first);
        assert_eq!(from.u32("a.b"), Some(7));
        assert_eq!((from.f32("a.c"), from.bool("a.d")), (Some(0.5), Some(true)));
        let texts: Vec<&[u8]> = from.strings("a.e").unwrap().collect();
        assert_eq!(texts, [b"".as_slice(), "é b".as_bytes()]);
        assert_eq!(from.i32s("a.f"), Some(vec![-1, 2]));
        assert_eq!(from.f32s("a.g"), Some(vec![1.5]));
        assert_eq!(from.bools("a.h"), Some(vec![true, false]));
        assert_eq!(from.tensor("x").map(|x| from.data(x).len()), Some(4 * 5));

        let mut second = Header::default();
        second.copy_metadata(&from, |key| key == "general.file_type");
        second.u32("general.file_type", 2);
        second.tensor("z", &[3], QuantType::F32);
        second.tensor("zz", &[32], QuantType::Q4_0);
        let copy = write("second!", &second);
        assert_eq!(copy.u32("general.file_type"), Some(2));
        assert_eq!(copy.u32("a.b"), Some(7));
        assert_eq!(copy.metadata().len(), 8);
        let zz = copy.tensor("zz").unwrap();
        assert_eq!(copy.data(zz), [7; 18]);
    }
}
