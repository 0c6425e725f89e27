//! The parts of an OpenAI message's content: texts, images, sounds.

use crate::api::{ImageData, Message};
use crate::server::error::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Where the bytes of an accepted image URL begin.
const IMAGE_PREFIXES: [&str; 5] = [
    "data:image/jpeg;base64,",
    "data:image/jpg;base64,",
    "data:image/png;base64,",
    "data:image/webp;base64,",
    "data:;base64,",
];

/// A 400 found by the translation.
pub fn refused(text: &str) -> ApiError {
    ApiError::bad_request(text)
}

/// One part as a message without a role.
pub fn part(part: &Value) -> Result<Message, ApiError> {
    let malformed = || refused("invalid message format");
    match part.get("type").and_then(Value::as_str) {
        Some("text") => {
            let text = part
                .get("text")
                .and_then(Value::as_str)
                .ok_or_else(malformed)?;
            Ok(Message {
                content: text.to_owned(),
                ..Message::default()
            })
        }
        Some("image_url") => {
            let url = part.get("image_url").ok_or_else(malformed)?;
            let url = url
                .as_str()
                .or_else(|| url.get("url")?.as_str())
                .ok_or_else(malformed)?;
            Ok(of_bytes(image(url)?))
        }
        Some("input_audio") => Ok(of_bytes(audio(part.get("input_audio"))?)),
        _ => Err(malformed()),
    }
}

fn of_bytes(bytes: Vec<u8>) -> Message {
    Message {
        images: vec![ImageData(bytes)],
        ..Message::default()
    }
}

/// The bytes of an image in a data URL.
pub fn image(url: &str) -> Result<Vec<u8>, ApiError> {
    if url.starts_with("http://") || url.starts_with("https://") {
        let text = "image URLs are not currently supported, please use base64 encoded data instead";
        return Err(refused(text));
    }
    let data = IMAGE_PREFIXES
        .iter()
        .find_map(|prefix| url.strip_prefix(prefix));
    data.and_then(|d| STANDARD.decode(d).ok())
        .ok_or_else(|| refused("invalid image input"))
}

fn audio(part: Option<&Value>) -> Result<Vec<u8>, ApiError> {
    let part = part
        .and_then(Value::as_object)
        .ok_or_else(|| refused("invalid input_audio format"))?;
    let data = part
        .get("data")
        .and_then(Value::as_str)
        .filter(|d| !d.is_empty());
    let data = data.ok_or_else(|| refused("invalid input_audio format: missing data"))?;
    STANDARD
        .decode(data)
        .map_err(|e| refused(&format!("invalid input_audio base64 data: {e}")))
}

/// Go's name of a JSON value's type.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refusals() {
        let text = |sent: Value| part(&sent).unwrap_err().message;
        assert_eq!(text(json!({"type": "video"})), "invalid message format");
        assert_eq!(text(json!("x")), "invalid message format");
        assert_eq!(text(json!({"type": "text"})), "invalid message format");
        let image = |url: &str| text(json!({"type": "image_url", "image_url": url}));
        assert!(
            image("https://example.com/a.png")
                .starts_with("image URLs are not currently supported")
        );
        assert_eq!(image("data:image/gif;base64,aGk="), "invalid image input");
        assert_eq!(image("data:image/png;base64,***"), "invalid image input");
        let audio = |part: Value| text(json!({"type": "input_audio", "input_audio": part}));
        assert_eq!(audio(json!("x")), "invalid input_audio format");
        assert_eq!(audio(json!({})), "invalid input_audio format: missing data");
        assert!(audio(json!({"data": "*"})).starts_with("invalid input_audio base64 data: "));
    }

    #[test]
    fn images_of_every_type() {
        for kind in ["image/jpeg", "image/jpg", "image/png", "image/webp", ""] {
            let url = format!("data:{kind};base64,aGk=");
            for image in [json!(url), json!({"url": url, "detail": "low"})] {
                let message = part(&json!({"type": "image_url", "image_url": image})).unwrap();
                assert_eq!(message.images[0].0, b"hi", "{kind}");
            }
        }
    }
}
