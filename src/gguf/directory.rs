//! What `gguf-rs` decoded, checked against the file: metadata, and the tensors' types, extents and places.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{Array, Error, TensorInfo, Value, invalid};
use crate::quant::QuantType;

/// Joins the decoded scalars with the arrays that the scan found.
pub(super) fn metadata(
    decoded: &BTreeMap<String, serde_json::Value>,
    mut arrays: HashMap<String, Array>,
    path: &Path,
) -> Result<BTreeMap<String, Value>, Error> {
    let convert = |(key, value): (&String, &serde_json::Value)| {
        let value = match value {
            serde_json::Value::Bool(v) => Value::Bool(*v),
            serde_json::Value::String(v) => Value::String(v.clone()),
            serde_json::Value::Array(_) => match arrays.remove(key) {
                Some(array) => Value::Array(array),
                None => return Err(invalid(path, format!("key {key} appears twice"))),
            },
            // JSON has no NaN and no infinity.
            serde_json::Value::Null => {
                return Err(invalid(path, format!("key {key} is not a finite number")));
            }
            number => number_value(number)
                .ok_or_else(|| invalid(path, format!("key {key} has an unknown type")))?,
        };
        Ok((key.clone(), value))
    };
    decoded.iter().map(convert).collect()
}

fn number_value(number: &serde_json::Value) -> Option<Value> {
    if let Some(v) = number.as_u64() {
        return Some(Value::U64(v));
    }
    if let Some(v) = number.as_i64() {
        return Some(Value::I64(v));
    }
    // gguf-rs widens f32 to f64, which is exact: where the way back loses nothing, it was an f32.
    let wide = number.as_f64()?;
    let narrow = wide as f32;
    Some(if f64::from(narrow) == wide {
        Value::F32(narrow)
    } else {
        Value::F64(wide)
    })
}

pub(super) fn alignment(metadata: &BTreeMap<String, Value>, path: &Path) -> Result<u64, Error> {
    match metadata.get("general.alignment") {
        None => Ok(gguf_rs::GGUF_DEFAULT_ALIGNMENT),
        Some(Value::U64(v)) if v.is_power_of_two() && (8..=1 << 20).contains(v) => Ok(*v),
        Some(other) => Err(invalid(
            path,
            format!("general.alignment is {other:?}, a power of two from 8 to 1048576 is needed"),
        )),
    }
}

/// Checks every tensor's type, extents and place.
pub(super) fn tensors(
    decoded: &gguf_rs::GGUFModel,
    quants: &[QuantType],
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
    path: &Path,
) -> Result<Vec<TensorInfo>, Error> {
    decoded
        .tensors()
        .iter()
        .zip(quants)
        .map(|(t, &quant)| {
            let name = &t.name;
            let bad = |what: String| invalid(path, format!("tensor {name}: {what}"));
            let shape = t.shape.clone();
            let bytes = tensor_bytes(&shape, quant).map_err(bad)?;
            if t.offset % alignment != 0 {
                return Err(bad(format!(
                    "offset {} is not a multiple of the alignment {alignment}",
                    t.offset
                )));
            }
            let offset = data_start.checked_add(t.offset);
            let end = offset.and_then(|o| o.checked_add(bytes));
            match (offset, end) {
                (Some(offset), Some(end)) if end <= file_bytes => Ok(TensorInfo {
                    name: name.clone(),
                    shape,
                    ggml_type: quant.ggml(),
                    offset,
                    bytes,
                }),
                _ => Err(bad(format!(
                    "its {bytes} bytes at offset {} lie outside the file of {file_bytes} bytes; \
                     the file is truncated or damaged, fetch it again",
                    t.offset
                ))),
            }
        })
        .collect()
}

/// Bytes of a tensor, or what is wrong with its extents.
fn tensor_bytes(shape: &[u64], quant: QuantType) -> Result<u64, String> {
    let row = shape[0];
    if shape.contains(&0) {
        return Err("an extent is zero".into());
    }
    if !row.is_multiple_of(quant.block_len() as u64) {
        return Err(format!(
            "rows of {row} weights cannot be stored as {}, whose blocks have {}",
            quant.name(),
            quant.block_len()
        ));
    }
    let blocks = row / quant.block_len() as u64;
    shape[1..]
        .iter()
        .try_fold(blocks, |n, &extent| n.checked_mul(extent))
        .and_then(|n| n.checked_mul(quant.block_bytes() as u64))
        .filter(|&n| n <= i64::MAX as u64)
        .ok_or_else(|| "its size overflows".into())
}
