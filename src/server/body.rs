//! From a request's body to a typed request, by the rules of Go's decoder that clients rely on: member names in any
//! letter case, `null` is absent, nothing after the first value is read, the content type does not matter.

use super::error::ApiError;
use super::names::blocking;
use super::request_log::Entry;
use crate::chat::go_json::kind;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_LENGTH, HeaderMap};

/// A body as it arrives.
pub struct BodyStream {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>,
    /// Its length, where the client says so.
    declared: Option<u64>,
    /// How long it may stand still.
    patience: Duration,
    begun: Instant,
    n_received: u64,
    /// Where the whole body is kept, if it is.
    pub log: Option<Entry>,
}

/// Largest body of chat and generate: they may carry images.
pub const LARGE_BODY_BYTES: usize = 256 << 20;
/// Largest body of every other JSON endpoint.
pub const SMALL_BODY_BYTES: usize = 32 << 20;
/// All bodies that are being read or parsed, in MiB begun: what clients send at once is bounded, too.
static ROOM: Semaphore = Semaphore::const_new(2048);
/// Bodies up to this size are parsed where they are read.
const INLINE_BYTES: usize = 64 << 10;
/// A body that makes no progress for this long is given up.
const BODY_IDLE: Duration = Duration::from_secs(60);
/// So is one that comes slower than this once [`BODY_IDLE`] is over: a byte now and then is no progress.
const SLOWEST_BYTES_PER_S: u64 = 1 << 10;

impl BodyStream {
    /// What warp hands out, with the request's headers.
    pub fn new<B: Buf>(
        body: impl Stream<Item = Result<B, warp::Error>> + Send + Sync + 'static,
        headers: &HeaderMap,
    ) -> BodyStream {
        let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        BodyStream {
            chunks: Box::pin(body.map(|chunk| chunk.map(|mut b| b.copy_to_bytes(b.remaining())))),
            declared: declared.and_then(|text| text.parse().ok()),
            patience: BODY_IDLE,
            begun: Instant::now(),
            n_received: 0,
            log: None,
        }
    }

    /// The next piece, or `None` at the end; an error when the client stalls or goes away.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        let due = Duration::from_secs(self.n_received / SLOWEST_BYTES_PER_S);
        let until = Instant::now().min(self.begun + due) + self.patience;
        match tokio::time::timeout_at(until, self.chunks.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => {
                self.n_received += chunk.len() as u64;
                Ok(Some(chunk))
            }
            Ok(Some(Err(_))) => Err(ApiError::bad_request("unexpected EOF")),
            Err(_) => Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the request body comes too slowly: no progress in {} s",
                    BODY_IDLE.as_secs()
                ),
            )),
        }
    }
}

/// A whole body, with its place among all of them.
pub struct Whole<'r> {
    pub bytes: Bytes,
    #[expect(dead_code, reason = "it is held")]
    room: Option<SemaphorePermit<'r>>,
}

/// The whole body, at most `limit` bytes. One that says it is larger is refused before it is read.
pub async fn read(mut body: BodyStream, limit: usize) -> Result<Whole<'static>, ApiError> {
    let log = body.log.take();
    let whole = read_into(&ROOM, body, limit).await?;
    if let Some(log) = log {
        log.write(whole.bytes.clone()).await;
    }
    Ok(whole)
}

async fn read_into(
    all: &Semaphore,
    mut body: BodyStream,
    limit: usize,
) -> Result<Whole<'_>, ApiError> {
    let too_large = || {
        let text = format!("request body is larger than {} MiB", limit >> 20);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    if body.declared.is_some_and(|n| n > limit as u64) {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    let mut room: Option<SemaphorePermit> = None;
    while let Some(chunk) = body.next_chunk().await? {
        let n_bytes = whole.len() + chunk.len();
        if n_bytes > limit {
            return Err(too_large());
        }
        let n_held = room.as_ref().map_or(0, SemaphorePermit::num_permits);
        let n_more = (n_bytes >> 20).saturating_sub(n_held);
        if n_more > 0 {
            // Waiting for each other, half-read bodies would fill the room for ever.
            let more = all.try_acquire_many(n_more as u32);
            let more = more.map_err(|_| ApiError::busy())?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
        }
        whole.extend_from_slice(&chunk);
    }
    let bytes = whole.freeze();
    Ok(Whole { bytes, room })
}

/// The first JSON object of a body. `null` is an empty object. Where the members of an object are those of an API, at
/// whatever depth, their names are in lower case and those that are null are left out.
///
/// `empty` is the error of a body with nothing in it, which differs between the APIs.
pub fn parse_object(bytes: &[u8], empty: &str) -> Result<Map<String, Value>, ApiError> {
    if bytes.trim_ascii().is_empty() {
        return Err(ApiError::bad_request(empty));
    }
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    match values.next() {
        Some(Ok(Value::Object(object))) => {
            let mut members = lower_members(object);
            // At the top it is a schema.
            for (name, value) in members.iter_mut().filter(|(name, _)| *name != "format") {
                lower_inside(name, value);
            }
            Ok(members)
        }
        Some(Ok(Value::Null)) => Ok(Map::new()),
        Some(Ok(other)) => Err(ApiError::bad_request(format!(
            "json: cannot unmarshal {} into a request object",
            kind(&other)
        ))),
        Some(Err(e)) if e.is_eof() => Err(ApiError::bad_request("unexpected EOF")),
        Some(Err(e)) => Err(ApiError::bad_request(format!("invalid JSON: {e}"))),
        None => Err(ApiError::bad_request(empty)),
    }
}

/// A native request of at most `limit` bytes; long ones are parsed off the event loop.
pub async fn request<T>(body: BodyStream, limit: usize) -> Result<T, ApiError>
where
    T: DeserializeOwned + Send + 'static,
{
    let whole = read(body, limit).await?;
    if whole.bytes.len() <= INLINE_BYTES {
        return parse(&whole.bytes);
    }
    blocking(move || parse(&whole.bytes)).await
}

/// A native request: [`parse_object`], then [`typed`].
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    typed(parse_object(bytes, "missing request body")?)
}

