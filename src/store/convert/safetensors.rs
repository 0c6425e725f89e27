//! Files of tensors: a length, a JSON header of names, types, shapes and places, then the data.
//!
//! Format: <https://huggingface.co/docs/safetensors>. Everything that the header claims is proven against the file
//! before any tensor is looked at.

use super::limits::{Few, parse};
use super::{Error, bad};
use crate::gguf::MappedFile;
use crate::quant::QuantType;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

const MAX_HEADER_BYTES: u64 = 100 << 20;
const MAX_TENSORS: usize = 1_000_000;
const MAX_EXTENTS: usize = 8;
/// A member of the header that is no tensor.
const METADATA: &str = "__metadata__";

/// Names of element types, with their sizes in bytes.
const DTYPES: &[(&str, u64)] = &[
    ("F64", 8),
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
    ("I64", 8),
    ("I32", 4),
    ("I16", 2),
    ("I8", 1),
    ("U64", 8),
    ("U32", 4),
    ("U16", 2),
    ("U8", 1),
    ("BOOL", 1),
];

/// A mapped file.
#[derive(Debug)]
pub struct Shard {
    /// Its name in the request.
    pub name: String,
    map: MappedFile,
    /// In the order of the data.
    pub entries: Vec<Entry>,
}

/// A tensor of a file.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    pub dtype: &'static str,
    /// Extents, slowest-varying first.
    pub shape: Vec<u64>,
    /// Where it lies in the file.
    range: Range<u64>,
}

impl Entry {
    /// The type of its weights, where they are floats that this program reads.
    pub fn quant(&self) -> Option<QuantType> {
        match self.dtype {
            "F32" => Some(QuantType::F32),
            "F16" => Some(QuantType::F16),
            "BF16" => Some(QuantType::BF16),
            _ => None,
        }
    }

    /// The format of its numbers, where those are floats of eight bits, which need scales.
    pub fn float8(&self) -> Option<Float8> {
        match self.dtype {
            "F8_E4M3" => Some(Float8::E4M3),
            "F8_E5M2" => Some(Float8::E5M2),
            _ => None,
        }
    }
}

/// Floats of eight bits: a sign, an exponent, and the rest of the significand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float8 {
    /// Four bits of exponent, three behind the point; no infinities.
    E4M3,
    /// The upper half of a half float.
    E5M2,
}

impl Float8 {
    /// The number that a byte stands for.
    pub fn number(self, byte: u8) -> f32 {
        let sign = if byte < 0x80 { 1.0 } else { -1.0 };
        let (exponent, fraction) = (i32::from(byte >> 3 & 0xF), f32::from(byte & 7) / 8.0);
        match self {
            Float8::E5M2 => half::f16::from_bits(u16::from(byte) << 8).to_f32(),
            Float8::E4M3 if byte & 0x7F == 0x7F => f32::NAN,
            Float8::E4M3 if exponent == 0 => sign * fraction * f32::powi(2.0, -6),
            Float8::E4M3 => sign * (1.0 + fraction) * f32::powi(2.0, exponent - 7),
        }
    }
}

impl Shard {
    /// Maps the file at `path`, which the request calls `name`, and proves its header.
    pub fn open(name: &str, path: &Path) -> Result<Shard, Error> {
        let cannot = || Error::io(format!("cannot read {name}"));
        let file = File::open(path).map_err(cannot())?;
        let map = MappedFile::new(file).map_err(cannot())?;
        let entries = entries(name, &map)?;
        Ok(Shard {
            name: name.into(),
            map,
            entries,
        })
    }

    /// Whether the file still has all its bytes; if not, zeros may have been read in place of some.
    pub fn is_whole(&self) -> bool {
        self.map.is_whole()
    }

    /// The bytes of one of its tensors.
    pub fn data(&self, entry: &Entry) -> &[u8] {
        &self.map[entry.range.start as usize..entry.range.end as usize]
    }
}

