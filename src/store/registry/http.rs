//! One operation's requests to a registry: every redirect, token, time and size limit is here.

use super::client::is_private;
use super::token::{self, Challenge, MAX_TOKEN_BYTES, authority};
use super::{Error, Registry};
use crate::store::ModelName;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

const MAX_REDIRECTS: usize = 10;
/// Of an error's body, which the user reads.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// For an error's body. Real registries give errors the length of the blob, which never comes.
const ERROR_BODY_TIME: Duration = Duration::from_secs(3);

/// An operation: the registry's address, and the token it gave.
pub(super) struct Session {
    pub(super) registry: Registry,
    base: Url,
    repository: String,
    token: Mutex<Option<String>>,
    /// Whether the registry answered from an address that the internet does not reach.
    is_private: OnceLock<bool>,
    /// Whether it may only be one that the internet reaches.
    is_outside_alone: bool,
}

impl Session {
    /// # Errors
    /// [`Error::Private`] for an address of this network, where it is closed to registries; names that lead there are
    /// found out when they are resolved.
    pub(super) fn new(
        registry: &Registry,
        name: &ModelName,
        insecure: bool,
    ) -> Result<Session, Error> {
        let scheme = if insecure { "http" } else { "https" };
        let base = format!("{scheme}://{}/", name.host());
        let invalid = |_| Error::Protocol(format!("{} is no address of a registry", name.host()));
        let base = Url::parse(&base).map_err(invalid)?;
        let is_outside_alone = registry.is_closed(name.host());
        if is_outside_alone && is_near(&base) {
            return Err(Error::Private(name.host().into()));
        }
        Ok(Session {
            registry: registry.clone(),
            base,
            repository: format!("{}/{}", name.namespace(), name.model()),
            token: Mutex::default(),
            is_private: OnceLock::new(),
            is_outside_alone,
        })
    }

