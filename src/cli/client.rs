//! The HTTP client: requests, streams of JSON lines, and errors as the user reads them.

use crate::api;
use crate::store::registry;
use anyhow::{Context, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::marker::PhantomData;
use std::time::Duration;

/// Longest line of a stream and longest text of an error: far above anything the server writes.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Longest plain reply: `show --verbose` of a model with 262,144 tokens takes some 10 MB.
const MAX_REPLY_BYTES: usize = 256 << 20;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "could not connect to ollama-wgpu server at {url}, run 'ollama-wgpu serve' to start it"
    )]
    NoServer { url: String },
    /// The server said no; `text` is what the user reads.
    #[error("{text}")]
    Refused { status: StatusCode, text: String },
    /// A stream's last line.
    #[error("{0}")]
    Broken(String),
    #[error("{url}: {cause}")]
    Transport { url: String, cause: String },
    #[error("the server at {url} broke off its answer: {cause}")]
    BrokenOff { url: String, cause: String },
    #[error("{url}: the server's answer is longer than {limit} bytes")]
    TooLong { url: String, limit: usize },
    #[error("{url}: not an answer of an ollama server: {cause}")]
    NotOurs { url: String, cause: String },
}

impl Error {
    /// Did the server answer that there is no such thing?
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// A server at one address.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Scheme, host, port and path prefix, without a slash at its end.
    base: String,
}