/// The tensors that the header of a file describes, in the order of the data, which they fill.
fn entries(name: &str, file: &[u8]) -> Result<Vec<Entry>, Error> {
    let no_header = |what: String| bad(name, format!("it is no safetensors file: {what}"));
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        let text = format!("{} bytes are too few for a header", file.len());
        return Err(no_header(text));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES || length > rest.len() as u64 {
        let text = format!("a header of {length} bytes in a file of {}", file.len());
        return Err(no_header(text));
    }
    let (header, data) = rest.split_at(length as usize);
    let header: Header = parse(name, header)?;
    let data_start = 8 + length;
    let mut entries = Vec::with_capacity(header.0.len());
    for (tensor, description) in header.0 {
        entries.push(entry(tensor, description, data_start).map_err(|what| bad(name, what))?);
    }
    entries.sort_by_key(|entry| (entry.range.start, entry.range.end));
    let mut end = data_start;
    for entry in &entries {
        if entry.range.start != end {
            let text = format!("tensor {:?} overlaps another, or leaves a gap", entry.name);
            return Err(bad(name, text));
        }
        end = entry.range.end;
    }
    let of_data = data_start + data.len() as u64;
    if end != of_data {
        let text = format!("its tensors end at byte {end}, the file at {of_data}");
        return Err(bad(name, text));
    }
    let mut names = HashSet::new();
    if let Some(twice) = entries.iter().find(|entry| !names.insert(&entry.name)) {
        return Err(bad(name, format!("tensor {:?} is there twice", twice.name)));
    }
    Ok(entries)
}

fn entry(name: String, description: Description, data_start: u64) -> Result<Entry, String> {
    let Description {
        dtype,
        shape: Few(shape),
        data_offsets: [start, end],
    } = description;
    let known = DTYPES.iter().find(|(known, _)| *known == dtype);
    let Some(&(dtype, size)) = known else {
        return Err(format!("tensor {name:?} has the unknown type {dtype:?}"));
    };
    let bytes = shape
        .iter()
        .try_fold(size, |bytes, &extent| bytes.checked_mul(extent));
    let is_right = end.checked_sub(start).is_some_and(|n| Some(n) == bytes);
    let place = |offset: u64| data_start.checked_add(offset);
    match (is_right, place(start), place(end)) {
        (true, Some(start), Some(end)) => Ok(Entry {
            name,
            dtype,
            shape,
            range: start..end,
        }),
        _ => Err(format!(
            "tensor {name:?} of type {dtype} and shape {shape:?} cannot lie from byte {start} to {end}"
        )),
    }
}

