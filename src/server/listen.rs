//! Connections: accepted up to a limit, with time limits on headers and on clients that stop reading, and all of them
//! closed at once when the server stops. A request's `Host` is made what its target says.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use warp::Filter;
use warp::http::header::{HOST, HeaderValue};
use warp::http::{Request, Version};
use warp::hyper::server::conn::http1;
use warp::hyper::service::{Service, service_fn};

/// Connections open at one time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// A request's line and headers must fit here.
const HEADER_BYTES: usize = 64 << 10;
/// A new connection has this long to send its first request's headers.
const FIRST_HEADER_TIME: Duration = Duration::from_secs(10);
/// A later request's headers; also how long an idle connection is kept.
const HEADER_TIME: Duration = Duration::from_secs(120);
/// A client has this long to agree on TLS.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A client that reads nothing for this long loses its connection, and with it its generation.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// A client that is answered before it has sent all has this long to end: were its connection closed at once, it would see a
/// broken pipe instead of the answer.
const LINGER: Duration = Duration::from_secs(5);
/// Pause after an accept error that will come again at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Binds `host:port`.
///
/// # Errors
/// The system's, with the address in front: `listen tcp 127.0.0.1:11434: bind: address already in use`.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        let reason = match e.kind() {
            io::ErrorKind::AddrInUse => "address already in use".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
            _ => e.to_string(),
        };
        io::Error::new(e.kind(), format!("listen tcp {address}: bind: {reason}"))
    })
}

/// Serves `routes` on `listener`, behind TLS where that is set up, until `stop` resolves; then every open connection is closed at once.
pub async fn serve<F>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    routes: F,
    stop: impl Future<Output = ()>,
) where
    F: Filter<Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
    F::Extract: warp::Reply,
    F::Future: Send,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener) => accepted,
        };
        let slot = tokio::select! {
            () = &mut stop => break,
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        while connections.try_join_next().is_some() {}
        let app = TowerToHyperService::new(warp::service(routes.clone()));
        let tls = tls.clone();
        connections.spawn(async move {
            let _slot = slot;
            let stream = Guarded::new(stream, FIRST_HEADER_TIME, WRITE_STALL);
            let has_asked = Arc::clone(&stream.has_asked);
            let service = service_fn(move |request| {
                has_asked.store(true, Ordering::Relaxed);
                app.call(with_host(request))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(HEADER_BYTES)
                .clone();
            let ended = match tls {
                None => {
                    connection
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                }
                Some(tls) => match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        connection
                            .serve_connection(TokioIo::new(stream), service)
                            .await
                    }
                    Ok(Err(e)) => return tracing::debug!(%peer, "TLS handshake failed: {e}"),
                    Err(_) => return tracing::debug!(%peer, "TLS handshake not done in time"),
                },
            };
            if let Err(e) = ended {
                tracing::debug!(%peer, "connection ended: {e}");
            }
        });
    }
    connections.shutdown().await;
}

/// The `Host` that counts is that of the target where it names one (RFC 9112, section 3.2.2). One that HTTP/1.1 demands and that
/// is not there is an empty one, which is refused.
fn with_host<B>(mut request: Request<B>) -> Request<B> {
    let target = request.uri().authority().map(|a| a.as_str().to_owned());
    let is_missing = request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST);
    if let Some(host) = target.or(is_missing.then(String::new)) {
        // An authority has no characters that a header may not have.
        let value = HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static(""));
        request.headers_mut().insert(HOST, value);
    }
    request
}

/// The next connection; errors of single connections are passed over, others paused upon.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Tokens are small writes that should leave at once.
                if let Err(e) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, "no TCP_NODELAY: {e}");
                }
                return (stream, peer);
            }
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A stream whose reads fail where nothing was asked in `first` time, and whose writes fail once the client has taken nothing
/// for `patience`. Shut down, it reads on for `linger` time, until the client closes it too.
struct Guarded<S> {
    stream: S,
    has_asked: Arc<AtomicBool>,
    first: Pin<Box<Sleep>>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    linger: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    fn new(stream: S, first: Duration, patience: Duration) -> Self {
        Guarded {
            stream,
            has_asked: Arc::default(),
            first: Box::pin(tokio::time::sleep(first)),
            patience,
            stalled: None,
            linger: LINGER,
            lingering: None,
        }
    }

