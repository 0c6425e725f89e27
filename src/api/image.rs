//! Bytes of an image or a sound: standard base64 on the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Raw bytes of one image (or WAV, MP3), sent as padded standard base64; line breaks inside are tolerated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageData(pub Vec<u8>);

impl Serialize for ImageData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for ImageData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let text: Vec<u8> = text
            .into_bytes()
            .into_iter()
            .filter(|b| !matches!(b, b'\r' | b'\n'))
            .collect();
        STANDARD
            .decode(&text)
            .map(ImageData)
            .map_err(|e| de::Error::custom(illegal(&e, text.len())))
    }
}

/// Go's text for a byte that is not base64.
fn illegal(error: &base64::DecodeError, len: usize) -> String {
    use base64::DecodeError::{InvalidByte, InvalidLastSymbol};
    let offset = match error {
        InvalidByte(offset, _) | InvalidLastSymbol(offset, _) => *offset,
        _ => len,
    };
    format!("illegal base64 data at input byte {offset}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn round_trip_with_line_breaks() {
        let image: ImageData = from_value(json!("aGVs\r\nbG8=")).unwrap();
        assert_eq!(image.0, b"hello");
        assert_eq!(serde_json::to_value(&image).unwrap(), json!("aGVsbG8="));
    }

    #[test]
    fn bad_bytes_are_named() {
        for (text, byte) in [("****", 0), ("aG!s", 2), ("aGVsbG8", 7)] {
            let error = from_value::<ImageData>(json!(text))
                .unwrap_err()
                .to_string();
            assert_eq!(error, format!("illegal base64 data at input byte {byte}"));
        }
        assert!(from_value::<ImageData>(json!("data:image/png;base64,aGVsbG8=")).is_err());
    }
}
