//! Bodies of the compatible APIs, which may be compressed.

use super::body::{self, BodyStream};
use super::error::ApiError;
use super::names::blocking;
use std::io::Read;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_ENCODING, HeaderMap};

/// Largest compressed body, inflated.
const MAX_INFLATED_BYTES: u64 = 20 << 20;

/// Reads a body and translates it, off the event loop. The inner result is for the shape of the API that was called: a
/// body that cannot be read, and what the translation refuses.
///
/// # Errors
/// 400, 413 or 415 for a body that cannot be inflated, which every API answers in the native shape, as Ollama does.
pub async fn translated<T: Send + 'static>(
    headers: HeaderMap,
    body: BodyStream,
    translate: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<Result<T, ApiError>, ApiError> {
    let whole = match body::read(body, body::LARGE_BODY_BYTES).await {
        Ok(whole) => whole,
        Err(e) => return Ok(Err(e)),
    };
    blocking(move || Ok(translate(&inflated(&headers, whole.bytes.into())?))).await
}

/// A body as sent, or as it was before `Content-Encoding: zstd`.
fn inflated(headers: &HeaderMap, bytes: Vec<u8>) -> Result<Vec<u8>, ApiError> {
    let encoding = headers
        .get(CONTENT_ENCODING)
        .map(|v| v.as_bytes().to_ascii_lowercase());
    match encoding.as_deref() {
        None | Some(b"" | b"identity") => return Ok(bytes),
        Some(b"zstd") => {}
        Some(_) => {
            let text = "request bodies may be compressed with zstd only";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
    }
    let broken =
        |e: &dyn std::fmt::Display| ApiError::bad_request(format!("invalid zstd body: {e}"));
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes.as_slice()).map_err(|_| {
        // Ollama's text, which its clients may look for.
        ApiError::bad_request("invalid input: magic number mismatch")
    })?;
    let mut whole = Vec::new();
    decoder
        .take(MAX_INFLATED_BYTES + 1)
        .read_to_end(&mut whole)
        .map_err(|e| broken(&e))?;
    if whole.len() as u64 > MAX_INFLATED_BYTES {
        let text = format!(
            "the inflated body is larger than {} MiB",
            MAX_INFLATED_BYTES >> 20
        );
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use warp::http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};

    fn inflate(encoding: &'static str, bytes: &[u8]) -> Result<Vec<u8>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        inflated(&headers, bytes.to_vec())
    }

    #[test]
    fn compressed_bodies() {
        let zstd = "KLUv/SBoQQMAeyJ0ZW1wZXJhdHVyZSI6IDAsICJtYXhfdG9rZW5zIjogMSwgIm1vZGVsIjogInNtb2xsbTIiLCAibWVzc2FnZXMiOiBbeyJyb2xlIjogInVzZXIiLCAiY29udGVudCI6ICJIaSJ9XX0=";
        let zstd = base64::engine::general_purpose::STANDARD
            .decode(zstd)
            .unwrap();
        assert!(
            inflate("zstd", &zstd)
                .unwrap()
                .starts_with(b"{\"temperature\": 0")
        );
        assert_eq!(
            inflate("zstd", b"{}").unwrap_err().message,
            "invalid input: magic number mismatch"
        );
        assert_eq!(
            inflate("zstd", &zstd[..40]).unwrap_err().status,
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            inflate("gzip", b"x").unwrap_err().status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        assert_eq!(inflate("identity", b"x").unwrap(), b"x");
    }

    /// What the server itself refuses of a body is told in the shape of the API; what it cannot inflate is not.
    #[tokio::test]
    async fn bodies_that_cannot_be_read_are_the_inner_result() {
        let asked = async |name: HeaderName, value: &'static str| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            let body = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"{}"))]);
            let body = BodyStream::new(body, &headers);
            translated(headers, body, |bytes| Ok(bytes.to_vec())).await
        };
        let too_large = asked(CONTENT_LENGTH, "999999999").await.unwrap();
        assert_eq!(too_large.unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(asked(CONTENT_LENGTH, "2").await, Ok(Ok(b"{}".to_vec())));
        assert!(asked(CONTENT_ENCODING, "zstd").await.is_err());
    }

    #[test]
    fn bombs_are_refused() {
        // A frame of blocks that each repeat one byte 128 KiB times.
        let mut bomb = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x58];
        let n_blocks = (MAX_INFLATED_BYTES >> 17) + 2;
        for i in 0..n_blocks {
            let header = (1_u32 << 17) << 3 | 1 << 1 | u32::from(i + 1 == n_blocks);
            bomb.extend_from_slice(&header.to_le_bytes()[..3]);
            bomb.push(b' ');
        }
        assert_eq!(
            inflate("zstd", &bomb).unwrap_err().status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }
}
