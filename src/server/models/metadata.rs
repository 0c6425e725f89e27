//! GGUF metadata as JSON.

use crate::api::Object;
use crate::gguf::{Array, ElementType, Gguf, Value as Meta};
use crate::store::n_parameters;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Left out: shown elsewhere.
const HIDDEN: [&str; 2] = ["general.name", "tokenizer.chat_template"];

/// All keys in order, with the number of parameters; arrays are null unless `verbose`.
pub fn model_info(gguf: &Gguf, verbose: bool) -> Object {
    let shown = gguf
        .metadata()
        .iter()
        .filter(|(key, _)| !HIDDEN.contains(&key.as_str()));
    let mut pairs: Vec<(String, Value)> = shown
        .map(|(key, value)| (key.clone(), json(gguf, key, value, verbose)))
        .collect();
    pairs.push(("general.parameter_count".into(), n_parameters(gguf).into()));
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.into_iter().collect()
}

fn json(gguf: &Gguf, key: &str, value: &Meta, verbose: bool) -> Value {
    match value {
        Meta::U64(n) => (*n).into(),
        Meta::I64(n) => (*n).into(),
        Meta::F32(x) => (*x).into(),
        Meta::F64(x) => (*x).into(),
        Meta::Bool(b) => (*b).into(),
        Meta::String(s) => s.as_str().into(),
        Meta::Array(array) => elements(gguf, key, array, verbose),
    }
}

/// The items of an array; bytes are one text in base64, as Go writes them.
fn elements(gguf: &Gguf, key: &str, array: &Array, verbose: bool) -> Value {
    if array.len == 0 {
        return Value::Array(Vec::new());
    }
    if !verbose {
        return Value::Null;
    }
    let items = match array.element {
        ElementType::U8 => gguf.bytes(key).map(|bytes| STANDARD.encode(bytes).into()),
        ElementType::F32 => gguf.f32s(key).map(all),
        ElementType::F64 => gguf.f64s(key).map(all),
        ElementType::Bool => gguf.bools(key).map(all),
        ElementType::String => gguf.strings(key).map(|items| {
            let texts = items.map(|bytes| Value::from(String::from_utf8_lossy(bytes)));
            texts.collect()
        }),
        _ => gguf.i64s(key).map(all),
    };
    items.unwrap_or(Value::Null)
}

fn all<T: Into<Value>>(items: Vec<T>) -> Value {
    items.into_iter().map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }

    /// A file of these arrays: name, type of the items, their number and bytes.
    fn file(arrays: &[(&str, u32, u64, Vec<u8>)]) -> Gguf {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend((arrays.len() as u64 + 1).to_le_bytes());
        text(&mut bytes, "general.architecture");
        bytes.extend(8u32.to_le_bytes());
        text(&mut bytes, "llama");
        for (name, element, n, items) in arrays {
            text(&mut bytes, name);
            bytes.extend([9, *element].into_iter().flat_map(u32::to_le_bytes));
            bytes.extend(n.to_le_bytes());
            bytes.extend(items);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, bytes).unwrap();
        Gguf::open(&path).unwrap()
    }

    #[test]
    fn arrays_of_every_type() {
        let mut words = Vec::new();
        text(&mut words, "a\u{e9}");
        words.extend([2, 0, 0, 0, 0, 0, 0, 0, b'b', 0xFF]);
        let floats = [0.1f32, f32::NAN, f32::INFINITY];
        let doubles = [0.1f64, 1e300];
        let gguf = file(&[
            ("bytes", 0, 3, vec![0, 200, 255]),
            ("i8", 1, 2, vec![1, 0xFF]),
            ("u16", 2, 1, vec![0xFF, 0xFF]),
            ("u32", 4, 1, vec![0xFF; 4]),
            ("i32", 5, 1, (-7i32).to_le_bytes().to_vec()),
            (
                "f32",
                6,
                3,
                floats.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            ("bool", 7, 2, vec![0, 1]),
            ("strings", 8, 2, words),
            ("u64", 10, 1, (1u64 << 40).to_le_bytes().to_vec()),
            ("i64", 11, 1, (-(1i64 << 40)).to_le_bytes().to_vec()),
            (
                "f64",
                12,
                2,
                doubles.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            ("none", 5, 0, Vec::new()),
        ]);
        let wanted = json!({
            "bytes": "AMj/", "i8": [1, -1], "u16": [65535], "u32": [4_294_967_295u32], "i32": [-7],
            "f32": [0.1f32, null, null], "bool": [false, true], "strings": ["a\u{e9}", "b\u{fffd}"],
            "u64": [1u64 << 40], "i64": [-(1i64 << 40)], "f64": [0.1, 1e300], "none": [],
            "general.architecture": "llama", "general.parameter_count": 0,
        });
        assert_eq!(Value::Object(model_info(&gguf, true)), wanted);
        let short = model_info(&gguf, false);
        assert_eq!(
            (&short["bytes"], &short["none"]),
            (&Value::Null, &json!([]))
        );
    }
}