/// The members of the header, but for metadata.
struct Header(Vec<(String, Description)>);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    dtype: String,
    shape: Few<u64, MAX_EXTENTS>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Header, A::Error> {
        let mut tensors = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            if name == METADATA {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            if tensors.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            let description = members.next_value();
            let description = description
                .map_err(|e| A::Error::custom(format!("tensor {name:?} is not described: {e}")))?;
            tensors.push((name, description));
        }
        Ok(Header(tensors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of "FP8 Formats for Deep Learning".
    #[test]
    fn floats_of_eight_bits() {
        for (byte, number) in [
            (0x00, 0.0),
            (0x01, f32::powi(2.0, -9)),
            (0x07, 7.0 * f32::powi(2.0, -9)),
            (0x08, 0.015625),
            (0x38, 1.0),
            (0x39, 1.125),
            (0x7E, 448.0),
            (0xFE, -448.0),
            (0xB8, -1.0),
        ] {
            assert_eq!(Float8::E4M3.number(byte), number, "{byte:#x}");
        }
        assert!(Float8::E4M3.number(0x7F).is_nan() && Float8::E4M3.number(0xFF).is_nan());
        for (byte, number) in [
            (0x01, f32::powi(2.0, -16)),
            (0x04, f32::powi(2.0, -14)),
            (0x3C, 1.0),
            (0x3D, 1.25),
            (0x7B, 57344.0),
            (0xFC, f32::NEG_INFINITY),
        ] {
            assert_eq!(Float8::E5M2.number(byte), number, "{byte:#x}");
        }
        assert!(Float8::E5M2.number(0x7D).is_nan());
    }

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data, 7);
        file
    }

    fn error(file: &[u8]) -> String {
        entries("m.safetensors", file).unwrap_err().to_string()
    }

    #[test]
    fn what_the_header_says() {
        let header = r#"{"b": {"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},
            "__metadata__": {"format": "pt", "deep": [[{}]]},
            "a": {"dtype":"F32","shape":[],"data_offsets":[0,4]}, "none": {"dtype":"I8","shape":[0],"data_offsets":[4,4]}}"#;
        let entries = entries("m", &file(header, 16)).unwrap();
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a", "none", "b"]);
        assert_eq!(entries[2].shape, [2, 3]);
        assert_eq!(entries[2].range.end - entries[2].range.start, 12);
        assert_eq!(entries[2].quant(), Some(QuantType::BF16));
        assert_eq!(entries[1].quant(), None);
    }

    /// Every lie is an error that names what lies, and takes no memory for it.
    #[test]
    fn hostile_headers() {
        let of_length = |length: u64| {
            let mut file = file("{}", 64);
            file[..8].copy_from_slice(&length.to_le_bytes());
            error(&file)
        };
        for length in [u64::MAX, i64::MAX as u64, (100 << 20) + 1, 100] {
            let error = of_length(length);
            assert!(
                error.contains(&format!("a header of {length} bytes")),
                "{error}"
            );
        }
        assert!(
            of_length(0).starts_with("m.safetensors: EOF"),
            "{}",
            of_length(0)
        );
        for file in [&b""[..], b"1234567", b"GGUF\x03\0\0\0\0\0\0\0"] {
            assert!(
                error(file).contains("no safetensors file"),
                "{}",
                error(file)
            );
        }
        let lying = |tensor: &str| error(&file(&format!(r#"{{"t": {tensor}}}"#), 16));
        let undescribed = "\"t\" is not described";
        let huge = "4294967296,4294967296,4294967296";
        let most = u64::MAX.to_string();
        for (dtype, shape, offsets, what) in [
            ("F32", "4", "", undescribed),
            ("F32", "4", "5", undescribed),
            ("F32", "4", "-1,15", undescribed),
            ("F32", "-4", "0,16", undescribed),
            ("F32", "1,1,1,1,1,1,1,1,4", "0,16", "more than 8"),
            ("F32", "4", "16,0", "cannot lie from byte 16 to 0"),
            ("F32", "5", "0,16", "cannot lie"),
            ("F32", "5", "0,20", "end at byte"),
            ("F32", "3", "4,16", "\"t\" overlaps another"),
            ("F32", "3", "0,12", "end at byte"),
            ("F33", "4", "0,16", "unknown type \"F33\""),
            ("F32", huge, "0,16", "cannot lie"),
            ("U8", &most, &format!("0,{most}"), "cannot lie"),
        ] {
            let lie =
                format!(r#"{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{offsets}]}}"#);
            assert!(lying(&lie).contains(what), "{lie}: {}", lying(&lie));
        }
        for lie in [r#"{"dtype":"F32","shape":[4]}"#, &"[".repeat(10_000)] {
            assert!(
                lying(lie).contains(undescribed),
                "{lie:.80}: {}",
                lying(lie)
            );
        }
        let tensor = r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        let twice = error(&file(&format!(r#"{{"t": {tensor}, "u": {tensor}}}"#), 16));
        assert!(twice.contains("overlaps"), "{twice}");
        let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        let twice = error(&file(&format!(r#"{{"t": {empty}, "t": {empty}}}"#), 0));
        assert!(twice.contains("\"t\" is there twice"), "{twice}");
        let deep = format!(r#"{{"__metadata__": {}"#, "[".repeat(10_000));
        assert!(
            error(&file(&deep, 0)).contains("EOF"),
            "{}",
            error(&file(&deep, 0))
        );
    }

    proptest::proptest! {
        /// Whatever is wrong in a file, nothing is read beyond it.
        #[test]
        fn changed_bytes(changes in proptest::collection::vec((0usize..200, proptest::num::u8::ANY), 0..8), cut in 0usize..200) {
            let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"I8","shape":[9],"data_offsets":[16,25]}}"#;
            let mut file = file(header, 25);
            for (at, byte) in changes {
                let at = at % file.len();
                file[at] = byte;
            }
            file.truncate(file.len().saturating_sub(cut / 8));
            for entry in entries("m", &file).unwrap_or_default() {
                proptest::prop_assert!(entry.range.start <= entry.range.end && entry.range.end <= file.len() as u64);
            }
        }
    }

    #[test]
    fn a_million_tensors_are_enough() {
        let mut header = String::from("{");
        for i in 0..=MAX_TENSORS {
            header += &format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},"#);
        }
        let header = header.trim_end_matches(',').to_owned() + "}";
        assert!(error(&file(&header, 0)).contains("more than 1000000 tensors"));
    }
}
