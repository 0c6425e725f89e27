//! API keys: who may call at all, beyond Ollama. One key a line of a file, which is read again on request.

use super::error::{ApiError, JSON, respond, to_json};
use super::{Response, anthropic};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use subtle::{Choice, ConstantTimeEq};
use warp::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use warp::http::{Method, StatusCode};

/// Largest file of keys.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Where Anthropic's clients send their key.
const ANTHROPIC_KEY: &str = "x-api-key";

/// A key's SHA-256: all are equally long, so comparing them tells nothing about the keys.
type KeyDigest = [u8; 32];

/// The keys of a file.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    digests: RwLock<Vec<KeyDigest>>,
}

impl Keys {
    /// Reads a file: a key a line, blank lines and those that begin with `#` left out.
    ///
    /// # Errors
    /// The system's, and one for a file without keys or of more than 1 MiB; both name the file.
    pub fn open(path: &Path) -> io::Result<Keys> {
        Ok(Keys {
            path: path.to_owned(),
            digests: RwLock::new(read(path)?),
        })
    }

    /// Reads the file again; the number of keys. On an error the old keys stay.
    ///
    /// # Errors
    /// As [`Keys::open`].
    pub fn reload(&self) -> io::Result<usize> {
        let digests = read(&self.path)?;
        let n = digests.len();
        *self.digests.write().unwrap_or_else(PoisonError::into_inner) = digests;
        Ok(n)
    }

    /// The file, where other users of this machine may read it.
    pub fn readable_by_others(&self) -> Option<&Path> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            const READABLE_BY_OTHERS: u32 = 0o044;
            let mode = std::fs::metadata(&self.path).map_or(0, |file| file.mode());
            (mode & READABLE_BY_OTHERS != 0).then_some(&self.path)
        }
        #[cfg(not(unix))]
        None
    }

    /// Whether a request brings one of the keys, as a bearer or as Anthropic's clients send it. Takes as long for
    /// every key.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(AUTHORIZATION).and_then(bearer);
        let Some(sent) = bearer.or_else(|| headers.get(ANTHROPIC_KEY).map(HeaderValue::as_bytes))
        else {
            return false;
        };
        let sent: KeyDigest = Sha256::digest(sent).into();
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        let known = |found: Choice, digest: &KeyDigest| found | digest.ct_eq(&sent);
        digests.iter().fold(Choice::from(0), known).into()
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then_some(key.trim_ascii())
}

fn read(path: &Path) -> io::Result<Vec<KeyDigest>> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(named)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(named)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(named(io::Error::other("a file of keys larger than 1 MiB")));
    }
    let keys = text.lines().map(str::trim);
    let digests: Vec<KeyDigest> = keys
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|key| Sha256::digest(key).into())
        .collect();
    if digests.is_empty() {
        return Err(named(io::Error::other("no key in the file, one a line")));
    }
    Ok(digests)
}

/// Whether a path can be asked without a key: only that the server lives.
pub fn is_open(method: &Method, path: &str) -> bool {
    path == "/" && (method == Method::GET || method == Method::HEAD)
}

/// 401 in the shape of the API that was called.
pub fn refusal(path: &str, headers: &HeaderMap) -> Response {
    let error = ApiError::new(
        StatusCode::UNAUTHORIZED,
        "missing or unknown API key: send one as \"Authorization: Bearer KEY\"",
    );
    let mut response = match path.strip_prefix("/v1/") {
        Some(rest) if rest == "messages" || rest.starts_with("messages/") => {
            anthropic::refusal(&error)
        }
        Some(_) if anthropic::is_asked(headers) => anthropic::refusal(&error),
        Some(_) => error.into_openai_refusal(),
        None => respond(error.status, JSON, to_json(&error.body())),
    };
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn keys_of_the_file_are_admitted_and_no_others() {
        let file = file("# ours\nalpha\n\n  beta \r\n");
        let keys = Keys::open(file.path()).unwrap();
        for (name, value, expected) in [
            ("authorization", "Bearer alpha", true),
            ("authorization", "bearer beta", true),
            ("x-api-key", "alpha", true),
            ("authorization", "Bearer alph", false),
            ("authorization", "Bearer alphaa", false),
            ("authorization", "Bearer ", false),
            ("authorization", "Bearer # ours", false),
            ("authorization", "Basic alpha", false),
            ("authorization", "alpha", false),
            ("cookie", "alpha", false),
        ] {
            assert_eq!(keys.admit(&with(name, value)), expected, "{name}: {value}");
        }
        assert!(!keys.admit(&HeaderMap::new()));
    }

    #[test]
    fn a_file_is_read_again_and_a_broken_one_changes_nothing() {
        let file = file("alpha");
        let keys = Keys::open(file.path()).unwrap();
        std::fs::write(file.path(), "gamma\ndelta").unwrap();
        assert_eq!(keys.reload().unwrap(), 2);
        let admits = |key: &str| keys.admit(&with("authorization", &format!("Bearer {key}")));
        assert!(admits("gamma") && !admits("alpha"));
        std::fs::write(file.path(), "# none\n").unwrap();
        assert!(keys.reload().unwrap_err().to_string().contains("no key"));
        assert!(admits("gamma"));
        std::fs::write(file.path(), "x".repeat(2 << 20)).unwrap();
        assert!(keys.reload().unwrap_err().to_string().contains("1 MiB"));
        assert!(
            Keys::open(Path::new("/nonexistent/keys"))
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/keys")
        );
    }

    #[test]
    fn refusals_have_each_api_s_shape() {
        for path in [
            "/api/chat",
            "/v1/models",
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/nope",
        ] {
            let response = refusal(path, &HeaderMap::new());
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
        }
        assert!(
            is_open(&Method::GET, "/")
                && !is_open(&Method::GET, "/api/tags")
                && !is_open(&Method::POST, "/")
        );
    }
}