    /// Address of something of the model's repository.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{path}", self.repository));
        url
    }

    /// A request whose redirects are followed; `fill` adds headers. Any status but 401 is an answer.
    pub(super) async fn get(
        &self,
        method: Method,
        url: Url,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let mut may_sign = true;
        let (mut at, mut n_redirects) = (url.clone(), 0);
        loop {
            let limit = self.registry.timing().header;
            let response = self.once(method.clone(), &at, limit, &fill).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && may_sign && self.is_own(&at) {
                self.authorize(&response).await?;
                may_sign = false;
                (at, n_redirects) = (url.clone(), 0);
                continue;
            }
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            n_redirects += 1;
            if n_redirects > MAX_REDIRECTS {
                return Err(Error::Protocol(format!(
                    "maximum redirects exceeded ({MAX_REDIRECTS}) for {url}"
                )));
            }
            at = self.redirected(&at, &response)?;
        }
    }

    /// A request whose redirects are not followed, and which is answered within some time; it is sent again once there is
    /// a token for it.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        limit: Duration,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let response = self.once(method.clone(), url, limit, &fill).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.is_own(url) {
            return Ok(response);
        }
        self.authorize(&response).await?;
        self.once(method, url, limit, &fill).await
    }

    /// A request with a body that can be sent only once. It may take as long as `sent`, which counts the bytes of the
    /// body that are on their way, goes on growing.
    pub(super) async fn upload(
        &self,
        method: Method,
        url: &Url,
        sent: &AtomicU64,
        fill: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        self.refuse_private(url)?;
        let request = self.client(url)?.request(method.clone(), url.clone());
        let request = self.with_token(fill(request), url);
        let limit = self.registry.timing().header;
        let response = tokio::select! {
            response = request.send() => response.map_err(|e| transport(&method, url, &e))?,
            () = stand_still(sent, limit) => return Err(Error::Stalled(limit.as_secs())),
        };
        if response.status() == StatusCode::UNAUTHORIZED && self.is_own(url) {
            self.authorize(&response).await?;
            let text = "the registry wants the token anew".to_owned();
            return Err(Error::Broken(text));
        }
        self.check_address(url, response.remote_addr())?;
        Ok(response)
    }

    /// Registries that the internet reaches lead to such addresses alone.
    fn client(&self, url: &Url) -> Result<&reqwest::Client, Error> {
        let is_public = self.is_private.get() == Some(&false);
        let leads_on = is_public && !self.is_own(url);
        self.registry.http(leads_on || self.is_outside_alone)
    }

    fn with_token(&self, request: RequestBuilder, url: &Url) -> RequestBuilder {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        match &*token {
            Some(token) if self.is_own(url) => {
                request.header(AUTHORIZATION, format!("Bearer {token}"))
            }
            _ => request,
        }
    }

    async fn once(
        &self,
        method: Method,
        url: &Url,
        limit: Duration,
        fill: &impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        self.refuse_private(url)?;
        let request = self.client(url)?.request(method.clone(), url.clone());
        let request = self.with_token(fill(request), url);
        let response = match tokio::time::timeout(limit, request.send()).await {
            Ok(response) => response.map_err(|e| transport(&method, url, &e))?,
            Err(_) => return Err(Error::Stalled(limit.as_secs())),
        };
        self.check_address(url, response.remote_addr())?;
        Ok(response)
    }

    /// Whether the token may be sent there.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.scheme() == self.base.scheme() && authority(url) == authority(&self.base)
    }

    async fn authorize(&self, response: &Response) -> Result<(), Error> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).into_iter();
        let mut texts = headers.filter_map(|value| value.to_str().ok());
        let challenge = texts.find_map(Challenge::parse);
        let challenge = challenge.ok_or_else(|| Error::Status {
            status: 401,
            body: "the registry wants a password, which is not supported".into(),
            retry_after: None,
        })?;
        let url = challenge.url(response.url())?;
        let is_near = self.is_private.get().copied().unwrap_or(false);
        let key = self.registry.key(&self.base, is_near);
        let signature = key.map(|key| token::signature(&key, &url));
        let sign = |request: RequestBuilder| match &signature {
            Some(signature) => request.header(AUTHORIZATION, signature),
            None => request,
        };
        let request = sign(self.client(&url)?.get(url.clone()));
        let reply = tokio::time::timeout(self.registry.timing().header, request.send());
        let reply = match reply.await {
            Ok(reply) => reply.map_err(|e| transport(&Method::GET, &url, &e))?,
            Err(_) => return Err(Error::Stalled(self.registry.timing().header.as_secs())),
        };
        let reply = accepted(reply).await?;
        let body = body(reply, MAX_TOKEN_BYTES, self.registry.timing().body).await?;
        let token = token::parse(&body)?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    /// Where a redirect leads, if it may.
    fn redirected(&self, from: &Url, response: &Response) -> Result<Url, Error> {
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| {
            Error::Protocol(format!(
                "http: no Location header in the redirect of {from}"
            ))
        })?;
        self.resolve(from, location)
    }

    /// As after an answer from an address that the internet reaches.
    #[cfg(test)]
    pub(super) fn assume_public(&self) {
        self.is_private.get_or_init(|| false);
    }

    /// A `Location` against the address that gave it.
    pub(super) fn resolve(&self, from: &Url, location: &str) -> Result<Url, Error> {
        let refused = |why: &str| Error::Protocol(format!("redirect of {from} refused: {why}"));
        let to = from.join(location).map_err(|_| refused("no address"))?;
        match (from.scheme(), to.scheme()) {
            (_, "https") | ("http", "http") => {}
            ("https", "http") => return Err(refused("from https to http")),
            _ => return Err(refused("neither http nor https")),
        }
        if !to.username().is_empty() || to.password().is_some() {
            return Err(refused("it carries a password"));
        }
        self.refuse_private(&to)?;
        Ok(to)
    }

    /// Refuses addresses inside a network to registries outside it, before anything is sent there.
    fn refuse_private(&self, url: &Url) -> Result<(), Error> {
        let host = url.host_str().unwrap_or_default();
        match host.trim_matches(['[', ']']).parse() {
            Ok(ip) if is_private(ip) && !self.is_own(url) => self.may_be_private(url),
            _ => Ok(()),
        }
    }

    fn check_address(&self, url: &Url, address: Option<SocketAddr>) -> Result<(), Error> {
        let is_private = address.is_some_and(|address| is_private(address.ip()));
        if self.is_own(url) {
            self.is_private.get_or_init(|| is_private);
            return Ok(());
        }
        if is_private {
            self.may_be_private(url)
        } else {
            Ok(())
        }
    }

    fn may_be_private(&self, url: &Url) -> Result<(), Error> {
        match self.is_private.get() {
            Some(true) => Ok(()),
            _ => Err(Error::Protocol(format!(
                "redirect refused: {} is an address of a private network",
                authority(url)
            ))),
        }
    }
}