    /// Passes a write's result on, and counts the time for which it is pending.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.stalled = None;
            return write;
        }
        let sleep = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        ready!(sleep.as_mut().poll(cx));
        let text = format!("the client read nothing for {} s", self.patience.as_secs());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let is_late =
            !this.has_asked.load(Ordering::Relaxed) && this.first.as_mut().poll(cx).is_ready();
        if is_late {
            let text = "no request within the time for one";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.watch(cx, write)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flush = Pin::new(&mut this.stream).poll_flush(cx);
        this.watch(cx, flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let linger = this.linger;
        let end = this
            .lingering
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(linger)));
        let mut piece = [0; 16 << 10];
        while end.as_mut().poll(cx).is_pending() {
            let mut rest = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut rest));
            if read.is_err() || rest.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.watch(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = bind("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = bind(&address).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!("listen tcp {address}: bind: address already in use")
        );
    }

    /// A server that says "ok" to everything, how it is stopped, and that it has.
    async fn serving() -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let routes = warp::any().map(|| "ok");
        let server = tokio::spawn(serve(listener, None, routes, async {
            stopped.await.unwrap_or(())
        }));
        (address, stop, server)
    }

    #[tokio::test]
    async fn stopping_closes_open_connections() {
        let (address, stop, server) = serving().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 15];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        stop.send(()).unwrap();
        server.await.unwrap();
        // The kept-alive connection ends instead of waiting for another request.
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_still_sends_gets_its_answer() {
        let (address, _stop, _server) = serving().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let body = vec![b' '; 20 << 20];
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&body).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok"));
    }

    #[tokio::test]
    async fn a_client_that_sends_without_an_end_is_dropped() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut guarded = Guarded::new(near, FIRST_HEADER_TIME, WRITE_STALL);
        guarded.linger = Duration::from_millis(20);
        let endless = async { while far.write_all(&[0; 64]).await.is_ok() {} };
        tokio::select! {
            done = guarded.shutdown() => done.unwrap(),
            () = endless => panic!("it was not read"),
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_ask_is_dropped() {
        let first = Duration::from_millis(20);
        let (near, mut far) = tokio::io::duplex(16);
        let mut guarded = Guarded::new(near, first, WRITE_STALL);
        far.write_all(b"GET / HT").await.unwrap();
        let mut asked = Vec::new();
        let error = guarded.read_to_end(&mut asked).await.unwrap_err();
        assert_eq!(asked, b"GET / HT");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // One that has asked may take its time with the next.
        let (near, mut far) = tokio::io::duplex(16);
        let mut guarded = Guarded::new(near, first, WRITE_STALL);
        guarded.has_asked.store(true, Ordering::Relaxed);
        let later = async {
            tokio::time::sleep(2 * first).await;
            far.write_all(b"x").await.unwrap();
        };
        let (byte, ()) = tokio::join!(guarded.read_u8(), later);
        assert_eq!(byte.unwrap(), b'x');
    }

    #[test]
    fn the_target_says_which_host() {
        for (target, version, sent, host) in [
            ("/", Version::HTTP_11, Some("a"), Some("a")),
            ("http://b:1/", Version::HTTP_11, Some("a"), Some("b:1")),
            ("http://b:1/", Version::HTTP_10, None, Some("b:1")),
            ("/", Version::HTTP_11, None, Some("")),
            ("/", Version::HTTP_10, None, None),
        ] {
            let mut request = Request::builder().uri(target).version(version);
            if let Some(sent) = sent {
                request = request.header(HOST, sent);
            }
            let request = with_host(request.body(()).unwrap());
            let found = request.headers().get(HOST).map(|v| v.to_str().unwrap());
            assert_eq!(found, host, "{target} {version:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_dropped() {
        let (near, _far) = tokio::io::duplex(16);
        let mut guarded = Guarded::new(near, Duration::from_secs(9), Duration::from_millis(1));
        let error = guarded.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