impl Client {
    /// A client of the server at `base`; nothing is sent yet. The server is never behind the proxies of the
    /// environment: those are for registry traffic. `key` goes to servers that ask for one.
    pub fn new(base: &str, key: Option<&str>) -> Result<Client> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut bearer =
                HeaderValue::try_from(format!("Bearer {key}")).context("OLLAMA_API_KEY")?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let builder = reqwest::Client::builder()
            .user_agent(concat!("ollama-wgpu/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .no_proxy()
            .default_headers(headers);
        let http = registry::build(builder).context("cannot make an HTTP client")?;
        Ok(Client {
            http,
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    /// Fails when no server answers.
    pub async fn check(&self) -> Result<(), Error> {
        self.send(self.request(Method::HEAD, "/")).await?;
        Ok(())
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let response = self.send(self.request(Method::GET, path)).await?;
        self.read(accepted(response).await?).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let request = self.request(Method::POST, path).json(body);
        let response = accepted(self.send(request).await?).await?;
        self.read(response).await
    }

    /// A request whose answer has no body.
    pub async fn command(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), Error> {
        let response = self.send(self.request(method, path).json(body)).await?;
        accepted(response).await.map(drop)
    }

    /// A request answered by JSON lines. A refusal's text begins with the status, as Ollama prints it.
    pub async fn stream<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Lines<T>, Error> {
        let request = self.request(Method::POST, path).json(body);
        let response = accepted(self.send(request).await?).await;
        match response {
            Ok(response) => Ok(Lines::new(response)),
            Err(Error::Refused { status, text }) => Err(Error::Refused {
                status,
                text: format!("{status}: {text}"),
            }),
            Err(error) => Err(error),
        }
    }

    /// Does the server have the blob `digest` (`sha256:<hex>`)?
    pub async fn has_blob(&self, digest: &str) -> Result<bool, Error> {
        let path = format!("/api/blobs/{digest}");
        match accepted(self.send(self.request(Method::HEAD, &path)).await?).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a blob of `bytes` bytes.
    pub async fn put_blob(
        &self,
        digest: &str,
        bytes: u64,
        body: reqwest::Body,
    ) -> Result<(), Error> {
        let request = self
            .request(Method::POST, &format!("/api/blobs/{digest}"))
            .header(reqwest::header::CONTENT_LENGTH, bytes)
            .body(body);
        accepted(self.send(request).await?).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Error> {
        request.send().await.map_err(|error| {
            if error.is_connect() {
                Error::NoServer {
                    url: self.base.clone(),
                }
            } else {
                Error::Transport {
                    url: self.base.clone(),
                    cause: cause(&error),
                }
            }
        })
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, Error> {
        let url = response.url().to_string();
        let body = body(response, MAX_REPLY_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| Error::NotOurs {
            url,
            cause: error.to_string(),
        })
    }
}

/// The response if its status is a success, else the error in its body.
async fn accepted(response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = body(response, MAX_LINE_BYTES).await?;
    let text = match serde_json::from_slice::<api::ErrorReply>(&body) {
        Ok(reply) if !reply.error.is_empty() => reply.error,
        _ => status.to_string(),
    };
    Err(Error::Refused { status, text })
}

async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, Error> {
    let url = response.url().to_string();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| broken_off(&e, &url))? {
        if body.len() + chunk.len() > limit {
            return Err(Error::TooLong { url, limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause of a failure: the outer ones only say that sending or reading failed.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn broken_off(error: &reqwest::Error, url: &str) -> Error {
    Error::BrokenOff {
        url: url.to_owned(),
        cause: cause(error),
    }
}

/// The JSON lines of one streamed answer.
pub struct Lines<T> {
    response: Response,
    /// Bytes of the line that is not whole yet; the first `searched` of them hold no line feed.
    pending: Vec<u8>,
    searched: usize,
    kind: PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    fn new(response: Response) -> Lines<T> {
        Lines {
            response,
            pending: Vec::new(),
            searched: 0,
            kind: PhantomData,
        }
    }

    /// The next object, or `None` at the end; an error line is an [`Error::Broken`].
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        while let Some(line) = self.line().await? {
            if !line.trim_ascii().is_empty() {
                return self.parse(&line).map(Some);
            }
        }
        Ok(None)
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let found = self.pending[self.searched..]
                .iter()
                .position(|&b| b == b'\n');
            if let Some(at) = found {
                let rest = self.pending.split_off(self.searched + at + 1);
                self.searched = 0;
                return Ok(Some(std::mem::replace(&mut self.pending, rest)));
            }
            self.searched = self.pending.len();
            let url = self.response.url().as_str();
            if self.searched > MAX_LINE_BYTES {
                return Err(Error::TooLong {
                    url: url.to_owned(),
                    limit: MAX_LINE_BYTES,
                });
            }
            let chunk = self.response.chunk().await;
            match chunk.map_err(|e| broken_off(&e, self.response.url().as_str()))? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None if self.pending.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(std::mem::take(&mut self.pending)));
                }
            }
        }
    }

    fn parse(&self, line: &[u8]) -> Result<T, Error> {
        let not_ours = |error: serde_json::Error| Error::NotOurs {
            url: self.response.url().to_string(),
            cause: error.to_string(),
        };
        let value: Value = serde_json::from_slice(line).map_err(not_ours)?;
        match value.get("error") {
            Some(Value::String(text)) => Err(Error::Broken(text.clone())),
            _ => serde_json::from_value(value).map_err(not_ours),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Progress, VersionReply};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A client of a server that answers one request with these bytes.
    async fn answering(answer: &'static str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        Client::new(&base, None).unwrap()
    }

    #[tokio::test]
    async fn refusals_have_the_servers_text() {
        let answer =
            "HTTP/1.1 404 Not Found\r\ncontent-length: 29\r\n\r\n{\"error\":\"model 'x' is gone\"}";
        let client = answering(answer).await;
        let error = client.get::<VersionReply>("/").await.unwrap_err();
        assert_eq!(error.to_string(), "model 'x' is gone");
        let client = answering(answer).await;
        let error = client.stream::<Progress>("/", &()).await.err().unwrap();
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "404 Not Found: model 'x' is gone");
    }

    #[tokio::test]
    async fn streams_end_with_their_error() {
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"status\":\"a\"}\n\n{\"status\":\"b\"}\n{\"error\":\"no room\"}";
        let client = answering(answer).await;
        let mut lines = client.stream::<Progress>("/", &()).await.unwrap();
        for status in ["a", "b"] {
            assert_eq!(lines.next().await.unwrap().unwrap().status, status);
        }
        assert_eq!(lines.next().await.unwrap_err().to_string(), "no room");
        assert!(lines.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_refusal_without_our_text_is_its_status() {
        for body in [
            "<html>no</html>",
            "try again",
            "{\"error\":3}",
            "{\"error\":\"\"}",
        ] {
            let n = body.len();
            let answer = format!("HTTP/1.1 502 Bad Gateway\r\ncontent-length: {n}\r\n\r\n{body}");
            let client = answering(answer.leak()).await;
            let error = client.get::<VersionReply>("/").await.unwrap_err();
            assert_eq!(error.to_string(), "502 Bad Gateway", "{body}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_an_error() {
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{\"status\":\"a\"}\n{\"stat";
        let client = answering(cut).await;
        let mut lines = client.stream::<Progress>("/", &()).await.unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap().status, "a");
        let error = lines.next().await.unwrap_err();
        assert!(matches!(error, Error::BrokenOff { .. }), "{error}");
        let whole = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"stat";
        let client = answering(whole).await;
        let mut lines = client.stream::<Progress>("/", &()).await.unwrap();
        let error = lines.next().await.unwrap_err();
        assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    }

    #[tokio::test]
    async fn other_servers_are_told_apart() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>";
        let client = answering(answer).await;
        let error = client.get::<VersionReply>("/").await.unwrap_err();
        assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    }

    #[tokio::test]
    async fn no_server_names_address_and_remedy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Client::new(&base, None).unwrap().check().await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&base) && text.contains("ollama-wgpu serve"),
            "{text}"
        );
        assert!(Client::new("https://example.com", Some("a\nb")).is_err());
    }
}