/// Whether an address is written as one of this machine or its network.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse() {
        Ok(ip) => is_private(ip),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Returns when a count has not grown for so long.
async fn stand_still(count: &AtomicU64, limit: Duration) {
    let mut last = count.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(limit).await;
        let now = count.load(Ordering::Relaxed);
        if now == last {
            return;
        }
        last = now;
    }
}

/// The response if it is a success in plain bytes, else its status and body.
pub(super) async fn accepted(response: Response) -> Result<Response, Error> {
    let status = response.status();
    let encoding = response.headers().get(CONTENT_ENCODING);
    let encoding = encoding.map(|value| value.to_str().unwrap_or("?").to_owned());
    match encoding {
        Some(encoding) if status.is_success() && !encoding.eq_ignore_ascii_case("identity") => {
            let text = format!("the registry answers in the encoding {encoding:.80?}");
            return Err(Error::Protocol(text + ", which it was asked not to"));
        }
        _ if status.is_success() => return Ok(response),
        _ => {}
    }
    let retry_after = retry_after(response.headers());
    let mut body = Vec::new();
    // What has come by then is the message, whether it is whole or not.
    let _ = tokio::time::timeout(ERROR_BODY_TIME, read(response, MAX_ERROR_BYTES, &mut body)).await;
    let body = String::from_utf8_lossy(&body);
    let is_plain = |c: &char| !c.is_control() || *c == '\n';
    Err(Error::Status {
        status: status.as_u16(),
        body: body.trim().chars().filter(is_plain).collect(),
        retry_after,
    })
}

/// How long a refusal asks to wait.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// A body of at most `limit` bytes that comes within some time; what lies beyond is not read.
pub(super) async fn body(
    response: Response,
    limit: usize,
    time: Duration,
) -> Result<Vec<u8>, Error> {
    let mut whole = Vec::new();
    match tokio::time::timeout(time, read(response, limit, &mut whole)).await {
        Ok(done) => done.map(|()| whole),
        Err(_) => Err(Error::Stalled(time.as_secs())),
    }
}

/// Reads a body to its end, or to `limit` bytes, where it is an error.
async fn read(mut response: Response, limit: usize, whole: &mut Vec<u8>) -> Result<(), Error> {
    let url = response.url().clone();
    let broken = |e| transport(&Method::GET, &url, &e);
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        let room = limit - whole.len();
        whole.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            return Err(Error::Protocol(format!(
                "the answer of {url} is longer than {limit} bytes"
            )));
        }
    }
    Ok(())
}

/// A failure on the way, in the words of Go's client, which Ollama's users know.
pub(super) fn transport(method: &Method, url: &Url, error: &reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let io = cause.downcast_ref::<std::io::Error>();
    let untrusted = untrusted(cause);
    let cause = match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => {
            format!("dial tcp {}: connect: connection refused", authority(url))
        }
        _ if untrusted.is_some() => untrusted.unwrap_or_default(),
        _ => error
            .source()
            .map_or(error.to_string(), |_| cause.to_string()),
    };
    let method = method.as_str();
    let method = format!("{}{}", &method[..1], method[1..].to_lowercase());
    Error::Transport {
        method,
        url: url.to_string(),
        cause,
    }
}

/// What to do about a certificate that is not trusted, where something can be done here or by the registry's owner.
fn untrusted(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        return untrusted(io.get_ref()?);
    }
    let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() else {
        return None;
    };
    let what = match why {
        rustls::CertificateError::UnknownIssuer => {
            "certificate signed by unknown authority (SSL_CERT_FILE can name a file with the authority's certificate)"
                .to_owned()
        }
        rustls::CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is one of an authority (make it with basicConstraints=CA:FALSE)".to_owned()
        }
        other => other.to_string(),
    };
    Some(format!("tls: failed to verify certificate: x509: {what}"))
}