/// Reads a request from its members; a member of the wrong type is named.
pub fn typed<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T, ApiError> {
    let object = Value::Object(object);
    T::deserialize(&object).map_err(|e| mismatch::<T>(&object, &e))
}

/// Every member has a default, so the member at fault is the one that fails alone.
fn mismatch<T: DeserializeOwned>(object: &Value, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if !text.starts_with("invalid ") || text.starts_with("invalid think") {
        return ApiError::bad_request(text);
    }
    let mut members = object.as_object().into_iter().flatten();
    let culprit = members.find(|(name, value)| {
        let alone = Map::from_iter([((*name).clone(), (*value).clone())]);
        serde_json::from_value::<T>(Value::Object(alone)).is_err()
    });
    match culprit {
        Some((name, value)) => ApiError::bad_request(format!(
            "json: cannot unmarshal {} into field {name}: {text}",
            kind(value)
        )),
        None => ApiError::bad_request(format!("json: {text}")),
    }
}

/// Objects whose members have names of the client's own. Lists under these names are walked like others.
const OWN_NAMES: [&str; 13] = [
    "adapters",
    "arguments",
    "draft_files",
    "files",
    "info",
    "input",
    "input_schema",
    "logit_bias",
    "metadata",
    "options",
    "parameters",
    "properties",
    "schema",
];

fn lower_members(object: Map<String, Value>) -> Map<String, Value> {
    object
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect()
}

/// Lowers what is inside of a member of this name.
fn lower_inside(name: &str, value: &mut Value) {
    match value {
        Value::Array(items) if name == "tools" => items.iter_mut().for_each(lower_tool),
        Value::Array(items) => items.iter_mut().for_each(|item| lower_inside("", item)),
        Value::Object(members) if !OWN_NAMES.contains(&name) => {
            *members = lower_members(std::mem::take(members));
            for (name, value) in members {
                lower_inside(name, value);
            }
        }
        _ => {}
    }
}

