//! Events as lines: NDJSON for the native API, server-sent events for OpenAI's. Nothing is sent, not even headers,
//! before the first object exists, so whatever fails until then still has its own status.

use super::Response;
use super::error::{ApiError, PLAIN_JSON, respond, to_json};
use futures_util::{FutureExt, Stream, StreamExt, future, stream};
use serde_json::Value;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use warp::Reply;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

/// A job's objects in order, each one's JSON. After an error there is nothing more.
pub type Objects<T> = Pin<Box<dyn Stream<Item = Result<T, ApiError>> + Send + Sync>>;

/// Newline-delimited JSON. An error after the first object is one more line.
///
/// # Errors
/// The job's own, when it fails before its first object.
pub async fn ndjson<T>(objects: Objects<T>) -> Result<Response, ApiError>
where
    T: serde::Serialize + Send + Sync + 'static,
{
    let objects = begun(objects).await.map_err(ApiError::in_job)?;
    let lines = objects.map(|object| {
        let mut line = match object {
            Ok(object) => to_json(&object),
            Err(e) => to_json(&e.body()),
        };
        line.push(b'\n');
        line
    });
    Ok(body_of(lines, "application/x-ndjson"))
}

/// Server-sent events without names, as OpenAI's clients read them. `frames` are complete, see [`sse_frame`].
pub fn sse(frames: impl Stream<Item = Vec<u8>> + Send + Sync + 'static) -> Response {
    body_of(frames, "text/event-stream")
}

/// As [`sse`], with the headers that keep caches away.
pub fn uncached_sse(frames: impl Stream<Item = Vec<u8>> + Send + Sync + 'static) -> Response {
    let mut response = sse(frames);
    let no_cache = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(CACHE_CONTROL, no_cache);
    response
}

/// A frame whose event has the name that is its `type`.
pub fn named_sse_frame(event: &Value) -> Vec<u8> {
    let name = event["type"].as_str().unwrap_or_default();
    [
        format!("event: {name}\n").as_bytes(),
        &sse_frame(&to_json(event)),
    ]
    .concat()
}

/// One `data:` frame.
pub fn sse_frame(json: &[u8]) -> Vec<u8> {
    [b"data: ", json, b"\n\n"].concat()
}

/// The last object of a job, as one reply.
///
/// # Errors
/// The first error of the job.
pub async fn last_object<T>(mut objects: Objects<T>) -> Result<Response, ApiError>
where
    T: serde::Serialize + Send + Sync + 'static,
{
    let mut last = None;
    while let Some(object) = objects.next().await {
        last = Some(object.map_err(ApiError::in_job)?);
    }
    let last = last.ok_or_else(|| ApiError::internal("the job ended without a result").in_job())?;
    Ok(respond(StatusCode::OK, PLAIN_JSON, to_json(&last)))
}

/// Waits for the first object and puts it back in front; a panic on the way is an error to this client alone.
pub async fn begun<T: Send + Sync + 'static>(objects: Objects<T>) -> Result<Objects<T>, ApiError> {
    let mut objects = contained(objects);
    match objects.next().await {
        Some(Ok(first)) => Ok(Box::pin(
            stream::once(future::ready(Ok(first))).chain(objects),
        )),
        Some(Err(e)) => Err(e),
        None => Err(ApiError::internal("the job ended without a result")),
    }
}

/// Ends the stream at its first error, and turns a panic into one.
fn contained<T: Send + Sync + 'static>(objects: Objects<T>) -> Objects<T> {
    Box::pin(stream::unfold(Some(objects), |state| async move {
        let mut objects = state?;
        match AssertUnwindSafe(objects.next()).catch_unwind().await {
            Ok(None) => None,
            Ok(Some(Ok(object))) => Some((Ok(object), Some(objects))),
            Ok(Some(Err(e))) => Some((Err(e), None)),
            Err(_) => Some((Err(panicked()), None)),
        }
    }))
}

/// What the client reads when our own code is at fault; the panic itself is in the log.
pub fn panicked() -> ApiError {
    ApiError::internal("internal error while answering the request; the server log has the details")
}

fn body_of(
    lines: impl Stream<Item = Vec<u8>> + Send + Sync + 'static,
    content_type: &'static str,
) -> Response {
    let mut response = warp::reply::stream(lines.map(Ok::<_, Infallible>)).into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use warp::Filter;

    #[test]
    fn event_streams_keep_caches_away() {
        let response = uncached_sse(stream::empty());
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-cache");
    }

    fn objects(items: Vec<Result<Value, ApiError>>) -> Objects<Value> {
        Box::pin(stream::iter(items))
    }

    async fn text(response: Result<Response, ApiError>) -> (u16, String, String) {
        let response = response.unwrap_or_else(ApiError::into_response);
        let cell = std::sync::Arc::new(std::sync::Mutex::new(Some(response)));
        let filter = warp::any().map(move || cell.lock().unwrap().take().unwrap());
        let reply = warp::test::request().reply(&filter).await;
        let content_type = reply.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        (
            reply.status().as_u16(),
            content_type,
            String::from_utf8(reply.body().to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn an_error_before_the_first_object_keeps_its_status() {
        let reply = text(ndjson(objects(vec![Err(ApiError::busy())])).await).await;
        assert_eq!((reply.0, reply.1.as_str()), (503, "application/json"));
        assert!(reply.2.contains("server busy"));
    }

    #[tokio::test]
    async fn an_error_later_is_the_last_line() {
        let items = vec![
            Ok(json!({"a": 1})),
            Err(ApiError::internal("broke")),
            Ok(json!({"never": 1})),
        ];
        let reply = text(ndjson(objects(items)).await).await;
        assert_eq!((reply.0, reply.1.as_str()), (200, "application/x-ndjson"));
        assert_eq!(reply.2, "{\"a\":1}\n{\"error\":\"broke\"}\n");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_this_request() {
        let job = stream::iter([0, 1]).map(|i| if i == 0 { Ok(json!(0)) } else { panic!("boom") });
        let reply = text(ndjson(Box::pin(job)).await).await;
        assert!(
            reply.2.starts_with("0\n{\"error\":\"internal error"),
            "{}",
            reply.2
        );
    }

    #[tokio::test]
    async fn progress_without_streaming_is_its_last_object() {
        let items = vec![Ok(json!({"status": "a"})), Ok(json!({"status": "success"}))];
        let reply = text(last_object(objects(items)).await).await;
        assert_eq!(
            reply,
            (
                200,
                "application/json".into(),
                "{\"status\":\"success\"}".into()
            )
        );
        let reply = text(last_object(objects(vec![Err(ApiError::internal("x"))])).await).await;
        assert_eq!((reply.0, reply.1.as_str()), (500, "application/json"));
    }
}
