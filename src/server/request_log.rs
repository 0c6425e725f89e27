//! `OLLAMA_DEBUG_LOG_REQUESTS`: the bodies of requests for answers and vectors, each with a script that sends it again.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::Utc;
use warp::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName};

use super::names::blocking;

/// Requests kept; older ones are removed.
const MAX_REQUESTS: usize = 1000;
/// Bytes of all bodies kept, but for the last one.
const MAX_BYTES: u64 = 1 << 30;

/// Paths of the requests that are kept.
const PATHS: [&str; 9] = [
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/responses",
];

/// A folder of requests, for the server's user alone.
#[derive(Debug)]
pub struct RequestLog {
    folder: PathBuf,
    scheme: &'static str,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    n_requests: u64,
    n_bytes: u64,
    /// Names without their endings, and the bytes of their bodies, oldest first.
    requests: VecDeque<(String, u64)>,
}

/// A request whose body is still to come.
pub struct Entry {
    log: Arc<RequestLog>,
    path: &'static str,
    /// What a client sends with the body: curl's arguments.
    headers: Vec<String>,
    host: String,
}

impl RequestLog {
    /// Makes a new folder among the system's temporary files, which stays when the server ends. Scripts ask over TLS if
    /// the server does.
    ///
    /// # Errors
    /// The system's.
    pub fn new(has_tls: bool) -> io::Result<RequestLog> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("ollama-request-logs-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o700));
        }
        let folder = builder.tempdir()?;
        Ok(RequestLog {
            folder: folder.keep(),
            scheme: if has_tls { "https" } else { "http" },
            kept: Mutex::default(),
        })
    }

    /// Where the requests are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A place for a request that is to be kept.
    pub fn entry(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> Option<Entry> {
        let path = PATHS.into_iter().find(|kept| *kept == path)?;
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let content_type = text(&CONTENT_TYPE).unwrap_or("application/json");
        let encoding = text(&CONTENT_ENCODING).map(|value| format!("Content-Encoding: {value}"));
        let headers = [format!("Content-Type: {content_type}")].into_iter();
        Some(Entry {
            path,
            headers: headers.chain(encoding).collect(),
            host: text(&HOST).unwrap_or("localhost").to_owned(),
            log: Arc::clone(self),
        })
    }

    /// The next request's name; the oldest ones make room for it.
    fn name(&self, path: &str, n_bytes: u64) -> (String, Vec<String>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.n_requests += 1;
        let name = format!(
            "{}-{:06}_{}",
            Utc::now().format("%Y%m%dT%H%M%S%.9fZ"),
            kept.n_requests,
            path.trim_start_matches('/').replace('/', "_")
        );
        kept.n_bytes += n_bytes;
        kept.requests.push_back((name.clone(), n_bytes));
        let mut old = Vec::new();
        while kept.requests.len() > MAX_REQUESTS
            || (kept.n_bytes > MAX_BYTES && kept.requests.len() > 1)
        {
            let (name, n_bytes) = kept.requests.pop_front().expect("there is one more");
            kept.n_bytes -= n_bytes;
            old.push(name);
        }
        (name, old)
    }

    fn body(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}_body.json"))
    }

    fn script(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}_request.sh"))
    }
}

impl Entry {
    /// Keeps the body. A failure is a warning: the request is answered all the same.
    pub async fn write(self, body: Bytes) {
        let kept = blocking(move || {
            if let Err(error) = self.keep(&body) {
                tracing::warn!(path = self.path, "cannot keep a request: {error}");
            }
            Ok(())
        });
        kept.await.ok();
    }

    fn keep(&self, body: &[u8]) -> io::Result<()> {
        let log = &self.log;
        let (name, old) = log.name(self.path, body.len() as u64);
        for old in old {
            for path in [log.body(&old), log.script(&old)] {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        write_privately(&log.body(&name), body)?;
        let script = log.script(&name);
        write_privately(&script, self.commands(&name).as_bytes())?;
        tracing::info!("kept a request; `sh {}` sends it again", script.display());
        Ok(())
    }

    /// The script that sends the body again, from wherever it is run.
    fn commands(&self, name: &str) -> String {
        let url = format!("{}://{}{}", self.log.scheme, self.host, self.path);
        let headers = self.headers.iter();
        let headers: String = headers
            .map(|header| format!(" --header {}", quoted(header)))
            .collect();
        format!(
            "#!/bin/sh\ncd -- \"$(dirname -- \"$0\")\" &&\n\
             curl --request POST --url {}{headers} --data-binary @{name}_body.json\n",
            quoted(&url)
        )
    }
}

/// One word of a shell, whatever it holds.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn write_privately(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::HeaderValue;

    fn log() -> Arc<RequestLog> {
        Arc::new(RequestLog::new(false).unwrap())
    }

    fn n_files(log: &RequestLog) -> usize {
        std::fs::read_dir(log.folder()).unwrap().count()
    }

    #[tokio::test]
    async fn the_oldest_requests_make_room() {
        let log = log();
        for _ in 0..MAX_REQUESTS + 3 {
            let entry = log.entry("/api/chat", &HeaderMap::new()).unwrap();
            entry.write(Bytes::from_static(b"{}")).await;
        }
        assert_eq!(n_files(&log), 2 * MAX_REQUESTS);
        let (_, old) = log.name("/api/chat", MAX_BYTES);
        assert_eq!(
            old.len(),
            MAX_REQUESTS,
            "the last one stays, whatever its size"
        );
        std::fs::remove_dir_all(log.folder()).unwrap();
    }

    #[test]
    fn only_requests_that_a_model_answers_are_kept() {
        let log = log();
        for path in ["/api/pull", "/api/blobs/sha256:ab", "/", "/api/chat/"] {
            assert!(log.entry(path, &HeaderMap::new()).is_none(), "{path}");
        }
        std::fs::remove_dir_all(log.folder()).unwrap();
    }

    #[test]
    fn headers_are_words_of_the_script() {
        let log = log();
        let mut headers = HeaderMap::new();
        let hostile = HeaderValue::from_static("a'; rm -rf $HOME; echo `id` \"");
        headers.insert(CONTENT_TYPE, hostile.clone());
        headers.insert(HOST, hostile);
        let script = log.entry("/api/chat", &headers).unwrap().commands("n");
        let word = r#"a'\''; rm -rf $HOME; echo `id` ""#;
        let command = format!(
            "curl --request POST --url 'http://{word}/api/chat' --header 'Content-Type: {word}' \
             --data-binary @n_body.json\n"
        );
        assert!(script.ends_with(&command), "{script}");
        std::fs::remove_dir_all(log.folder()).unwrap();
    }
}