/// Lowers the members of a tool and of its function, or of the tools in it. Templates see the rest as it was sent.
fn lower_tool(tool: &mut Value) {
    let Value::Object(members) = tool else {
        return;
    };
    *members = lower_members(std::mem::take(members));
    if let Some(Value::Object(function)) = members.get_mut("function") {
        *function = lower_members(std::mem::take(function));
    }
    if let Some(tools) = members.get_mut("tools") {
        lower_inside("tools", tools);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ChatRequest, GenerateRequest, ShowRequest};

    fn error<T: DeserializeOwned + std::fmt::Debug>(body: &str) -> String {
        let error = parse::<T>(body.as_bytes()).unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        error.message
    }

    #[test]
    fn refusals_name_the_fault() {
        assert_eq!(error::<ShowRequest>(" \n"), "missing request body");
        assert_eq!(error::<ShowRequest>("{\"model\":\"m\""), "unexpected EOF");
        assert!(error::<ShowRequest>("{bad}").starts_with("invalid JSON"));
        assert!(error::<ShowRequest>("[]").contains("array"));
        assert!(
            error::<GenerateRequest>(r#"{"model":"m","prompt":5}"#)
                .contains("number into field prompt")
        );
        assert!(error::<GenerateRequest>(r#"{"context":["a"]}"#).contains("field context"));
        assert!(error::<GenerateRequest>(r#"{"top_logprobs":1.5}"#).contains("field top_logprobs"));
        assert_eq!(
            error::<GenerateRequest>(r#"{"images":["!!"]}"#),
            "illegal base64 data at input byte 0"
        );
        assert!(
            error::<GenerateRequest>(r#"{"think":"x"}"#).starts_with("invalid think value: \"x\"")
        );
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(!error::<ShowRequest>(&format!("{{\"options\":{deep}")).is_empty());
    }

    #[test]
    fn gos_leniency() {
        let show: ShowRequest =
            parse(br#"{"MoDeL":"a","system":null,"other":[1]} trailing"#).unwrap();
        assert_eq!((show.model.as_str(), show.system.as_str()), ("a", ""));
        assert_eq!(
            parse::<ShowRequest>(b"null").unwrap(),
            ShowRequest::default()
        );
        let chat: ChatRequest = parse(
            br#"{"messages":[{"ROLE":"user","content":null,"Tool_Calls":[{"FUNCTION":{"Name":"f","arguments":{"City":1}}}]}]}"#,
        )
        .unwrap();
        let message = &chat.messages[0];
        assert_eq!(
            (message.role.as_str(), message.content.as_str()),
            ("user", "")
        );
        assert_eq!(message.tool_calls[0].function.name, "f");
        assert!(
            message.tool_calls[0]
                .function
                .arguments
                .contains_key("City")
        );
    }

    #[test]
    fn names_are_lowered_but_for_the_client_s_own() {
        let sent = r#"{"Text":{"Format":{"Type":"json_schema","Schema":{"Properties":{"A":null}}}},"FORMAT":{"Properties":{"B":1}},
            "Tools":[{"Type":"function","Function":{"NAME":"f","Description":null,"Parameters":{"P":1},"Returns":{"R":1}}},
                {"Tools":[{"Name":"g"}]}],
            "Messages":[{"Content":[{"Type":"tool_use","Input":{"City":null}}]}],"Input":[{"Call_ID":"c"}],
            "Options":{"Stop":null},"Metadata":{"Key":"v"},"Files":{"A.gguf":"d"},"Stream_Options":{"Include_Usage":null}}"#;
        let found = parse_object(sent.as_bytes(), "").unwrap();
        let expected = r#"{"text":{"format":{"type":"json_schema","schema":{"Properties":{"A":null}}}},"format":{"Properties":{"B":1}},
            "tools":[{"type":"function","function":{"name":"f","parameters":{"P":1},"returns":{"R":1}}},{"tools":[{"name":"g"}]}],
            "messages":[{"content":[{"type":"tool_use","input":{"City":null}}]}],"input":[{"call_id":"c"}],
            "options":{"Stop":null},"metadata":{"Key":"v"},"files":{"A.gguf":"d"},"stream_options":{}}"#;
        assert_eq!(
            Value::Object(found),
            serde_json::from_str::<Value>(expected).unwrap()
        );
    }

    fn refused(read: Result<Whole<'_>, ApiError>) -> ApiError {
        read.err().expect("a refusal")
    }

    fn body<S>(chunks: S, headers: &HeaderMap) -> BodyStream
    where
        S: Stream<Item = &'static [u8]> + Send + Sync + 'static,
    {
        BodyStream::new(chunks.map(Ok::<_, warp::Error>), headers)
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        let chunks = |n| {
            let ten = futures_util::stream::iter((0..n).map(|_| b"0123456789".as_slice()));
            body(ten, &HeaderMap::new())
        };
        assert_eq!(read(chunks(3), 30).await.unwrap().bytes.len(), 30);
        let error = refused(read(chunks(4), 30).await);
        assert_eq!(error.status, StatusCode::PAYLOAD_TOO_LARGE);
        // Not a byte is waited for where the length is known.
        let headers =
            HeaderMap::from_iter([(CONTENT_LENGTH, "9223372036854775808".parse().unwrap())]);
        let error = read(body(futures_util::stream::pending(), &headers), 30).await;
        assert_eq!(refused(error).status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn all_bodies_share_one_room() {
        static MEGABYTE: [u8; 1 << 20] = [b' '; 1 << 20];
        let all = Semaphore::new(3);
        let megabytes = |n| {
            let chunks = futures_util::stream::iter((0..n).map(|_| MEGABYTE.as_slice()));
            body(chunks, &HeaderMap::new())
        };
        let first = read_into(&all, megabytes(2), 1 << 30).await.unwrap();
        let second = refused(read_into(&all, megabytes(2), 1 << 30).await);
        assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert!(read_into(&all, megabytes(3), 1 << 30).await.is_ok());
        assert_eq!(all.available_permits(), 3);
    }

    #[tokio::test]
    async fn bodies_must_make_progress() {
        let slow = |milliseconds, n: usize| {
            let chunks = futures_util::stream::unfold(0, move |i| async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                (i < n).then_some((b"0123456789".as_slice(), i + 1))
            });
            let mut body = body(chunks, &HeaderMap::new());
            body.patience = Duration::from_millis(100);
            body
        };
        assert_eq!(read(slow(1, 3), 1000).await.unwrap().bytes.len(), 30);
        for trickle in [slow(10_000, 1), slow(5, 1000)] {
            let error = refused(read(trickle, 1 << 20).await);
            assert_eq!(error.status, StatusCode::REQUEST_TIMEOUT);
        }
    }
}
