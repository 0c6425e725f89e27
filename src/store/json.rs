//! JSON as Go's encoder writes it, byte for byte, so that our blobs have the digests Ollama's would have.

use crate::chat::go_json;
use serde_json::{Number, Value};

/// Compact text: object keys sorted, `<`, `>`, `&` and the line separators escaped, integral floats without a
/// fraction, one line feed at the end.
pub(super) fn encode_sorted(value: &Value) -> Vec<u8> {
    encode(value, true)
}

/// As [`encode_sorted`], but objects keep their order: Go's way with structs.
pub(super) fn encode_ordered(value: &Value) -> Vec<u8> {
    encode(value, false)
}

fn encode(value: &Value, sorted: bool) -> Vec<u8> {
    let mut out = String::new();
    write(value, sorted, &mut out);
    out.push('\n');
    out.into_bytes()
}

/// `value` is at most 128 levels deep: serde_json parsed it.
fn write(value: &Value, sorted: bool, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&number(n)),
        Value::String(s) => go_json::push_string(out, s),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, sorted, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            if sorted {
                members.sort_by_key(|(key, _)| *key);
            }
            out.push('{');
            for (i, (key, item)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                go_json::push_string(out, key);
                out.push(':');
                write(item, sorted, out);
            }
            out.push('}');
        }
    }
}

/// A number's shortest text: integers in full, others with an exponent below 1e-6 and from 1e21 on.
pub(super) fn number(n: &Number) -> String {
    if let Some(i) = n.as_i64() {
        return i.to_string();
    }
    if let Some(u) = n.as_u64() {
        return u.to_string();
    }
    match n.as_f64() {
        Some(f) if f.is_finite() => go_json::float(f),
        _ => "null".into(),
    }
}

/// A float that is a whole number from 0 to 2^53, as the number it is.
pub(super) fn number_as_u64(f: f64) -> Option<u64> {
    let is_whole = f.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&f);
    is_whole.then_some(f as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Digest;

    fn sorted(text: &str) -> String {
        let value: Value = serde_json::from_str(text).unwrap();
        String::from_utf8(encode_sorted(&value)).unwrap()
    }

    #[test]
    fn known_digests() {
        for (text, digest) in [
            (
                r#"{"temperature":1.0,"top_k":10,"stop":["USER:","ASSISTANT:"]}"#,
                "1d0ad71299d48c2f",
            ),
            (
                r#"{"temperature":0.6,"top_k":10,"top_p":0.7,"stop":["<|endoftext|>"]}"#,
                "12f58bb75cb3042d",
            ),
        ] {
            assert!(
                Digest::of(sorted(text).as_bytes())
                    .hex()
                    .starts_with(digest),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_are_normalised() {
        for (text, expected) in [
            ("1.0", "1"),
            ("1e3", "1000"),
            ("0.70", "0.7"),
            ("-0.5", "-0.5"),
            ("1e-7", "1e-7"),
            ("0.000001", "0.000001"),
            ("1e21", "1e+21"),
            ("123456789012345678", "123456789012345678"),
            ("18446744073709551615", "18446744073709551615"),
            ("1e999", "null"),
        ] {
            assert_eq!(sorted(text).trim_end(), expected, "{text}");
        }
    }

    #[test]
    fn strings_are_escaped_as_in_go() {
        assert_eq!(
            sorted(r#""a<b>&\u2028\u2029\"\\\n\t\u0001\u007f\u00e9""#),
            "\"a\\u003cb\\u003e\\u0026\\u2028\\u2029\\\"\\\\\\n\\t\\u0001\u{7f}é\"\n"
        );
    }

    #[test]
    fn order_is_kept_or_sorted() {
        let value: Value = serde_json::from_str(r#"{"b":1,"a":{"d":2,"c":[]}}"#).unwrap();
        assert_eq!(
            encode_ordered(&value),
            b"{\"b\":1,\"a\":{\"d\":2,\"c\":[]}}\n"
        );
        assert_eq!(
            encode_sorted(&value),
            b"{\"a\":{\"c\":[],\"d\":2},\"b\":1}\n"
        );
    }
}
