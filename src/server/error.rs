//! What a failed request answers: a status and one text, in the shape of the API that was called.

use super::Response;
use crate::api::ErrorReply;
use serde_json::json;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderValue};

/// `application/json; charset=utf-8`: what handlers answer with.
pub const JSON: &str = "application/json; charset=utf-8";
/// `application/json`: what a job behind a stream answers with when nothing was streamed.
pub const PLAIN_JSON: &str = "application/json";

/// The client went away; nobody reads this status, but logs name it as Ollama's do.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A refused or failed request. The text goes to the client as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// Raised by a job that answers with progress, whose content type has no charset.
    from_job: bool,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError {
            status,
            message: message.into(),
            from_job: false,
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The queue has no place left.
    pub fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server busy, please try again.  maximum pending requests exceeded",
        )
    }

    /// The client stopped waiting for the model.
    pub fn canceled() -> Self {
        let status = StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("499 is a valid status");
        Self::new(status, "request canceled")
    }

    /// A part of Ollama's API that this version does not have, and what to use instead.
    pub fn not_implemented(what: &str, remedy: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("{what} is not implemented yet; {remedy}"),
        )
    }

    /// Marks an error that a streaming job raised before its first object.
    pub fn in_job(self) -> Self {
        ApiError {
            from_job: true,
            ..self
        }
    }

    /// `{"error": "<text>"}`.
    pub fn body(&self) -> ErrorReply {
        ErrorReply {
            error: self.message.clone(),
        }
    }

    /// The native API's answer.
    pub fn into_response(self) -> Response {
        let content_type = if self.from_job { PLAIN_JSON } else { JSON };
        respond(self.status, content_type, to_json(&self.body()))
    }

    /// OpenAI's error object; `param` and `code` are always null, the type follows the status.
    pub fn openai_body(&self) -> serde_json::Value {
        let kind = match self.status {
            StatusCode::BAD_REQUEST => "invalid_request_error",
            StatusCode::NOT_FOUND => "not_found_error",
            _ => "api_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": null, "code": null}})
    }

    /// OpenAI's answer to a request that its own translation refused.
    pub fn into_openai_refusal(self) -> Response {
        respond(self.status, JSON, to_json(&self.openai_body()))
    }

    /// OpenAI's answer to an error that the native handler raised: another content type, and a line end.
    pub fn into_openai_response(self) -> Response {
        let mut body = to_json(&self.openai_body());
        body.push(b'\n');
        respond(self.status, PLAIN_JSON, body)
    }
}

/// Our reply types serialise without fail: their keys are strings and their numbers finite.
pub fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a reply serialises")
}

/// A whole reply with its content type.
pub fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// 200 with one JSON object.
pub fn ok_json<T: serde::Serialize>(value: &T) -> Response {
    respond(StatusCode::OK, JSON, to_json(value))
}

/// A status without body or content type.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Vec::new().into());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_types_follow_the_status() {
        for (error, kind) in [
            (ApiError::bad_request("x"), "invalid_request_error"),
            (ApiError::not_found("x"), "not_found_error"),
            (ApiError::busy(), "api_error"),
            (ApiError::canceled(), "api_error"),
        ] {
            let body = error.openai_body();
            assert_eq!(body["error"]["type"], kind);
            assert!(body["error"]["param"].is_null() && body["error"]["code"].is_null());
        }
    }

    #[test]
    fn content_types() {
        let of = |r: Response| r.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let error = ApiError::internal("x");
        assert_eq!(of(error.clone().into_response()), JSON);
        assert_eq!(of(error.clone().in_job().into_response()), PLAIN_JSON);
        assert_eq!(of(error.clone().into_openai_response()), PLAIN_JSON);
        assert_eq!(of(error.into_openai_refusal()), JSON);
    }
}
